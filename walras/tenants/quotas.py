"""Counts what ResourceQuotas bound, whenever something of it goes or their bounds change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.kube import amounts
from walras.kube.admission.quota import QUOTAS
from walras.kube.admission.usage import counted, types_counted
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.objects import PODS, Object, deleting, phase

# What is made was counted as it was admitted; the rest of it can wait for others like it.
SETTLE_MS: Final = 200
# How long a status stands that somebody else has written.
RESTORE_MS: Final = 10_000


class QuotaController:
    """As kubernetes/pkg/controller/resourcequota, without its resynchronisation: changes say enough."""

    def __init__(self, api: API, manager: Manager, dependents: Dependents) -> None:
        self._api = api
        self._manager = manager
        dependents.subscribe(self._content_changed)

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(QUOTAS, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type == "DELETED":
            return
        old, quota = change.old or {}, change.object
        status = quota.get("status") or {}
        if old.get("spec") != quota.get("spec") or not status.get("used"):
            self._add(change.cluster, quota)
        elif not amounts.equal(status.get("hard") or {}, (quota.get("spec") or {}).get("hard") or {}):
            self._add(change.cluster, quota, RESTORE_MS)

    def _add(self, cluster: str, quota: Object, after_ms: int = 0) -> None:
        metadata = quota["metadata"]
        self._manager.add(self, Key(cluster, metadata["namespace"], metadata["name"]), after_ms)

    def _content_changed(self, change: Change) -> None:
        namespace = change.namespace
        if not namespace or not self._api.has_cluster(change.cluster):
            return
        if change.type == "MODIFIED" and not _recounts(change):
            return
        for quota in self._api.list(change.cluster, QUOTAS, namespace):
            if change.resource in types_counted((quota.get("spec") or {}).get("hard") or {}):
                self._add(change.cluster, quota, SETTLE_MS if change.type == "ADDED" else 0)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        found = self._api.find(cluster, QUOTAS, namespace, name) if self._api.has_cluster(cluster) else None
        if found is None or deleting(found):
            return None
        hard = (found.get("spec") or {}).get("hard") or {}
        used = counted(self._api, cluster, found)

        def write(latest: Object) -> None:
            before = latest.get("status") or {}
            same = amounts.equal(before.get("used") or {}, used) and (before.get("hard") or {}) == hard
            if not same:
                latest["status"] = {**before, "hard": dict(hard), "used": used}

        await self._api.edit(cluster, QUOTAS, namespace, name, write)
        return None


def _recounts(change: Change) -> bool:
    """Whether a change of an object can change what it counts for."""
    if change.resource == PODS:
        old, new = change.old or {}, change.object
        ended = phase(new) in ("Succeeded", "Failed")
        deadline = "activeDeadlineSeconds"
        return (ended and phase(old) != phase(new)) or (
            (old.get("spec") or {}).get(deadline) != new["spec"].get(deadline)
        )
    return change.resource in ("persistentvolumeclaims", "services")
