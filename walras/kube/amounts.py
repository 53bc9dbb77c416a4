"""Lists of resources (ResourceList): how much of each a pod asks for, added up and compared exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Final

from walras.core.quantity import exact, written_like

# Amounts by resource, as they are written.
Amounts = dict[str, str]
Object = Mapping[str, Any]

ZERO: Final = "0"


def value(text: Any) -> Fraction:
    """The amount exactly. Raises Invalid."""
    return exact(str(text))


def shown(text: Any) -> str:
    """The amount in canonical form. Raises Invalid."""
    return written_like(value(text), str(text))


def added(left: Mapping[str, Any], right: Mapping[str, Any]) -> Amounts:
    """The sum; each amount in the suffixes of the first that is not zero."""
    total: Amounts = {name: shown(amount) for name, amount in left.items()}
    for name, amount in right.items():
        before = total.get(name, ZERO)
        like = str(amount) if value(before) == 0 else before
        total[name] = written_like(value(before) + value(amount), like)
    return total


def less(left: Mapping[str, Any], right: Mapping[str, Any], *, floor: bool = False) -> Amounts:
    """What is left of the first without the second; never below zero with `floor`."""
    total: Amounts = {name: shown(amount) for name, amount in left.items()}
    for name, amount in right.items():
        before = total.get(name, ZERO)
        rest = value(before) - value(amount)
        like = str(amount) if value(before) == 0 else before
        total[name] = written_like(max(rest, Fraction(0)) if floor else rest, like)
    return total


def largest(left: Mapping[str, Any], right: Mapping[str, Any]) -> Amounts:
    """Of each resource the larger amount."""
    found: Amounts = {name: shown(amount) for name, amount in left.items()}
    for name, amount in right.items():
        if name not in found or value(amount) > value(found[name]):
            found[name] = shown(amount)
    return found


def equal(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether both have the same resources in the same amounts, however they are written."""
    return left.keys() == right.keys() and all(value(left[name]) == value(right[name]) for name in left)


def containers(spec: Object) -> list[dict[str, Any]]:
    """A pod's containers, then its init containers."""
    return [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]


def of_pod(spec: Object, kind: str) -> Amounts:
    """A pod's "requests" or "limits" as the scheduler counts them: what runs at once, or before (KEP-753)."""
    total = _sum(
        (container.get("resources") or {}).get(kind) or {} for container in spec.get("containers") or ()
    )
    beside: Amounts = {}
    first: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = (container.get("resources") or {}).get(kind) or {}
        if container.get("restartPolicy") == "Always":
            total, beside = added(total, own), added(beside, own)
            first = largest(first, beside)
        else:
            first = largest(first, added(own, beside))
    total = largest(total, first)
    # What the pod as a whole says goes over what its containers come to.
    total |= {name: shown(amount) for name, amount in ((spec.get("resources") or {}).get(kind) or {}).items()}
    overhead = spec.get("overhead") or {}
    if kind == "limits":
        overhead = {name: amount for name, amount in overhead.items() if name in total}
    return added(total, overhead) if overhead else total


def _sum(parts: Iterable[Mapping[str, Any]]) -> Amounts:
    total: Amounts = {}
    for part in parts:
        total = added(total, part)
    return total
