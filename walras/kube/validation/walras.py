"""What Walras asks of objects beyond Kubernetes: GPU requests, bids in pods' annotations, money."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from walras.core.clock import parse_rfc3339
from walras.core.errors import Invalid
from walras.core.money import parse_credits, parse_rate
from walras.core.quantity import format_duration, parse_duration_ms, parse_mib
from walras.devices import request
from walras.devices.topology import Affinity
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

CLASSES: Final = ("latency", "standard", "batch")
ANNOTATION_CLASS: Final = "walras.dev/class"
ANNOTATION_MAX_PRICE: Final = "walras.dev/max-price"
ANNOTATION_RESTART_COST: Final = "walras.dev/restart-cost"
ANNOTATION_TERM: Final = "walras.dev/term"
ANNOTATION_DEADLINE: Final = "walras.dev/deadline"
ANNOTATION_DECAY_FROM: Final = "walras.dev/decay-from"
ANNOTATION_TOPOLOGY: Final = "walras.dev/topology"
TOPOLOGIES: Final = tuple(each.value for each in Affinity)
ANNOTATION_SLO: Final = "walras.dev/slo"
ANNOTATION_SLO_BAD: Final = "walras.dev/slo-bad"
ANNOTATION_LATENCY: Final = "walras.dev/latency"
LATENCY_MIN_MS: Final = 1
LATENCY_MAX_MS: Final = 24 * 3_600_000
# A lease's term, and how often a pool clears: beyond these a market stands still or does nothing else.
TERM_MIN_MS: Final = 1_000
TERM_MAX_MS: Final = 7 * 24 * 3_600_000
TICK_MIN_MS: Final = 100
TICK_MAX_MS: Final = 60_000
# The longest that a lease may run untouched, and the longest warning before it ends.
QUANTUM_MAX_MS: Final = 24 * 3_600_000
NOTICE_MAX_MS: Final = 3_600_000
DEFAULT_POOL: Final = "default"
MODEL_MAX: Final = 64
RESERVED_AGENTS: Final = ("fleet", "*")


def pod_annotations(faults: Faults, path: str, given: Object | None) -> None:
    """The terms of a pod's bid, where its annotations name some."""
    given = given or {}
    for name, known in ((ANNOTATION_CLASS, CLASSES), (ANNOTATION_TOPOLOGY, TOPOLOGIES)):
        if (wanted := given.get(name)) is not None and wanted not in known:
            faults.not_supported(f"{path}[{name}]", wanted, known)
    for name in (ANNOTATION_MAX_PRICE, ANNOTATION_RESTART_COST):
        _parsed(faults, f"{path}[{name}]", given.get(name), parse_credits)
    _parsed(faults, f"{path}[{ANNOTATION_TERM}]", given.get(ANNOTATION_TERM), parse_term)
    times = {name: given[name] for name in (ANNOTATION_DEADLINE, ANNOTATION_DECAY_FROM) if name in given}
    for name, text in times.items():
        if _time_ms(text) is None:
            faults.invalid(f"{path}[{name}]", text, 'must be an RFC 3339 time such as "2030-01-31T12:00:00Z"')
    if len(times) == 2:  # the deadline may be that of a PriorityClass: then the bid is looked at
        begins, deadline = times[ANNOTATION_DECAY_FROM], times[ANNOTATION_DEADLINE]
        _decay(faults, f"{path}[{ANNOTATION_DECAY_FROM}]", begins, deadline)
    _objective(faults, path, given)


def _time_ms(text: Any) -> int | None:
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError, TypeError, AttributeError):
        return None


def _decay(faults: Faults, path: str, begins: Any, deadline: Any) -> None:
    """A fault when prices would begin to fall at no time before the deadline, where there are both times."""
    from_ms, to_ms = _time_ms(begins), _time_ms(deadline)
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        faults.invalid(path, begins, "must be before the deadline")


def _objective(faults: Faults, path: str, given: Object) -> None:
    good, bad = given.get(ANNOTATION_SLO), given.get(ANNOTATION_SLO_BAD)
    for name, said in ((ANNOTATION_SLO, good), (ANNOTATION_SLO_BAD, bad)):
        _parsed(faults, f"{path}[{name}]", said, parse_latency)
    if bad is None:
        return
    try:
        good_ms, bad_ms = parse_latency(good or ""), parse_latency(bad)
    except Invalid:
        if good is None:
            faults.invalid(f"{path}[{ANNOTATION_SLO_BAD}]", bad, f"needs {ANNOTATION_SLO} beside it")
        return
    if bad_ms <= good_ms:
        faults.invalid(f"{path}[{ANNOTATION_SLO_BAD}]", bad, f"must be longer than {ANNOTATION_SLO}")


def workload_annotations(faults: Faults, given: Object | None) -> None:
    """What is measured of a workload, where its annotations say so."""
    said = (given or {}).get(ANNOTATION_LATENCY)
    _parsed(faults, f"metadata.annotations[{ANNOTATION_LATENCY}]", said, parse_latency)


def parse_between(low_ms: int, high_ms: int, text: str) -> int:
    """Milliseconds of a duration. Raises Invalid for what is none, or is not between the two."""
    duration_ms = parse_duration_ms(text)
    if not low_ms <= duration_ms <= high_ms:
        raise Invalid(f"must be between {format_duration(low_ms)} and {format_duration(high_ms)}")
    return duration_ms


