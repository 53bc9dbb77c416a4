"""Signs the CertificateSigningRequests for client certificates that were approved in their cluster."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import BadRequest
from walras.kube.access import certificates, signing
from walras.kube.access.certificates import LIFETIME_S, SIGNER, Authority, cluster_id
from walras.kube.access.signing import REQUESTS
from walras.kube.access.words import MASTERS
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import Object, condition, deleting, status

_RETRY_MS: Final = 1000


class CertificateController:
    def __init__(self, api: API, clock: Clock, manager: Manager, authority: Authority) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._authority = authority

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(REQUESTS, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and _is_due(change.object):
            self._manager.add(self, Key(change.cluster, "", change.object["metadata"]["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace
        found = self._api.find(cluster, REQUESTS, "", name)
        if found is None or deleting(found) or not _is_due(found):
            return None
        identity = cluster_id(self._api, cluster)
        if not identity:
            # A cluster that is only just being made.
            return _RETRY_MS
        change: Callable[[Object], None]
        try:
            pem = self._signed(found, cluster, identity)
            change = partial(_give, base64.b64encode(pem).decode())
        except BadRequest as error:
            change = partial(_fail, error.message, rfc3339(self._clock.now_ms()))
        await self._api.edit(cluster, REQUESTS, "", name, change)
        return None

    def _signed(self, found: Object, cluster: str, identity: str) -> bytes:
        spec = found["spec"]
        if fault := certificates.usage_fault(spec.get("usages") or ()):
            raise BadRequest(fault)
        request = certificates.request_of(signing.decoded(found))
        if MASTERS in certificates.groups_of(request):
            raise BadRequest(f"the group {MASTERS} is not for certificates")
        lifetime_s = int(spec.get("expirationSeconds") or LIFETIME_S)
        return self._authority.sign(request, cluster, identity, self._clock.now_ms(), lifetime_s)


def _is_due(request: Object) -> bool:
    if request["spec"].get("signerName") != SIGNER or status(request).get("certificate"):
        return False
    return _is(request, "Approved") and not _is(request, "Denied") and not _is(request, "Failed")


def _is(request: Object, kind: str) -> bool:
    found = condition(request, kind)
    return found is not None and found.get("status") == "True"


def _give(certificate: str, request: Object) -> None:
    request.setdefault("status", {})["certificate"] = certificate


def _fail(why: str, now: str, request: Object) -> None:
    failed: dict[str, Any] = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure"}
    failed |= {"message": why, "lastUpdateTime": now, "lastTransitionTime": now}
    request.setdefault("status", {}).setdefault("conditions", []).append(failed)
