"""Clears away pods that nothing will ever run: on nodes that are gone, or deleted before they had one."""

from __future__ import annotations

from collections.abc import Callable

from walras.core.clock import Clock, rfc3339
from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import (
    DISRUPTION_TARGET,
    NODES,
    PODS,
    Object,
    deleting,
    finished,
    set_condition,
    uid,
)


class PodCollector:
    """As Kubernetes' pod garbage collector, at once instead of every 20 s."""

    def __init__(self, api: API, clock: Clock, manager: Manager) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(PODS, self._pod_changed),
            self._api.subscribe(NODES, self._node_changed),
        ]

    def _pod_changed(self, change: Change) -> None:
        if change.type != "DELETED" and self._is_lost(change.cluster, change.object):
            metadata = change.object["metadata"]
            self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _node_changed(self, change: Change) -> None:
        if change.type != "DELETED" or not self._api.has_cluster(change.cluster):
            return
        for pod in self._api.list(change.cluster, PODS):
            if pod["spec"].get("nodeName") == change.object["metadata"]["name"]:
                metadata = pod["metadata"]
                self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _is_lost(self, cluster: str, pod: Object) -> bool:
        node = pod["spec"].get("nodeName")
        if not node:
            return deleting(pod)
        # A lease's node goes when its work is done; what is finished stays, with its logs.
        return self._api.find(cluster, NODES, "", node) is None and (deleting(pod) or not finished(pod))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        pod = self._api.find(cluster, PODS, namespace, name)
        if pod is None or not self._is_lost(cluster, pod):
            return None
        transaction = self._api.transaction()
        now = rfc3339(self._clock.now_ms())

        def fail(latest: Object) -> None:
            if uid(latest) != uid(pod) or finished(latest):
                return
            latest.setdefault("status", {})["phase"] = "Failed"
            if latest["spec"].get("nodeName"):
                set_condition(
                    latest, DISRUPTION_TARGET, "True", now,
                    reason="DeletionByPodGC", message="PodGC: node no longer exists",
                )  # fmt: skip

        try:
            transaction.edit(cluster, PODS, namespace, name, fail)
            transaction.delete(cluster, PODS, namespace, name, grace_seconds=0)
        except NotFound:
            return None
        await transaction.commit()
        return None
