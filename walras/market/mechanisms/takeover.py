"""Room for a package by ending leases, device by device, each as cheaply as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from walras.devices.placement import EMPTY, Shape, cheapest_cover
from walras.market.types import Lease


class Takeover(NamedTuple):
    """Devices for a package, and the leases that have to go for it."""

    devices: tuple[str, ...]
    victims: tuple[Lease, ...]


def take_over(
    needs: Mapping[str, Shape],
    devices: int,
    rooms: Mapping[str, Shape],
    leases: Sequence[Lease],
    cost: Callable[[Lease], int],
) -> Takeover | None:
    """Where `needs` fit on that many devices once some of `leases` are gone; None when all gone would not do.

    `rooms` is what is free on each device with all leases in place.
    """
    rooms = {device: rooms[device] for device in needs}
    here: dict[str, list[tuple[Lease, Shape]]] = {device: [] for device in needs}
    for lease in leases:
        for share in lease.shares:
            if share.device in here:
                here[share.device].append((lease, Shape(share.milli, share.memory_mib)))
    chosen: list[str] = []
    gone: dict[str, Lease] = {}
    while len(chosen) < devices:
        best: tuple[int, Shape, str, list[Lease]] | None = None
        for device in needs.keys() - set(chosen):
            need, room = needs[device], rooms[device]
            staying = [(lease, shape) for lease, shape in here[device] if lease.id not in gone]
            cover = _cover(need, room, staying, cost)
            if cover is not None:
                found = (sum(map(cost, cover)), room - need, device, cover)
                best = found if best is None or found[:3] < best[:3] else best
        if best is None:
            return None
        _, _, device, victims = best
        chosen.append(device)
        for lease in victims:
            gone[lease.id] = lease
            for share in lease.shares:
                if share.device in rooms:
                    rooms[share.device] += Shape(share.milli, share.memory_mib)
    return Takeover(tuple(chosen), tuple(gone.values()))


def _cover(
    need: Shape, room: Shape, staying: Sequence[tuple[Lease, Shape]], cost: Callable[[Lease], int]
) -> list[Lease] | None:
    missing = Shape(max(0, need.milli - room.milli), max(0, need.memory_mib - room.memory_mib))
    if missing == EMPTY:
        return []
    cover = cheapest_cover(missing, [(shape, cost(lease)) for lease, shape in staying])
    return None if cover is None else [staying[i][0] for i in cover]
