"""Puts clusters that nobody has used for a while to the disk; who asks for one of them wakes it.

A cluster sleeps only while nothing goes on in it: no pod that has not ended, no bid that is not decided, no
lease, no node of one, nothing that a controller is to look at, now or later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.clock import Clock
from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms
from walras.kube.api import API, Change
from walras.kube.state import Cluster
from walras.tenants.controller import Key, Manager
from walras.tenants.furniture import BASE_NODE
from walras.tenants.objects import AGENTS, FLEET, NODES, PODS, finished, phase

DEFAULT_AFTER_MS: Final = 3_600_000
SWEEP_MS: Final = 5_000
# Clusters that one commit puts to sleep: what it holds up is bounded.
AT_ONCE: Final = 200
# To wake a cluster holds up everybody, for some 20 ms with so many objects or bytes. Larger ones stay awake.
OBJECTS_MAX: Final = 1_000
BYTES_MAX: Final = 8 << 20
NEVER: Final = "never"
BIDS: Final = "bids.walras.dev"
LEASES: Final = "gpuleases.walras.dev"


def after_ms(agent: Mapping[str, Any]) -> int | None:
    """How long the agent's cluster may be idle; None: as long as it likes. Raises Invalid."""
    declared = ((agent.get("spec") or {}).get("controlPlane") or {}).get("hibernateAfter")
    if declared is None:
        return DEFAULT_AFTER_MS
    return None if declared == NEVER else max(parse_duration_ms(declared), SWEEP_MS)


class Hibernator:
    """One for all clusters: it looks around every SWEEP_MS."""

    def __init__(self, api: API, clock: Clock, manager: Manager) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        # By agent, where it does not go without saying.
        self._declared: dict[str, int | None] = {}
        # Since when a cluster has not been used, as far as was seen.
        self._idle_since_ms: dict[str, int] = {}

    def watch(self) -> list[Callable[[], None]]:
        self._manager.add(self, Key("", "", "hibernation"), SWEEP_MS)
        return [self._api.subscribe(AGENTS, self._agent_changed)]

    def _agent_changed(self, change: Change) -> None:
        self._declared.pop(change.name, None)
        if change.type == "DELETED" or not change.mentions(b'"hibernateAfter"'):
            return
        try:
            self._declared[change.name] = after_ms(change.object)
        except Invalid:
            # It sleeps as others do.
            return

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del cluster, namespace, name
        now_ms = self._clock.now_ms()
        idle = self._idle(now_ms)
        busy = self._manager.busy() if idle else set()
        tired = [each for each in idle if each not in busy and self._is_tired(each, now_ms)]
        for start in range(0, len(tired), AT_ONCE):
            await self._api.hibernate(tired[start : start + AT_ONCE])
        return SWEEP_MS

    def _idle(self, now_ms: int) -> list[str]:
        """The clusters that were not used since the last look, but for those that sleep."""
        before, self._idle_since_ms = self._idle_since_ms, {}
        for name, cluster in self._api.state.clusters.items():
            if cluster.asleep or name == FLEET:
                continue
            if cluster.used:
                cluster.used = False
                continue
            self._idle_since_ms[name] = before.get(name, now_ms - SWEEP_MS)
        return list(self._idle_since_ms)

    def _is_tired(self, name: str, now_ms: int) -> bool:
        after = self._declared.get(name, DEFAULT_AFTER_MS)
        if after is None or now_ms - self._idle_since_ms[name] < after:
            return False
        cluster = self._api.state.clusters[name]
        return cluster.objects <= OBJECTS_MAX and cluster.bytes <= BYTES_MAX and not _is_at_work(cluster)


def _is_at_work(cluster: Cluster) -> bool:
    """Whether something goes on in the cluster that somebody has to follow."""
    return (
        any(not finished(pod) for pod in _objects(cluster, PODS))
        or any(phase(bid) in ("", "Pending", "Refused") for bid in _objects(cluster, BIDS))
        or any(phase(lease) != "Ended" for lease in _objects(cluster, LEASES))
        or any(node["metadata"]["name"] != BASE_NODE for node in _objects(cluster, NODES))
    )


def _objects(cluster: Cluster, resource: str) -> list[dict[str, Any]]:
    # Not by way of the API: to look is not to use.
    collection = cluster.collections.get(resource)
    return [record.object for record in collection.records.values()] if collection else []
