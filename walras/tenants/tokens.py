"""Bearer tokens: who is calling. Only digests are kept in memory."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from walras.kube.api import API, Change
from walras.kube.context import Identity
from walras.tenants.objects import AGENTS, FLEET, SECRETS, Object

SYSTEM_NAMESPACE: Final = "walras-system"
SECRET_PREFIX: Final = "agent-"  # noqa: S105
OPERATOR_SECRET: Final = "operator"  # noqa: S105
OPERATOR: Final = "operator"
AGENT_GROUPS: Final = ("system:masters", "system:authenticated")


def encode(text: str) -> str:
    """A value of a Secret's `data`."""
    return base64.b64encode(text.encode()).decode()


def decode(secret: Object, key: str) -> str:
    """The text of one key of a Secret; empty when it is missing or not text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, "")).decode()
    except (binascii.Error, ValueError):
        return ""


def kubeconfig(endpoint: str, ca_pem: str, name: str, token: str) -> str:
    """A kubeconfig for the cluster `name` of the server at `endpoint`, its only context `walras-NAME`."""
    context = _quoted(f"walras-{name}")
    return f"""\
apiVersion: v1
kind: Config
clusters:
- name: {context}
  cluster:
    server: {_quoted(f"{endpoint.rstrip('/')}/clusters/{name}")}
    certificate-authority-data: {encode(ca_pem)}
users:
- name: {context}
  user:
    token: {_quoted(token)}
contexts:
- name: {context}
  context:
    cluster: {context}
    user: {context}
    namespace: default
current-context: {context}
"""


def _quoted(text: str) -> str:
    """A YAML scalar: JSON's strings are YAML's."""
    return json.dumps(text)


class TokenAuthenticator:
    """Knows the tokens of the Secrets in walras-system of the fleet, from the moment they are committed."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._names: dict[bytes, str] = {}
        self._digests: dict[str, bytes] = {}

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(SECRETS, self._changed)]

    def identify(self, token: str) -> Identity | None:
        """Whose token this is; None for nobody's, and for that of an agent that is being deleted."""
        given = _digest(token)
        # The look-up is by digest: its time tells nothing about a token.
        name = self._names.get(given)
        if name is None or not hmac.compare_digest(given, self._digests[name]):
            return None
        if name == OPERATOR_SECRET:
            return Identity(OPERATOR, ("system:masters", "system:authenticated"), "")
        agent = name.removeprefix(SECRET_PREFIX)
        found = self._api.record(FLEET, AGENTS, "", agent)
        if found is None or found.is_going:
            return None
        return _agent(agent)

    def _changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        name = metadata["name"]
        if change.cluster != FLEET or metadata.get("namespace") != SYSTEM_NAMESPACE:
            return
        if name != OPERATOR_SECRET and not name.startswith(SECRET_PREFIX):
            return
        known = self._digests.pop(name, None)
        if known is not None:
            del self._names[known]
        token = decode(change.object, "token") if change.type != "DELETED" else ""
        if token:
            digest = _digest(token)
            self._digests[name], self._names[digest] = digest, name


@lru_cache(maxsize=1024)
def _agent(name: str) -> Identity:
    return Identity(f"walras:agent:{name}", AGENT_GROUPS, name)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
