"""Which node a pod fits on, and why not on the others. Pure: nodes and usage in, a choice or a refusal out.

Filters and their words follow kube-scheduler's plugins NodeUnschedulable, TaintToleration, NodeAffinity and
NodeResourcesFit; the score packs a pod where least is left over (its MostAllocated strategy).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.request import (
    MEMORY,
    MIG_PREFIX,
    MILLI,
    WHOLE,
    GpuRequest,
    mig_resource,
    profile_of,
)
from walras.kube.selectors import Requirement
from walras.tenants.demands import ANY, Demand, Port, Raw, amount

LEASE_LABEL: Final = "walras.dev/lease"
BID_LABEL: Final = "walras.dev/bid"
DEVICES_ANNOTATION: Final = "walras.dev/devices"
CLAIMS_KEPT_OUT: Final = "node(s) whose devices pods have by their limits"


_UNSCHEDULABLE_TAINT: Final = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


class DeviceShare(NamedTuple):
    """A lease's part of one device; with a `profile` an instance of it, which goes to one pod whole."""

    milli: int
    memory_mib: int
    profile: str = ""


_NOTHING: Final = DeviceShare(0, 0)


@dataclass(slots=True)
class Node:
    """A node as far as scheduling looks at it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Raw, ...]
    allocatable: Mapping[str, int]
    devices: tuple[DeviceShare, ...]

    @property
    def is_lease(self) -> bool:
        return LEASE_LABEL in self.labels

    @property
    def bid(self) -> str:
        return self.labels.get(BID_LABEL, "")

    @property
    def gpu_milli(self) -> int:
        return sum(device.milli for device in self.devices)


@dataclass(slots=True)
class Usage:
    """What the pods on a node take."""

    pods: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    gpus: list[GpuRequest] = field(default_factory=list)
    ports: Counter[Port] = field(default_factory=Counter)
    # Pods that have devices by ResourceClaims.
    claiming: int = 0
    # What claims hold of the lease's devices together; None where nobody looked.
    claimed: DeviceShare | None = None

    def add(self, demand: Demand) -> None:
        self.pods += 1
        self.requests.update(demand.requests)
        self.ports.update(demand.ports)
        self.claiming += demand.claims
        if demand.gpu is not None:
            self.gpus.append(demand.gpu)

    def remove(self, demand: Demand) -> None:
        self.pods -= 1
        self.requests.subtract(demand.requests)
        self.ports.subtract(demand.ports)
        self.claiming -= demand.claims
        if demand.gpu is not None:
            self.gpus.remove(demand.gpu)

    def copy(self) -> Usage:
        return replace(self, requests=self.requests.copy(), gpus=list(self.gpus), ports=self.ports.copy())

    def clashes(self, ports: Iterable[Port]) -> bool:
        """Whether a pod has one of these ports at the same address, or at all of them."""
        taken = [port for port, count in self.ports.items() if count > 0]
        return any(
            (protocol, number) == (other[1], other[2]) and (address == other[0] or ANY in (address, other[0]))
            for address, protocol, number in ports
            for other in taken
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The node chosen, or None and kube-scheduler's sentence that says why."""

    node: str | None
    message: str = ""


def node_of(node: Raw) -> Node:
    """Raises Invalid for capacity that is no quantity."""
    spec, metadata = node.get("spec") or {}, node["metadata"]
    reported = node.get("status") or {}
    allocatable = reported.get("allocatable") or reported.get("capacity") or {}
    taints = [taint for taint in spec.get("taints") or () if isinstance(taint, Mapping)]
    if spec.get("unschedulable"):
        taints.insert(0, _UNSCHEDULABLE_TAINT)
    return Node(
        name=metadata["name"],
        labels=metadata.get("labels") or {},
        taints=tuple(taints),
        allocatable={name: amount(name, str(value)) for name, value in allocatable.items()},
        devices=_devices(metadata.get("annotations") or {}, allocatable),
    )


class Among(Protocol):
    """What other pods mean for a pod; see `relations.Relation`."""

    def refusal(self, node: Node) -> str: ...

    def score(self, node: Node) -> tuple[int, int]: ...


