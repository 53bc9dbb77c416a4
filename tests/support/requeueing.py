"""Preempt, then queue again: the rule under which preemption loops were reported, to tell them from ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from walras.market.types import Award, Bid, Displacement, Lease, Outcome, Renewal, Share, Snapshot

Usage = Mapping[str, int]
Allows = Callable[[Bid, Lease, Usage], bool]
Room = dict[str, int]  # milli-GPU that is free, by device


class Requeueing:
    """Every agent is a queue; each cycle looks at the head of each, least share first.

    A head that does not fit ends leases that `allows` lets it end, given the milli-GPU that each agent has
    without those ended already; of these the ones that turn out not to be needed are filled back. It then
    goes back to its queue, and the room is anybody's. One that can do neither is put aside until a lease
    ends, as in Kueue's BestEffortFIFO. No price.
    """

    def __init__(self, allows: Allows) -> None:
        self._allows = allows
        self._aside: set[str] = set()
        self._leases: frozenset[str] = frozenset()

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        """Queued until the next cycle."""
        return Outcome((), (), (), (), 0)

    def clear(self, snapshot: Snapshot) -> Outcome:
        live = frozenset(lease.id for lease in snapshot.leases)
        if self._leases - live:
            self._aside.clear()
        self._leases = live
        room = _room(snapshot, snapshot.leases)
        usage = Counter[str]()
        for lease in snapshot.leases:
            if lease.state == "active":
                usage[lease.agent] += lease.total_milli
        awards: list[Award] = []
        gone: dict[str, Displacement] = {}
        for bid in self._heads(snapshot, usage):
            if devices := _fitting(bid, room):
                awards.append(_award(bid, devices, room))
                usage[bid.agent] += awards[-1].total_milli
            elif victims := self._victims(bid, snapshot, usage, gone):
                until = snapshot.now_ms + snapshot.rules.notice_ms
                for lease in victims:
                    gone[lease.id] = Displacement(lease.id, bid.id, until, "priority")
                    usage[lease.agent] -= lease.total_milli
            elif not awards and all(lease.state == "active" for lease in snapshot.leases):
                self._aside.add(bid.id)
        renewals = tuple(
            Renewal(lease.id, 0, lease.end_ms + lease.term_ms)
            for lease in snapshot.leases
            if lease.state == "active" and lease.id not in gone and lease.end_ms <= snapshot.now_ms + 5_000
        )
        return Outcome(tuple(awards), (), renewals, tuple(gone.values()), 0)

    def _heads(self, snapshot: Snapshot, usage: Usage) -> list[Bid]:
        heads: dict[str, Bid] = {}
        for bid in sorted(snapshot.bids, key=lambda bid: (-bid.priority, bid.submitted_ms, bid.id)):
            if bid.id not in self._aside:
                heads.setdefault(bid.agent, bid)
        return sorted(heads.values(), key=lambda bid: (usage.get(bid.agent, 0), bid.submitted_ms, bid.id))

    def _victims(self, bid: Bid, snapshot: Snapshot, usage: Usage, gone: Collection[str]) -> list[Lease]:
        """Leases that go so that the bid fits, lowest priority and newest first; none if that does not do."""
        staying = [lease for lease in snapshot.leases if lease.state != "draining"]

        def fits_without(victims: Sequence[Lease]) -> bool:
            return bool(_fitting(bid, _room(snapshot, [each for each in staying if each not in victims])))

        if fits_without(()):
            return []  # it waits for those that are on their way
        left, victims = Counter(usage), list[Lease]()
        for lease in sorted(
            snapshot.leases, key=lambda each: (each.agent != bid.agent, each.priority, -each.start_ms)
        ):
            if fits_without(victims):
                break
            if lease.state == "active" and lease.id not in gone and self._allows(bid, lease, left):
                victims.append(lease)
                left[lease.agent] -= lease.total_milli
        if not fits_without(victims):
            return []
        for lease in list(victims):
            rest = [each for each in victims if each is not lease]
            if fits_without(rest):
                victims = rest
        return victims


def _room(snapshot: Snapshot, leases: Sequence[Lease]) -> Room:
    room = {device.id: device.milli for device in snapshot.devices}
    for lease in leases:
        for share in lease.shares:
            room[share.device] -= share.milli
    return room


def _fitting(bid: Bid, room: Room) -> list[str]:
    """Devices for the bid, or none when there are too few."""
    package = bid.packages[0]
    fitting = [device for device, milli in room.items() if milli >= package.milli_gpu]
    return fitting[: package.devices] if len(fitting) >= package.devices else []


def _award(bid: Bid, devices: list[str], room: Room) -> Award:
    package = bid.packages[0]
    for device in devices:
        room[device] -= package.milli_gpu
    shares = tuple(Share(device, package.milli_gpu, 0) for device in devices)
    return Award(bid.id, 0, shares, 0, package.price_micros, package.term_ms, True)
