"""Limits and claims on one lease: what each side has of its device, which is not the other's. Pure.

A lease of one device serves both. Limits are packed without saying which device serves which pod, so one of
several serves one side at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from walras.devices.models import DOMAIN
from walras.devices.request import GpuRequest
from walras.tenants.claims.capacity import Amounts
from walras.tenants.claims.pools import DeviceId, Pool
from walras.tenants.claims.search import Taken
from walras.tenants.fit import DeviceShare, Node, needed

# What a lease's devices have, as their slices say it.
MILLI: Final = "milliGPU"
MEMORY: Final = "memory"
_MIB: Final = 2**20


class Claimed:
    """What claims hold of leases' devices, by node."""

    def __init__(self, taken: Taken) -> None:
        self._whole: dict[str, set[DeviceId]] = defaultdict(set)
        self._parts: dict[str, dict[DeviceId, Amounts]] = defaultdict(dict)
        self.add(taken.devices, taken.parts)

    def add(self, whole: Iterable[DeviceId], parts: Mapping[DeviceId, Amounts]) -> None:
        """Note what is held, of parts all that is."""
        for device in whole:
            if device.driver == DOMAIN:
                self._whole[device.pool].add(device)
        for device, part in parts.items():
            if device.driver == DOMAIN:
                self._parts[device.pool][device] = part

    def on(self, node: Node) -> DeviceShare:
        """All of it on a node; a device that is held whole counts as the largest there."""
        if not node.devices:
            return DeviceShare(0, 0)
        largest = DeviceShare(
            max(each.milli for each in node.devices), max(each.memory_mib for each in node.devices)
        )
        milli = memory_mib = 0
        for part in self._parts.get(node.name, {}).values():
            milli += _up(part.get(MILLI), largest.milli)
            memory_mib += _up(part.get(MEMORY), largest.memory_mib, _MIB)
        whole = len(self._whole.get(node.name, ()))
        return DeviceShare(milli + whole * largest.milli, memory_mib + whole * largest.memory_mib)


def beside_limits(taken: Taken, node: Node, limits: Sequence[GpuRequest], pools: Iterable[Pool]) -> Taken:
    """What is taken on a node, with what limits have of its lease's only device; of several they have all."""
    if not limits:
        return taken
    has = needed(limits, node.devices[0]) if len(node.devices) == 1 else None
    of_lease = [pool for pool in pools if (pool.driver, pool.name) == (DOMAIN, node.name)]
    found = Taken(set(taken.devices), dict(taken.parts))
    for device in (device for pool in of_lease for device in pool.devices):
        if device.shared and has is not None:
            held = taken.parts.get(device.id, {})
            mine = {MILLI: Fraction(has.milli), MEMORY: Fraction(has.memory_mib * _MIB)}
            found.parts[device.id] = {
                name: held.get(name, Fraction(0)) + mine.get(name, Fraction(0)) for name in {*held, *mine}
            }
        else:
            found.devices.add(device.id)
    return found


def _up(amount: Fraction | None, whole: int, unit: int = 1) -> int:
    return whole if amount is None else -(-amount // unit)
