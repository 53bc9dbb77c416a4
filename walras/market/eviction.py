"""The cheapest leases that must go to make room for a package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from walras.devices.mig import MigInstance, taken
from walras.devices.placement import EMPTY, Shape, cheapest_cover
from walras.devices.topology import Affinity
from walras.market.ground import Ask
from walras.market.placement import Board
from walras.market.taken import mask
from walras.market.types import Lease, Share

Cost = Callable[[Lease], int]
Here = Sequence[tuple[Lease, Share]]  # leases that may go, with what they have of a device


@dataclass(frozen=True, slots=True)
class Eviction:
    """Devices for the package, the leases that go, and what they cost together."""

    devices: tuple[str, ...]
    victims: tuple[Lease, ...]
    cost: int


def evict(
    ask: Ask, board: Board, leases: Sequence[Lease], cost: Cost, rooms: Mapping[str, Shape] | None = None
) -> Eviction | None:
    """The cheapest way to have room for the fewest devices that an ask is content with, once leases are gone.

    Cheapest exactly for one device (up to the limits of `cheapest_cover`); for more, device by device, each
    the cheapest given what is gone already, in each place where they may lie together. None when all of the
    leases gone would not do. `rooms`: what the ask may use of each device with all in place, once drains are
    over, where that is less than what is free.
    """
    on_device: dict[str, list[tuple[Lease, Share]]] = {}
    for lease in leases:
        for share in lease.shares:
            on_device.setdefault(share.device, []).append((lease, share))
    spread = ask.affinity is Affinity.SPREAD
    groups = [list(ask.needs)] if spread else board.ground.groups(ask)
    found = [
        each
        for group in groups
        if len(group) >= ask.fewest and (each := _from(group, ask, board, on_device, cost, rooms or {}))
    ]
    return min(found, key=lambda each: (each.cost, each.devices)) if found else None


def _from(
    group: Sequence[str],
    ask: Ask,
    board: Board,
    on_device: Mapping[str, Here],
    cost: Cost,
    rooms: Mapping[str, Shape],
) -> Eviction | None:
    gone: dict[str, Lease] = {}
    chosen: list[str] = []
    nodes: set[str] = set()
    total = 0
    while len(chosen) < ask.fewest:
        best: tuple[int, Shape, str, tuple[Lease, ...]] | None = None
        for device in group:
            if device in chosen or board.ground.places[device].node in nodes:
                continue
            here = on_device.get(device, ())
            room = rooms[device] if device in rooms else board.room_later(device)
            if not here and not ask.needs[device].fits(room):
                continue
            for lease, share in here:
                if lease.id in gone:
                    room += Shape(share.milli, share.memory_mib)
            staying = [(lease, share) for lease, share in here if lease.id not in gone]
            found = _cover(ask, device, board, room, staying, gone, cost)
            if found is not None:
                candidate = (sum(cost(lease) for lease in found), room - ask.needs[device], device, found)
                if best is None or candidate[:3] < best[:3]:
                    best = candidate
        if best is None:
            return None
        price, _, device, victims = best
        total += price
        chosen.append(device)
        if ask.affinity is Affinity.SPREAD:
            nodes.add(board.ground.places[device].node)
        gone.update((lease.id, lease) for lease in victims)
    return Eviction(tuple(chosen), tuple(gone.values()), total)


def _cover(
    ask: Ask,
    device: str,
    board: Board,
    room: Shape,
    staying: Here,
    gone: Mapping[str, Lease],
    cost: Cost,
) -> tuple[Lease, ...] | None:
    """Of the leases that stay on a device, the cheapest that must go; None if that would not do."""
    need = ask.needs[device]
    left = [share for lease in gone.values() for share in lease.shares if share.device == device]
    cuts = list(board.later.cuts(device))
    for share in left:
        if share.mig is not None:
            cuts.remove(share.mig)
    if ask.profile:
        shared = board.later.shared_milli(device) - sum(each.milli for each in left if each.mig is None)
        return _for_instance(ask.profile, device, board, staying, cuts, shared, cost)
    if cuts:
        # A share has room only once nothing of the device is cut.
        going = tuple(lease for lease, share in staying if share.mig is not None)
        return going if len(going) == len(cuts) and need.fits(board.ground.capacity[device]) else None
    missing = Shape(max(0, need.milli - room.milli), max(0, need.memory_mib - room.memory_mib))
    if missing == EMPTY:
        return ()
    parts = [(Shape(share.milli, share.memory_mib), cost(lease)) for lease, share in staying]
    cover = cheapest_cover(missing, parts)
    return None if cover is None else tuple(staying[i][0] for i in cover)


def _for_instance(
    profile: str,
    device: str,
    board: Board,
    staying: Here,
    cuts: Sequence[MigInstance],
    shared_milli: int,
    cost: Cost,
) -> tuple[Lease, ...] | None:
    """The cheapest leases in the way of an instance, over all places where it may start: all shares, and the
    instances that it would overlap."""
    geometry = board.ground.devices[device].mig
    assert geometry is not None, "only devices that have the profile are asked"
    sharing = tuple(lease for lease, share in staying if share.mig is None)
    if sum(share.milli for _, share in staying if share.mig is None) < shared_milli:
        return None
    holders = {share.mig: lease for lease, share in staying}
    best: tuple[int, tuple[Lease, ...]] | None = None
    for start in reversed(geometry[profile].starts):
        wanted = taken(geometry, geometry[profile], start)
        in_the_way = [cut for cut in cuts if mask(geometry, [cut]) & wanted]
        if all(cut in holders for cut in in_the_way):
            going = (*sharing, *(holders[cut] for cut in in_the_way))
            price = sum(cost(lease) for lease in going)
            if best is None or price < best[0]:
                best = (price, going)
    return best[1] if best else None