def choose(
    demand: Demand,
    nodes: Sequence[tuple[Node, Usage]],
    held: frozenset[str] = frozenset(),
    among: Among | None = None,
) -> Choice:
    """The best node for the demand. `held`: names of pending pods whose own nodes wait for them.

    `among`: the pod among others, where they matter.
    """
    if not nodes:
        return Choice(None, "no nodes available to schedule pods")
    best: tuple[tuple[Any, ...], str] | None = None
    reasons: Counter[str] = Counter()
    for node, usage in nodes:
        refused = refusals(demand, node, usage, held)
        if not refused and among is not None and (why := among.refusal(node)):
            refused = [why]
        reasons.update(refused)
        if not refused:
            rank = (*_score(demand, node, usage, among), node.name)
            best = min(best, (rank, node.name)) if best is not None else (rank, node.name)
    if best is not None:
        return Choice(best[1])
    said = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return Choice(None, f"0/{len(nodes)} nodes are available: {said}.")


def refusals(demand: Demand, node: Node, usage: Usage, held: frozenset[str] = frozenset()) -> list[str]:
    """Why the pod cannot go to the node, by the first filter that objects; empty when it can."""
    for taint in node.taints:
        if taint.get("effect") in {"NoSchedule", "NoExecute"} and not tolerated(taint, demand.tolerations):
            if taint is _UNSCHEDULABLE_TAINT:
                return ["node(s) were unschedulable"]
            return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value', '')}}}"]
    if not selected(demand, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if node.is_lease and demand.gpu is None and not demand.claims:
        return ["node(s) of a lease only take pods that ask for a GPU"]
    if node.bid != demand.name and node.bid in held:
        return ["node(s) were won by another pod's bid"]
    if demand.ports and usage.clashes(demand.ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return _shortages(demand, node, usage)


def tolerates(taint: Raw, toleration: Raw) -> bool:
    """As `Toleration.ToleratesTaint` of k8s.io/api/core/v1."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def tolerated(taint: Raw, tolerations: Iterable[Raw]) -> bool:
    return any(tolerates(taint, toleration) for toleration in tolerations)


def selected(demand: Demand, node: Node) -> bool:
    """Whether the node is among those that nodeSelector and the required node affinity leave."""
    if any(node.labels.get(key) != value for key, value in demand.node_selector.items()):
        return False
    required = demand.affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def term_matches(term: Raw, node: Node) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    # A term that says nothing matches nothing.
    if not expressions and not fields:
        return False
    return all(_holds(each, node.labels) for each in expressions) and all(
        _holds(each, {"metadata.name": node.name}) for each in fields
    )


def _holds(expression: Raw, values: Mapping[str, str]) -> bool:
    operator, bounds = str(expression.get("operator")), frozenset(expression.get("values") or ())
    if operator in {"Gt", "Lt"} and len(bounds) != 1:
        return False
    return Requirement(str(expression.get("key")), operator, bounds).matches(values)


def _shortages(demand: Demand, node: Node, usage: Usage) -> list[str]:
    short = []
    if usage.pods + 1 > node.allocatable.get("pods", 0):
        short.append("Too many pods")
    for name, asked in demand.requests.items():
        if asked and usage.requests[name] + asked > node.allocatable.get(name, 0):
            short.append(f"Insufficient {name}")
    if demand.claims and usage.gpus and len(node.devices) > 1:
        # A lease of several devices serves limits or claims, whoever came first: nobody gets a share twice.
        short.append(CLAIMS_KEPT_OUT)
    if demand.gpu is not None and not _serves([*usage.gpus, demand.gpu], node, usage):
        short.append(f"Insufficient {_gpu_shortage(demand.gpu, node, usage)}")
    return short


def _serves(requests: Sequence[GpuRequest], node: Node, usage: Usage) -> bool:
    """Whether limits find room beside what claims hold."""
    claimed = usage.claimed
    if claimed is None:
        return not (node.devices and usage.claiming) and _packs(requests, node.devices)
    if len(node.devices) > 1:
        return not any(claimed[:2]) and _packs(requests, node.devices)
    return _packs(requests, node.devices, claimed)


def limits_fit(node: Node, usage: Usage) -> bool:
    """Whether the limits of the pods on a node have room beside what claims hold there."""
    return not usage.gpus or _serves(usage.gpus, node, usage)


def needed(requests: Iterable[GpuRequest], share: DeviceShare) -> DeviceShare | None:
    """What requests take together of the only device of a node; None where one takes it whole."""
    milli = memory_mib = 0
    for request in requests:
        taken = _taken(request, share)
        if taken is None or taken.profile:
            return None
        milli, memory_mib = milli + taken.milli, memory_mib + taken.memory_mib
    return DeviceShare(milli, memory_mib)


def _gpu_shortage(gpu: GpuRequest, node: Node, usage: Usage) -> str:
    if gpu.mig_profile:
        return mig_resource(gpu.mig_profile)
    without_memory = [replace(each, memory_mib=0) for each in (*usage.gpus, gpu)]
    boundless = [share._replace(memory_mib=0) for share in node.devices]
    claimed = (usage.claimed or _NOTHING)._replace(memory_mib=0)
    if gpu.memory_mib and _packs(without_memory, boundless, claimed):
        return MEMORY
    return WHOLE if gpu.milli_gpu == WHOLE_GPU_MILLI else MILLI


def _packs(
    requests: Sequence[GpuRequest], devices: Sequence[DeviceShare], claimed: DeviceShare = _NOTHING
) -> bool:
    """Whether all requests find room at once: largest first, each on the devices that it fills best.

    `claimed` is gone from the first device.
    May refuse a set that a cleverer packing would place; never accepts one that does not fit.
    """
    free = [[share.milli, share.memory_mib] for share in devices]
    if free:
        free[0] = [free[0][0] - claimed.milli, free[0][1] - claimed.memory_mib]
    for request in sorted(requests, key=lambda each: (-each.milli_gpu, -each.memory_mib)):
        room = []
        for index, (share, left) in enumerate(zip(devices, free, strict=True)):
            taken = _taken(request, share)
            if taken is not None and left[0] >= taken.milli and left[1] >= taken.memory_mib:
                room.append((left[0], left[1], index, taken))
        if len(room) < request.devices:
            return False
        for _, _, index, taken in sorted(room)[: request.devices]:
            free[index][0] -= taken.milli
            free[index][1] -= taken.memory_mib
    return True


def _taken(request: GpuRequest, share: DeviceShare) -> DeviceShare | None:
    """What a request takes of a share that is empty; None where it asks for another kind of share.

    One that names no memory takes the part that goes with its compute.
    """
    if request.mig_profile != share.profile:
        return None
    if share.profile:
        return share
    part = share.memory_mib * request.milli_gpu // share.milli if share.milli else 0
    return DeviceShare(request.milli_gpu, request.memory_mib or part)


def _score(demand: Demand, node: Node, usage: Usage, among: Among | None) -> tuple[float, ...]:
    """Less is better: not its own lease, taints it would rather avoid, preferences, what is left over."""
    avoided = sum(
        taint.get("effect") == "PreferNoSchedule" and not tolerated(taint, demand.tolerations)
        for taint in node.taints
    )
    preferred = sum(
        int(term.get("weight", 0))
        for term in demand.affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if term_matches(term.get("preference") or {}, node)
    )
    left_milli = node.gpu_milli - sum(gpu.total_milli for gpu in usage.gpus)
    left_over = sum(
        1 - (usage.requests[name] + demand.requests.get(name, 0)) / node.allocatable[name]
        for name in ("cpu", "memory")
        if node.allocatable.get(name)
    )
    liking, crowd = among.score(node) if among is not None else (0, 0)
    return (node.bid != demand.name, avoided, liking - preferred, crowd, left_milli, left_over)


def _devices(annotations: Mapping[str, str], allocatable: Mapping[str, Any]) -> tuple[DeviceShare, ...]:
    """A lease's devices as it lists them; without a list one that has all that is allocatable."""
    listed = annotations.get(DEVICES_ANNOTATION)
    if listed is not None:
        try:
            return tuple(
                DeviceShare(
                    int(each["milliGPU"]),
                    int(each.get("memoryMiB", 0)),
                    str(each.get("mig", "")).partition("@")[0],
                )
                for each in msgspec.json.decode(listed)
            )
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError):
            return ()
    for name in allocatable:
        if name.startswith(MIG_PREFIX):
            share = DeviceShare(1, 0, profile_of(name))
            return (share,) * amount(name, str(allocatable[name]))
    # Both units tell of the same devices.
    whole = amount(WHOLE, str(allocatable.get(WHOLE, 0)))
    memory = amount(MEMORY, str(allocatable.get(MEMORY, 0)))
    if whole:
        return (DeviceShare(WHOLE_GPU_MILLI, memory // whole),) * whole
    milli = amount(MILLI, str(allocatable.get(MILLI, 0)))
    return (DeviceShare(milli, memory),) if milli else ()
