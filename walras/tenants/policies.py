"""Says in ValidatingAdmissionPolicies' status what of them does not fit the types that they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.kube.admission.typechecking import expression_warnings
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import Object, deleting

POLICIES: Final = "validatingadmissionpolicies.admissionregistration.k8s.io"


class PolicyController:
    """As kubernetes/pkg/controller/validatingadmissionpolicystatus."""

    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(POLICIES, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and not _is_seen(change.object):
            self._manager.add(self, Key(change.cluster, "", change.object["metadata"]["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        found = self._api.find(cluster, POLICIES, namespace, name) if self._api.has_cluster(cluster) else None
        if found is None or deleting(found) or _is_seen(found):
            return None
        warnings = expression_warnings(found, self._api.registry(cluster))
        generation = found["metadata"].get("generation", 1)

        def write(latest: Object) -> None:
            checked: Object = {"expressionWarnings": warnings} if warnings else {}
            status = {**(latest.get("status") or {}), "typeChecking": checked}
            latest["status"] = {**status, "observedGeneration": generation}

        await self._api.edit(cluster, POLICIES, namespace, name, write)
        return None


def _is_seen(policy: Object) -> bool:
    seen = (policy.get("status") or {}).get("observedGeneration", 0)
    return bool(policy["metadata"].get("generation", 1) <= seen)
