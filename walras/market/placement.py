"""What is taken on each device, now and once all drains are over, and where a package would go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from walras.devices.mig import MigInstance, best_start, state_of
from walras.devices.mig_profiles import MigGeometry
from walras.devices.placement import EMPTY, Demand, Shape, place
from walras.devices.topology import Affinity, place_gang
from walras.market.ground import Ask, Ground
from walras.market.types import Device, Lease, Share

Cuts = dict[str, tuple[MigInstance, ...]]


class Board:
    """Two sums a device: what occupies it now, and what will when nothing drains any more.

    A share may start now where it fits both; it may be reserved where it fits the second. That is the rule
    min(cap - active - reserved, cap - active - draining), and keeps every device within its size at any time.
    A device has MIG instances or shares, never both.
    """

    def __init__(self, ground: Ground, leases: Iterable[Lease]) -> None:
        self.ground = ground
        self.now = dict.fromkeys(ground.capacity, EMPTY)
        self.later = dict.fromkeys(ground.capacity, EMPTY)
        self._cuts_now: Cuts = {}
        self._cuts_later: Cuts = {}
        for lease in leases:
            if lease.state != "reserved":
                self._add(self.now, self._cuts_now, lease.shares)
            if lease.state != "draining":
                self._add(self.later, self._cuts_later, lease.shares)

    def copy(self) -> Board:
        """A board of its own, as this one is now."""
        board = Board(self.ground, ())
        board.now, board.later = dict(self.now), dict(self.later)
        board._cuts_now, board._cuts_later = dict(self._cuts_now), dict(self._cuts_later)
        return board

    def room_now(self, device: str) -> Shape:
        """Free for a share that starts at once."""
        size, now, later = self.ground.capacity[device], self.now[device], self.later[device]
        return Shape(size.milli - max(now.milli, later.milli), size.memory_mib - max(now[1], later[1]))

    def room_later(self, device: str) -> Shape:
        """Free for a share that waits for the drains."""
        return self.ground.capacity[device] - self.later[device]

    def free(self, ask: Ask, device: str, *, now: bool) -> Shape:
        """What an ask may use of a device: no share where it is cut, no instance where it is shared."""
        room = self.room_now(device) if now else self.room_later(device)
        if not ask.profile:
            return EMPTY if self.cuts(device, now=now) else room
        return room if self.start(ask.profile, device, now=now) is not None else EMPTY

    def cuts(self, device: str, *, now: bool) -> tuple[MigInstance, ...]:
        """The MIG instances on a device, with `now` also those that drain."""
        later = self._cuts_later.get(device, ())
        return tuple({*later, *self._cuts_now.get(device, ())}) if now else later

    def start(self, profile: str, device: str, *, now: bool) -> int | None:
        """Where an instance of the profile goes best, None where there is no room for one."""
        geometry, cuts = self.ground.devices[device].mig, self.cuts(device, now=now)
        assert geometry is not None, "only devices that have the profile are asked"
        shared = self.later[device].milli > 0 and not self._cuts_later.get(device)
        if now:
            shared |= self.now[device].milli > 0 and not self._cuts_now.get(device)
        if shared:
            return None
        return best_start(geometry, state_of(geometry, cuts), profile)

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
        self._add(self.later, self._cuts_later, shares)
        if now:
            self._add(self.now, self._cuts_now, shares)

    def drain(self, lease: Lease) -> None:
        """An active lease will go: it stays for now, and is gone later."""
        for share in lease.shares:
            if share.device in self.later:
                self.later[share.device] -= Shape(share.milli, share.memory_mib)
                if share.mig is not None:
                    cuts = self._cuts_later[share.device]
                    self._cuts_later[share.device] = tuple(cut for cut in cuts if cut != share.mig)

    def _add(self, sums: dict[str, Shape], cuts: Cuts, shares: Iterable[Share]) -> None:
        for share in shares:
            if share.device in sums:
                sums[share.device] += Shape(share.milli, share.memory_mib)
                if share.mig is not None:
                    cuts[share.device] = (*cuts.get(share.device, ()), share.mig)


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
    for share in lease.shares:
        if share.device not in ground.devices:
            return False
        cuts = board.cuts(share.device, now=True)
        if share.mig is None:
            free = not cuts
        else:
            geometry = ground.devices[share.device].mig
            others = board.now[share.device].milli == 0 or bool(cuts)
            free = geometry is not None and others and _is_free(geometry, share.mig, cuts)
        room = ground.capacity[share.device] - board.now[share.device]
        if not free or not Shape(share.milli, share.memory_mib).fits(room):
            return False
    return True


def _is_free(geometry: MigGeometry, cut: MigInstance, cuts: tuple[MigInstance, ...]) -> bool:
    return not state_of(geometry, (cut,)) & state_of(geometry, cuts)
