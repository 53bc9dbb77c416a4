"""What the scheduler remembers of one cluster: nodes, the room on them, and the pods that wait for some."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from walras.core.clock import parse_rfc3339
from walras.core.errors import WalrasError
from walras.tenants.claims.extended import asks
from walras.tenants.claims.pools import Pools
from walras.tenants.demands import Demand, demand_of
from walras.tenants.fit import Node, Usage
from walras.tenants.objects import Object, uid
from walras.tenants.preemption import Placed
from walras.tenants.relations import relates, repels

PodKey = tuple[str, str]
"""Namespace and name."""


@dataclass(slots=True)
class Waiting:
    """A pod without a node."""

    uid: str
    priority: int
    created_ms: int
    demand: Demand | None
    # Why no node can ever take it, when its request is nonsense.
    fault: str
    claims: tuple[str, ...]
    # Pods of equal kind get equal answers, where other pods do not matter.
    kind: bytes
    preempts: bool = True
    # Whether it asks for devices by ResourceClaims.
    wants_devices: bool = False
    # Whether it asks for resources that DeviceClasses may stand for.
    extended: bool = False
    # The node where room is being made for it.
    nominated: str = ""


@dataclass(slots=True)
class ClusterView:
    nodes: dict[str, Node] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    placed: dict[PodKey, tuple[str, Demand, str]] = field(default_factory=dict)
    waiting: dict[PodKey, Waiting] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    # Bound by us, not yet committed: the uid.
    assumed: dict[PodKey, str] = field(default_factory=dict)
    to_try: list[tuple[int, int, PodKey]] = field(default_factory=list)
    queued: set[PodKey] = field(default_factory=set)
    refused: dict[bytes, str] = field(default_factory=dict)
    # Pods that are on nodes: how many keep others away, and how many of each priority could give way.
    repelling: int = 0
    priorities: Counter[int] = field(default_factory=Counter)
    # Waiting pods to whom others matter, and nodes where room is being made for waiting pods.
    relating: set[PodKey] = field(default_factory=set)
    nominated: dict[PodKey, str] = field(default_factory=dict)
    # The devices of the nodes; None where that has to be looked up.
    pools: Pools | None = None
    # Between a commit that failed and its next try.
    paused: bool = False

    def place(self, key: PodKey, node: str, demand: Demand, pod_uid: str) -> None:
        self.displace(key)
        self.placed[key] = (node, demand, pod_uid)
        self.usage.setdefault(node, Usage()).add(demand)
        self.repelling += repels(demand)
        if not demand.leaving:
            self.priorities[demand.priority] += 1
        for other in self.relating:
            self.queue(other)

    def displace(self, key: PodKey) -> bool:
        """Frees what the pod took; whether it took anything."""
        found = self.placed.pop(key, None)
        if found is None:
            return False
        node, demand, _ = found
        self.usage[node].remove(demand)
        self.repelling -= repels(demand)
        if not demand.leaving:
            self.priorities[demand.priority] -= 1
            self.priorities += Counter()
        if not self.usage[node].pods and node not in self.nodes:
            del self.usage[node]
        return True

    def queue(self, key: PodKey) -> None:
        waiting = self.waiting.get(key)
        if waiting is not None and key not in self.queued:
            self.queued.add(key)
            heapq.heappush(self.to_try, (-waiting.priority, waiting.created_ms, key))

    def wake(self) -> None:
        """Something got better: every refusal may be out of date."""
        self.refused.clear()
        for key in self.waiting:
            self.queue(key)

    def wake_claiming(self) -> None:
        """Something changed about devices or claims."""
        for key, waiting in self.waiting.items():
            if waiting.wants_devices or waiting.extended:
                self.queue(key)

    def next(self) -> PodKey | None:
        while self.to_try:
            _, _, key = heapq.heappop(self.to_try)
            self.queued.discard(key)
            if key in self.waiting:
                return key
        return None

    def wait(self, key: PodKey, pod: Waiting) -> None:
        """Remembers a pod without a node; queues it if it is new or asks for something else."""
        before = self.waiting.get(key)
        self.waiting[key] = pod
        if pod.demand is not None and relates(pod.demand):
            self.relating.add(key)
        if pod.nominated:
            self.nominated.setdefault(key, pod.nominated)
        if before is None:
            self.names[key[1]] += 1
        if before is None or (before.uid, before.kind) != (pod.uid, pod.kind):
            self.queue(key)

    def leave(self, key: PodKey) -> None:
        """The pod waits no more; what was held for it is there for others."""
        if self.waiting.pop(key, None) is None:
            return
        self.relating.discard(key)
        self.nominated.pop(key, None)
        self.names[key[1]] -= 1
        if not self.names[key[1]]:
            del self.names[key[1]]
            if key[1] in self.bids:
                self.wake()

    def peers(self) -> Iterator[tuple[PodKey, Demand, Node]]:
        """The pods on nodes that are known, with their nodes."""
        for key, (name, demand, _) in self.placed.items():
            node = self.nodes.get(name)
            if node is not None:
                yield key, demand, node

    def on(self) -> dict[str, list[Placed]]:
        """The pods on each node."""
        found: dict[str, list[Placed]] = {}
        for key, (name, demand, _) in self.placed.items():
            found.setdefault(name, []).append(Placed(key, demand))
        return found

    def room(self, key: PodKey, priority: int) -> list[tuple[Node, Usage]]:
        """The nodes and what is taken there, also by others for whom room is being made, of such priority."""
        promised: dict[str, Usage] = {}
        for other, name in self.nominated.items():
            waiting = self.waiting.get(other)
            if other == key or waiting is None or waiting.demand is None or waiting.priority < priority:
                continue
            if name in self.nodes:
                promised.setdefault(name, self.usage[name].copy()).add(waiting.demand)
        return [(node, promised.get(name) or self.usage[name]) for name, node in self.nodes.items()]

    @property
    def bids(self) -> frozenset[str]:
        """The bids that won the nodes; a bid has the name of its pod."""
        return frozenset(node.bid for node in self.nodes.values() if node.bid)

    @property
    def held(self) -> frozenset[str]:
        """Names of waiting pods that a node was won for."""
        return frozenset(bid for bid in self.bids if bid in self.names)

    @property
    def empty(self) -> bool:
        return not self.nodes and not self.placed and not self.waiting


def waiting_pod(pod: Object, priority: int) -> Waiting:
    """What scheduling needs of a pod without a node; a request that is nonsense is its fault."""
    spec: Mapping[str, Any] = pod["spec"]
    demand, fault = None, ""
    try:
        demand = demand_of(pod, priority)
    except WalrasError as error:
        fault = error.message
    claims = (volume.get("persistentVolumeClaim") or {} for volume in spec.get("volumes") or ())
    return Waiting(
        uid=uid(pod),
        priority=priority,
        created_ms=parse_rfc3339(pod["metadata"]["creationTimestamp"]),
        demand=demand,
        fault=fault,
        claims=tuple(claim["claimName"] for claim in claims if "claimName" in claim),
        kind=_kind(pod),
        preempts=spec.get("preemptionPolicy") != "Never",
        wants_devices=bool(spec.get("resourceClaims")),
        extended=asks(spec),
        nominated=str((pod.get("status") or {}).get("nominatedNodeName") or ""),
    )


def _kind(pod: Object) -> bytes:
    """Equal for pods that scheduling cannot tell apart."""
    spec = pod["spec"]
    claims = spec.get("resourceClaims")
    return msgspec.json.encode(
        [
            [container.get("resources") for container in spec.get("containers") or ()],
            [[each.get("resources"), each.get("restartPolicy")] for each in spec.get("initContainers") or ()],
            [container.get("ports") for container in spec.get("containers") or ()],
            *(spec.get(name) for name in ("overhead", "nodeSelector", "affinity", "tolerations", "priority")),
            spec.get("topologySpreadConstraints"),
            *([claims, (pod.get("status") or {}).get("resourceClaimStatuses")] if claims else ()),
        ],
        order="sorted",
    )
