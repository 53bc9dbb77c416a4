"""What is taken on each device, now and once all drains are over, and where a package would go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from walras.devices.mig import MigInstance, best_start
from walras.devices.placement import EMPTY, Demand, Shape, place
from walras.devices.topology import Affinity, place_gang
from walras.market.ground import Ask, Ground
from walras.market.taken import Taken, mask
from walras.market.types import Device, Lease, Share


class Board:
    """Two counts a device: what occupies it now, and what will when nothing drains any more.

    A share may start now where it fits both; it may be reserved where it fits the second. That is the rule
    min(cap - active - reserved, cap - active - draining), and keeps every device within its size at any time.
    A device has MIG instances or shares, never both.
    """

    def __init__(self, ground: Ground, leases: Iterable[Lease]) -> None:
        self.ground = ground
        self.now, self.later = Taken(ground), Taken(ground)
        for lease in leases:
            if lease.state != "reserved":
                self.now.add(lease.shares)
            if lease.state != "draining":
                self.later.add(lease.shares)

    def copy(self) -> Board:
        """A board of its own, as this one is now."""
        board = Board.__new__(Board)
        board.ground, board.now, board.later = self.ground, self.now.copy(), self.later.copy()
        return board

    def room_now(self, device: str) -> Shape:
        """Free for a share that starts at once."""
        size, now, later = self.ground.capacity[device], self.now.sums[device], self.later.sums[device]
        return Shape(size.milli - max(now.milli, later.milli), size.memory_mib - max(now[1], later[1]))

    def room_later(self, device: str) -> Shape:
        """Free for a share that waits for the drains."""
        return self.ground.capacity[device] - self.later.sums[device]

    def rooms(self, ask: Ask, *, now: bool) -> dict[str, Shape]:
        """What an ask may use of each device that would do."""
        if ask.profile or self.later.any_cut or self.now.any_cut:
            return {device: self.free(ask, device, now=now) for device in ask.needs}
        room = self.room_now if now else self.room_later
        return {device: room(device) for device in ask.needs}

    def free(self, ask: Ask, device: str, *, now: bool) -> Shape:
        """What an ask may use of a device: no share where it is cut, no instance where it is shared."""
        if ask.profile:
            usable = self.start(ask.profile, device, now=now) is not None
        else:
            usable = not any(each.cuts(device) for each in self._times(now=now))
        if not usable:
            return EMPTY
        return self.room_now(device) if now else self.room_later(device)

    def start(self, profile: str, device: str, *, now: bool) -> int | None:
        """Where an instance of the profile goes best, None where there is no room for one."""
        geometry, times = self.ground.devices[device].mig, self._times(now=now)
        assert geometry is not None, "only devices that have the profile are asked"
        if any(each.shared_milli(device) for each in times):
            return None
        state = 0
        for each in times:
            state |= each.state(device)
        return best_start(geometry, state, profile)

    def _times(self, *, now: bool) -> tuple[Taken, ...]:
        return (self.later, self.now) if now else (self.later,)

    def shares(self, ask: Ask, devices: Iterable[str], *, now: bool) -> tuple[Share, ...]:
        """The ask's shares of these devices, which have room for it."""
        found = []
        for device in devices:
            cut = None
            if ask.profile:
                start = self.start(ask.profile, device, now=now)
                assert start is not None, "the device has room for an instance"
                cut = MigInstance(ask.profile, start)
            found.append(Share(device, *ask.needs[device], cut))
        return tuple(found)

    def take(self, shares: Iterable[Share], *, now: bool) -> None:
        """Occupy shares, at once or once drains are over."""
        shares = tuple(shares)
        self.later.add(shares)
        if now:
            self.now.add(shares)

    def drain(self, lease: Lease) -> None:
        """An active lease will go: it stays for now, and is gone later."""
        self.later.remove(lease.shares)

    def has_room(self, share: Share, taken: Taken) -> bool:
        """Whether this very share is free beside what is taken."""
        device = self.ground.devices[share.device]
        room = self.ground.capacity[share.device] - taken.sums[share.device]
        if not Shape(share.milli, share.memory_mib).fits(room):
            return False
        if share.mig is None:
            return not taken.cuts(share.device)
        assert device.mig is not None, "an instance is of a device that can be cut"
        in_the_way = mask(device.mig, [share.mig]) & taken.state(share.device)
        return not in_the_way and not taken.shared_milli(share.device)


def locate(
    ask: Ask, rooms: Mapping[str, Shape], most: int, demand: Demand, board: Board
) -> tuple[str, ...] | None:
    """As many distinct devices as there are, up to `most` and at least the ask's fewest, or None.

    `rooms` is what the ask may use of each device. Where devices must lie together or apart, those that break
    least (`walras.devices.topology`), else those whose fragmentation grows least.
    """
    fitting = sum(need.fits(rooms[device]) for device, need in ask.needs.items())
    most = min(most, fitting)
    if most < ask.fewest:
        return None
    if ask.affinity is Affinity.ANY:
        return place(ask.needs, rooms, most, demand)
    ground = board.ground
    others = {device: board.room_later(device) for device in ground.capacity}
    for count in range(most, ask.fewest - 1, -1):
        found = place_gang(
            ask.needs, {**others, **rooms}, ground.capacity, ground.places, count, ask.affinity, demand
        )
        if found is not None:
            return found
    return None


def startable(lease: Lease, leases: Iterable[Lease], devices: Iterable[Device]) -> bool:
    """Whether a reserved lease's capacity is really free: nothing that runs or drains is in its way."""
    ground = Ground(devices)
    board = Board(ground, [each for each in leases if each.id != lease.id and each.state != "reserved"])
    return all(share.device in ground.devices and board.has_room(share, board.now) for share in lease.shares)