parse_term = partial(parse_between, TERM_MIN_MS, TERM_MAX_MS)
parse_latency = partial(parse_between, LATENCY_MIN_MS, LATENCY_MAX_MS)


def gpu_request(faults: Faults, path: str, spec: Object) -> None:
    """A fault when no lease could ever satisfy what the pod's containers ask of GPUs."""
    try:
        request.gpu_request(spec)
    except Invalid as error:
        asked: dict[str, Any] = {}
        for container in spec.get("containers") or ():
            resources = container.get("resources") or {}
            both = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
            asked |= {name: amount for name, amount in both.items() if request.is_gpu_resource(name)}
        faults.invalid(f"{path}.containers", asked, error.message)


def agent_name(text: str) -> list[str]:
    if text in RESERVED_AGENTS:
        return [f"'{text}' is reserved for the operator"]
    return names.dns_label(text)


def pool_name(text: str) -> list[str]:
    """A market under any other name would be there to see and sell nothing."""
    return [] if text == DEFAULT_POOL else [f'there is one pool, "{DEFAULT_POOL}": change its spec instead']


def agent(faults: Faults, obj: Object) -> None:
    spec = _dict(obj.get("spec"))
    budget, market = _dict(spec.get("budget")), _dict(spec.get("market"))
    _parsed(faults, "spec.budget.income", budget.get("income"), parse_rate)
    for name in ("balance", "walletCap"):
        _parsed(faults, f"spec.budget.{name}", budget.get(name), parse_credits)
    _parsed(faults, "spec.market.maxPrice", market.get("maxPrice"), parse_credits)


def pool(faults: Faults, obj: Object) -> None:
    spec = _dict(obj.get("spec"))
    for name in ("reservePrice", "reservePriceMax"):
        _parsed(faults, f"spec.{name}", spec.get(name), parse_credits)
    _reserve(faults, spec)
    for model in _dict(spec.get("speeds")):
        if len(model) > MODEL_MAX:
            faults.invalid("spec.speeds", model[:MODEL_MAX], f"may not be longer than {MODEL_MAX} characters")
    for name, low_ms, high_ms in (
        ("tick", TICK_MIN_MS, TICK_MAX_MS),
        ("minimumQuantum", 0, QUANTUM_MAX_MS),
        ("notice", 0, NOTICE_MAX_MS),
    ):
        _parsed(faults, f"spec.{name}", spec.get(name), partial(parse_between, low_ms, high_ms))


def _reserve(faults: Faults, spec: Object) -> None:
    try:
        least = parse_credits(str(spec["reservePrice"]))
        most = parse_credits(str(spec["reservePriceMax"]))
    except (KeyError, Invalid):
        return
    if most < least:
        faults.invalid("spec.reservePriceMax", spec["reservePriceMax"], "must not be less than reservePrice")


def bid(faults: Faults, obj: Object) -> None:
    spec = _dict(obj.get("spec"))
    packages = spec.get("packages")
    for index, package in enumerate(packages if isinstance(packages, list) else ()):
        path, terms = f"spec.packages[{index}]", _dict(package)
        _parsed(faults, f"{path}.maxPrice", terms.get("maxPrice"), parse_credits)
        _parsed(faults, f"{path}.term", terms.get("term"), parse_term)
        _memory(faults, f"{path}.memory", terms.get("memory"))
        _shape(faults, path, terms)
    _parsed(faults, "spec.restartCost", spec.get("restartCost"), parse_credits)
    if "decayFrom" in spec:
        if "deadline" not in spec:
            faults.required("spec.deadline", "is when a price that falls from decayFrom on is nothing")
        _decay(faults, "spec.decayFrom", spec["decayFrom"], spec.get("deadline"))


def _shape(faults: Faults, path: str, package: Object) -> None:
    """Faults of a package that says how many devices it takes, or what of each, in two ways that differ."""
    least, devices = package.get("devicesMin"), package.get("devices", 1)
    if isinstance(least, int) and isinstance(devices, int) and least > devices:
        faults.invalid(f"{path}.devicesMin", least, f"must not be more than devices, which is {devices}")
    if package.get("migProfile"):
        for name in ("milliGPU", "memory"):
            if name in package:
                faults.forbidden(f"{path}.{name}", "goes with the profile where migProfile names one")


def lease(faults: Faults, obj: Object) -> None:
    _parsed(faults, "spec.resalePrice", _dict(obj.get("spec")).get("resalePrice"), parse_credits)


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _parsed(faults: Faults, path: str, text: Any, parse: Callable[[str], Any]) -> None:
    # Where it is no string, the schema has said so.
    if isinstance(text, str):
        try:
            parse(text)
        except Invalid as error:
            faults.invalid(path, text, error.message)


def _memory(faults: Faults, path: str, amount: Any) -> None:
    if isinstance(amount, str | int) and not isinstance(amount, bool):
        try:
            if parse_mib(amount) < 0:
                faults.invalid(path, amount, "must be greater than or equal to 0")
        except Invalid as error:
            faults.invalid(path, amount, error.message)
