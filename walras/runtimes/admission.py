"""Whether a pod that was bound to a node fits it, as kubelet asks before it runs anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.core.quantity import parse_milli, parse_quantity
from walras.runtimes.base import Limits, Traits
from walras.runtimes.records import is_sidecar
from walras.runtimes.security import refused, security_of
from walras.runtimes.status import Verdict
from walras.tenants.claims.beside import Claimed
from walras.tenants.claims.result import taken_by as held_by
from walras.tenants.demands import demand_of, taken_by
from walras.tenants.fit import CLAIMS_KEPT_OUT, Usage, limits_fit, node_of, refusals

Object = Mapping[str, Any]
_OF_THE_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_SHORT: Final = "Insufficient "
# In which the kubelet has CPU measured out.
_PERIOD_US: Final = 100_000
INFEASIBLE: Final = "Infeasible"
DEFERRED: Final = "Deferred"


def refusal(
    pod: Object, node: Object, others: Iterable[Object], claims: Callable[[], Iterable[Object]] = tuple
) -> Verdict | None:
    """Why the pod must not run on the node beside `others`; None when it may.

    `claims` are those of its cluster: what is held of a lease's device is nobody's by limits.
    """
    try:
        demand, place = demand_of(pod), node_of(node)
    except WalrasError as error:
        return Verdict("Failed", "UnexpectedAdmissionError", f"Pod was rejected: {error.message}")
    usage = Usage()
    for other in others:
        usage.add(taken_by(other))
    if place.devices and (demand.gpu is not None or demand.claims):
        usage.claimed = Claimed(held_by(claims())).on(place)
        if demand.claims and not limits_fit(place, usage):
            return Verdict("Failed", "UnexpectedAdmissionError", f"Pod was rejected: {CLAIMS_KEPT_OUT}")
    # Taints were the scheduler's business; a pod may be bound past them.
    bare = replace(place, taints=(), labels=_without_lease(place.labels))
    for said in refusals(demand, bare, usage):
        if said == "Too many pods":
            return Verdict("Failed", "OutOfpods", "Pod was rejected: Node didn't have enough resource: pods")
        if said.startswith(_SHORT):
            resource = said.removeprefix(_SHORT)
            message = f"Pod was rejected: Node didn't have enough resource: {resource}"
            return Verdict("Failed", f"OutOf{resource}", message)
        if said == CLAIMS_KEPT_OUT:
            return Verdict("Failed", "UnexpectedAdmissionError", f"Pod was rejected: {said}")
        if "affinity/selector" in said:
            return Verdict("Failed", "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed")
    return None


def no_room(pod: Object, node: Object, others: Iterable[Object]) -> tuple[str, str] | None:
    """Why a pod on the node cannot have the CPU and memory that it asks for; None when it can.

    A reason of PodResizePending, and words.
    """
    try:
        asked, room = demand_of(pod).requests, node_of(node).allocatable
    except WalrasError as error:
        return INFEASIBLE, error.message
    used = Usage()
    for other in others:
        used.add(taken_by(other))
    needs = [(name, asked[name], room.get(name, 0)) for name in ("cpu", "memory") if asked.get(name)]
    over = [f"{name}, requested: {least}, allocatable: {most}" for name, least, most in needs if least > most]
    if over:
        return INFEASIBLE, f"node didn't have enough allocatable resources: {'; '.join(over)}"
    for name, least, most in needs:
        if (taken := used.requests[name]) + least > most:
            said = f"{name}, requested: {least}, used: {taken}, capacity: {most}"
            return DEFERRED, f"Node didn't have enough resource: {said}"
    return None


def host_asked(pod: Object) -> str:
    """Why the pod cannot run, which asks for namespaces of the machine; "" when it does not."""
    asked = [name for name in _OF_THE_HOST if pod["spec"].get(name)]
    return f"{' and '.join(asked)} not given: agents share the machine" if asked else ""


def not_given(pod: Object, traits: Traits) -> str:
    """What the pod asks of the machine and runs without, in words; "" for nothing."""
    spec = pod["spec"]
    asked: list[str] = []
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        security = container.get("securityContext") or {}
        asked += ["privileged"] if security.get("privileged") else []
        added = security_of(pod, container)
        if refused(added) if traits.images is not None else added.added:
            asked.append("added capabilities")
        asked += ["hostPort"] if any(port.get("hostPort") for port in container.get("ports") or ()) else []
    if not asked:
        return ""
    return (
        f"runs without {', '.join(dict.fromkeys(asked))}: the {traits.scheme} runtime keeps every pod in a "
        "sandbox with a network and processes of its own"
    )


def _without_lease(labels: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in labels.items() if key not in {"walras.dev/lease", "walras.dev/bid"}}


def node_limits(node: Object) -> Limits:
    """What the node's capacity says its pods may use together; no limit for what it does not say."""
    status = node.get("status") or {}
    capacity = status.get("capacity") or status.get("allocatable") or {}
    return _limits(capacity)


def container_limits(container: Object) -> Limits:
    """As the kubelet has them: it weighs what it requests, and next to nothing where that is nothing."""
    resources = container.get("resources") or {}
    limits = _limits(resources.get("limits") or {})
    requests = _limits(resources.get("requests") or {})
    weight_milli = requests.cpu_milli or limits.cpu_milli or 0
    return replace(limits, weight_milli=weight_milli, period_us=_PERIOD_US)


def pod_limits(pod: Object) -> Limits:
    """The sum of its containers' limits, where every one of them has one."""
    each = [container_limits(container) for container in pod["spec"]["containers"]]
    inits = pod["spec"].get("initContainers") or ()
    beside = [container_limits(each) for each in inits if is_sidecar(each)]
    weight_milli = sum(limits.weighs_milli or 0 for limits in (*each, *beside))
    if inits:
        return Limits(weight_milli=weight_milli, period_us=_PERIOD_US)
    cpu = [limits.cpu_milli for limits in each]
    memory = [limits.memory_bytes for limits in each]
    return Limits(
        cpu_milli=None if None in cpu else sum(filter(None, cpu)),
        memory_bytes=None if None in memory else sum(filter(None, memory)),
        weight_milli=weight_milli,
        period_us=_PERIOD_US,
    )


def _limits(amounts: Mapping[str, Any]) -> Limits:
    def amount(name: str, parse: Any) -> int | None:
        try:
            return int(parse(str(amounts[name]))) or None if name in amounts else None
        except WalrasError:
            return None

    return Limits(cpu_milli=amount("cpu", parse_milli), memory_bytes=amount("memory", parse_quantity))
