"""The cheapest leases that must go to make room for a package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from walras.devices.placement import EMPTY, Shape, cheapest_cover
from walras.market.placement import Board
from walras.market.types import Lease


@dataclass(frozen=True, slots=True)
class Eviction:
    """Devices for the package, the leases that go, and what they cost together."""

    devices: tuple[str, ...]
    victims: tuple[Lease, ...]
    cost: int


def evict(
    needs: Mapping[str, Shape], devices: int, board: Board, leases: list[Lease], cost: Callable[[Lease], int]
) -> Eviction | None:
    """The cheapest way to have room for `needs` on that many devices once some of `leases` are gone.

    Cheapest exactly for one device (up to the limits of `cheapest_cover`); for more, device by device, each
    the cheapest given what is gone already. None when all of them gone would not do.
    """
    on_device = _by_device(leases)
    gone: dict[str, Lease] = {}
    chosen: list[str] = []
    total = 0
    while len(chosen) < devices:
        best: tuple[int, Shape, str, tuple[Lease, ...]] | None = None
        for device, need in needs.items():
            if device in chosen:
                continue
            here = on_device.get(device, [])
            room = _room(board, device, here, gone)
            staying = [(lease, shape) for lease, shape in here if lease.id not in gone]
            found = _cover(need, room, staying, cost)
            if found is not None:
                price = sum(cost(lease) for lease in found)
                left = room - need
                candidate = (price, left, device, found)
                if best is None or candidate[:3] < best[:3]:
                    best = candidate
        if best is None:
            return None
        price, _, device, victims = best
        total += price
        chosen.append(device)
        gone.update((lease.id, lease) for lease in victims)
    return Eviction(tuple(chosen), tuple(gone.values()), total)


def _by_device(leases: list[Lease]) -> dict[str, list[tuple[Lease, Shape]]]:
    found: dict[str, list[tuple[Lease, Shape]]] = {}
    for lease in leases:
        for share in lease.shares:
            found.setdefault(share.device, []).append((lease, Shape(share.milli, share.memory_mib)))
    return found


def _room(board: Board, device: str, here: list[tuple[Lease, Shape]], gone: Mapping[str, Lease]) -> Shape:
    room = board.room_later(device)
    for lease, shape in here:
        if lease.id in gone:
            room += shape
    return room


def _cover(
    need: Shape, room: Shape, staying: list[tuple[Lease, Shape]], cost: Callable[[Lease], int]
) -> tuple[Lease, ...] | None:
    missing = Shape(max(0, need.milli - room.milli), max(0, need.memory_mib - room.memory_mib))
    if missing == EMPTY:
        return ()
    cover = cheapest_cover(missing, [(shape, cost(lease)) for lease, shape in staying])
    return None if cover is None else tuple(staying[i][0] for i in cover)
