"""Binds every claim at once: its volume is a directory that the runtime makes when a pod first mounts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import CLAIMS, Object, deleting, phase, uid

BOUND: Final = "pv.kubernetes.io/bind-completed"


class ClaimController:
    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(CLAIMS, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and phase(change.object) != "Bound":
            metadata = change.object["metadata"]
            self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        claim = self._api.find(cluster, CLAIMS, namespace, name)
        if claim is not None and not deleting(claim) and phase(claim) != "Bound":
            await self._api.edit(cluster, CLAIMS, namespace, name, _bind)
        return None


def _bind(claim: Object) -> None:
    spec = claim["spec"]
    spec.setdefault("volumeName", f"pvc-{uid(claim)}")
    claim["metadata"].setdefault("annotations", {})[BOUND] = "yes"
    status = claim.setdefault("status", {})
    status["phase"] = "Bound"
    status["accessModes"] = list(spec.get("accessModes") or ())
    requests = (spec.get("resources") or {}).get("requests") or {}
    status["capacity"] = {"storage": requests["storage"]} if "storage" in requests else {}
