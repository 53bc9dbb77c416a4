"""Lets volumes and claims go once nothing uses them: takes their protection finalizers off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import CLAIMS, PODS, Object, deleting, drop_finalizer, finalizers, finished, phase

VOLUMES: Final = "persistentvolumes"
CLAIM_FINALIZER: Final = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER: Final = "kubernetes.io/pv-protection"


def claims_of(pod: Object) -> set[str]:
    """The claims that a pod mounts, those made for its ephemeral volumes too."""
    found = set()
    for volume in pod["spec"].get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim:
            found.add(claim)
        if volume.get("ephemeral") is not None:
            found.add(f"{pod['metadata']['name']}-{volume['name']}")
    return found


class ProtectionController:
    """Volumes by their namespace "" and claims by theirs."""

    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(CLAIMS, self._changed),
            self._api.subscribe(VOLUMES, self._changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and deleting(change.object):
            metadata = change.object["metadata"]
            self._manager.add(self, Key(change.cluster, metadata.get("namespace", ""), metadata["name"]))

    def _pod_changed(self, change: Change) -> None:
        if change.type == "DELETED" or finished(change.object):
            for name in claims_of(change.object):
                self._manager.add(self, Key(change.cluster, change.object["metadata"]["namespace"], name))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        if not self._api.has_cluster(cluster):
            return None
        resource, finalizer = (CLAIMS, CLAIM_FINALIZER) if namespace else (VOLUMES, VOLUME_FINALIZER)
        found = self._api.find(cluster, resource, namespace, name)
        if found is None or not deleting(found) or finalizer not in finalizers(found):
            return None
        if namespace and any(
            name in claims_of(pod) and not finished(pod) and pod["spec"].get("nodeName")
            for pod in self._api.list(cluster, PODS, namespace)
        ):
            return None
        if not namespace and phase(found) == "Bound":
            return None
        await self._api.edit(
            cluster, resource, namespace, name, lambda latest: drop_finalizer(latest, finalizer)
        )
        return None
