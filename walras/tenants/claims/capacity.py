"""Consumable capacity (KEP-5075): how much of a device's capacity a request takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from walras.core.quantity import exact
from walras.tenants.claims.pools import Device

Raw = Mapping[str, Any]
Amounts = Mapping[str, Fraction]


def consumed(device: Device, asked: Amounts) -> dict[str, Fraction] | None:
    """What a request takes of each capacity of the device; None where the device cannot be asked for that.

    What is not asked for is taken by the capacity's default, else whole. Amounts are rounded up to what the
    capacity's policy allows.
    """
    capacity: Mapping[str, Raw] = device.raw.get("capacity") or {}
    if not asked.keys() <= capacity.keys():
        return None
    taken = {}
    for name, having in capacity.items():
        policy = having.get("requestPolicy") or {}
        amount = _taken(having, policy, asked.get(name))
        if _violates(amount, policy):
            return None
        taken[name] = amount
    return taken


def fits(device: Device, taken: Amounts, *others: Amounts) -> bool:
    """Whether the device has so much, beside what others take of it."""
    capacity: Mapping[str, Raw] = device.raw.get("capacity") or {}
    none = Fraction(0)
    return all(
        amount + sum((other.get(name, none) for other in others), none) <= exact(str(capacity[name]["value"]))
        for name, amount in taken.items()
    )


def _taken(having: Raw, policy: Raw, asked: Fraction | None) -> Fraction:
    if asked is None:
        return exact(str(policy.get("default") or having["value"]))
    bounds = policy.get("validRange") or {}
    if bounds.get("min") is not None:
        least = exact(str(bounds["min"]))
        if asked < least:
            return least
        step = exact(str(bounds["step"])) if bounds.get("step") is not None else Fraction(0)
        return least + -(-(asked - least) // step) * step if step > 0 else asked
    valid = [exact(str(each)) for each in policy.get("validValues") or ()]
    return min((each for each in valid if each >= asked), default=asked)


def _violates(amount: Fraction, policy: Raw) -> bool:
    if policy.get("default") is not None and amount == exact(str(policy["default"])):
        return False
    bounds = policy.get("validRange")
    if bounds:
        return bounds.get("max") is not None and amount > exact(str(bounds["max"]))
    valid = [exact(str(each)) for each in policy.get("validValues") or ()]
    return bool(valid) and amount not in valid
