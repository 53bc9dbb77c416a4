"""RBAC: whether a caller may do something in a cluster, and the rules by which it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from walras.core.errors import Forbidden
from walras.kube.access import rules
from walras.kube.access.bindings import Bindings, Where, subjects_of
from walras.kube.access.words import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    MASTERS,
    ROLE_BINDINGS,
    ROLES,
    Attributes,
    Object,
    Rule,
)
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.objects import details


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and by what; or what went wrong on the way to finding that it is not."""

    allowed: bool
    reason: str = ""


_ALLOWED: Final = Decision(True)


class Authoriser:
    """Role-based access control of every cluster, as kubernetes/plugin/pkg/auth/authorizer/rbac decides.

    Members of system:masters may do everything in their cluster, which is still not what the market's policy
    keeps from everybody.
    """

    def __init__(self, api: API) -> None:
        self._api = api
        self.bindings = Bindings(api)

    def watch(self) -> list[Callable[[], None]]:
        return self.bindings.watch()

    def decide(self, identity: Identity, cluster: str, asked: Attributes) -> Decision:
        """Whether the caller may do this in the cluster."""
        if identity.cluster not in ("", cluster):
            return Decision(False, f'this identity may only open the cluster "{identity.cluster}"')
        if MASTERS in identity.groups:
            return _ALLOWED
        faults: list[str] = []
        for where in self.bindings.of(identity, cluster, asked.namespace):
            binding = self._binding(cluster, where)
            for rule in self._rules(cluster, binding, faults):
                if rules.allows(rule, asked):
                    return Decision(True, f"RBAC: allowed by {_described(binding, identity)}")
        return Decision(False, f"RBAC: {_aggregate(faults)}" if faults else "")

    def require(self, identity: Identity, cluster: str, asked: Attributes) -> None:
        """Raises Forbidden, in Kubernetes' words."""
        decision = self.decide(identity, cluster, asked)
        if not decision.allowed:
            raise forbidden(identity, asked, decision.reason)

    def rules_for(self, identity: Identity, cluster: str, namespace: str) -> list[Rule]:
        """The rules that the caller has in the namespace, or cluster-wide for ""."""
        return [
            rule
            for where in self.bindings.of(identity, cluster, namespace)
            for rule in self._rules(cluster, self._binding(cluster, where), [])
        ]

    def referred(self, cluster: str, reference: Object, namespace: str) -> list[Rule]:
        """The rules of the role that a binding in the namespace refers to. Raises NotFound."""
        return list(self._role(cluster, reference, namespace).get("rules") or ())

    def _binding(self, cluster: str, where: Where) -> Object:
        resource = ROLE_BINDINGS if where.namespace else CLUSTER_ROLE_BINDINGS
        return self._api.get(cluster, resource, where.namespace, where.name)

    def _role(self, cluster: str, reference: Object, namespace: str) -> Object:
        name = str(reference.get("name") or "")
        if reference.get("kind") == "ClusterRole":
            return self._api.get(cluster, CLUSTER_ROLES, "", name)
        return self._api.get(cluster, ROLES, namespace, name)

    def _rules(self, cluster: str, binding: Object, faults: list[str]) -> Iterator[Rule]:
        """The rules that a binding gives; a role that is not there is written down in `faults`."""
        reference, namespace = binding.get("roleRef") or {}, str(binding["metadata"].get("namespace") or "")
        kind, name = reference.get("kind"), str(reference.get("name") or "")
        if kind == "ClusterRole":
            role = self._api.find(cluster, CLUSTER_ROLES, "", name)
        else:
            role = self._api.find(cluster, ROLES, namespace, name) if namespace else None
        if role is None:
            faults.append(f'{str(kind).lower()}.rbac.authorization.k8s.io "{name}" not found')
            return
        yield from role.get("rules") or ()


def forbidden(identity: Identity, asked: Attributes, reason: str = "") -> Forbidden:
    """The refusal, as k8s.io/apiserver/pkg/endpoints/handlers/responsewriters writes it."""
    if asked.path:
        said = f"User {_quoted(identity.user)} cannot {asked.verb} path {_quoted(asked.path)}"
    else:
        where = f"in the namespace {_quoted(asked.namespace)}" if asked.namespace else "at the cluster scope"
        said = (
            f"User {_quoted(identity.user)} cannot {asked.verb} resource {_quoted(asked.combined)} "
            f"in API group {_quoted(asked.group)} {where}"
        )
    said = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    subject = f'{asked.key} "{asked.name}" is forbidden' if asked.name else f"{asked.key} is forbidden"
    subject = subject if asked.key else "forbidden"
    found = details(asked.key, asked.name) if asked.key else {}
    if not asked.name:
        found.pop("name", None)
    return Forbidden(f"{subject}: {said}" + (f": {reason}" if reason else ""), details=found)


def _quoted(text: str) -> str:
    """As Go's %q writes it."""
    return msgspec.json.encode(text).decode()


def _aggregate(faults: list[str]) -> str:
    distinct = list(dict.fromkeys(faults))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"


def _described(binding: Object, identity: Identity) -> str:
    metadata, reference = binding["metadata"], binding["roleRef"]
    namespace = str(metadata.get("namespace") or "")
    name = f"{metadata['name']}/{namespace}" if namespace else metadata["name"]
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    subject = next(_naming(binding, identity, namespace))
    return f'{kind} "{name}" of {reference["kind"]} "{reference["name"]}" to {subject}'


def _naming(binding: Object, identity: Identity, namespace: str) -> Iterator[str]:
    """The subjects by which the binding names the caller, in Kubernetes' words."""
    for subject in binding.get("subjects") or ():
        one = {"metadata": binding["metadata"], "subjects": [subject]}
        for _, kind, name in subjects_of(one):
            if name == identity.user if kind == "User" else name in identity.groups:
                home = (
                    f"/{subject.get('namespace') or namespace}" if subject["kind"] == "ServiceAccount" else ""
                )
                yield f'{subject["kind"]} "{subject["name"]}{home}"'
