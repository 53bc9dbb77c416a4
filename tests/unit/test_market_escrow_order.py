"""For whom room is kept, and in whose way: leases that give way, whatever state they are in."""

from __future__ import annotations

from dataclasses import replace

from walras.market.auction import Auction
from walras.market.types import Bid, Device, Escrow, Lease, Package, Rules, Share, Snapshot

CREDIT = 1_000_000
DEVICES = tuple(Device(f"d{i}", "n", "m", i, 80_000) for i in range(2))
WHOLE = tuple(Share(device.id, 1000, 80_000) for device in DEVICES)


def gang(name: str, price: int) -> Bid:
    package = Package(2, 1000, 0, 60_000, price * CREDIT)
    return Bid(name, f"of-{name}", "batch", (package,), 0, 0, 10**12)


def lease(name: str, share: Share) -> Lease:
    return Lease(name, name, f"of-{name}", "batch", (share,), 0, CREDIT, 0, 60_000, 0, 160_000, 10**12)


def snapshot(*bids: Bid, leases: tuple[Lease, ...], escrows: tuple[Escrow, ...] = ()) -> Snapshot:
    return Snapshot(100_000, Rules(), DEVICES, leases, bids, 0, escrows=escrows)


def test_room_kept_for_a_bid_goes_to_the_one_that_outbids_it() -> None:
    leases = (lease("l0", WHOLE[0]), lease("l1", WHOLE[1]))
    escrow = Escrow("weak", 0, WHOLE, 160_000)
    bids = (gang("weak", 2), gang("strong", 3))
    outcome = Auction().clear(snapshot(*bids, leases=leases, escrows=(escrow,)))
    assert [each.bid for each in outcome.escrows] == ["strong"]


def test_room_is_kept_where_a_lease_that_gives_way_is_about_to_begin() -> None:
    """In a busy pool some lease is always about to begin, so a gang of all devices could wait for ever."""
    draining = replace(lease("old", WHOLE[1]), state="draining", end_ms=102_000, drains_at_ms=102_000)
    reserved = replace(lease("new", WHOLE[1]), state="reserved", start_ms=100_000)
    outcome = Auction().clear(snapshot(gang("gang", 3), leases=(lease("l0", WHOLE[0]), draining, reserved)))
    assert [each.bid for each in outcome.escrows] == ["gang"]


def urgent(price: int) -> Bid:
    package = Package(1, 1000, 0, 60_000, price * CREDIT)
    return Bid("now", "of-now", "latency", (package,), 0, 100_000, 10**12)


def test_an_urgent_bid_has_what_is_kept_for_a_less_dense_one_on_its_arrival() -> None:
    """Both leases are worth less; the room of both is kept for a gang."""
    leases = (lease("l0", WHOLE[0]), lease("l1", WHOLE[1]))
    escrow = Escrow("gang", 0, WHOLE, 160_000)
    outcome = Auction().express(snapshot(gang("gang", 2), urgent(3), leases=leases, escrows=(escrow,)), "now")
    assert [award.bid for award in outcome.awards] == ["now"]
    assert len(outcome.displacements) == 1
    assert outcome.escrows == ()


def test_an_urgent_bid_leaves_what_is_kept_for_a_denser_one() -> None:
    leases = (lease("l0", WHOLE[0]), lease("l1", WHOLE[1]))
    escrow = Escrow("gang", 0, WHOLE, 160_000)
    outcome = Auction().express(snapshot(gang("gang", 4), urgent(3), leases=leases, escrows=(escrow,)), "now")
    assert outcome.awards == () and outcome.escrows == (escrow,)


def test_an_urgent_bid_that_wins_elsewhere_leaves_kept_rooms_alone() -> None:
    """A third device is free."""
    free = Device("d2", "n", "m", 2, 80_000)
    leases = (lease("l0", WHOLE[0]), lease("l1", WHOLE[1]))
    escrow = Escrow("gang", 0, WHOLE, 160_000)
    at = snapshot(gang("gang", 2), urgent(3), leases=leases, escrows=(escrow,))
    outcome = Auction().express(replace(at, devices=(*DEVICES, free)), "now")
    assert [award.shares[0].device for award in outcome.awards] == ["d2"]
    assert outcome.escrows == (escrow,)


def test_of_several_kept_rooms_the_least_dense_gives_way_first() -> None:
    leases = (lease("l0", WHOLE[0]), lease("l1", WHOLE[1]))
    cheap = replace(gang("cheap", 2), packages=(Package(1, 1000, 0, 60_000, 2 * CREDIT),))
    dear = replace(gang("dear", 3), packages=(Package(1, 1000, 0, 60_000, 3 * CREDIT),))
    escrows = (Escrow("dear", 0, WHOLE[:1], 160_000), Escrow("cheap", 0, WHOLE[1:], 160_000))
    outcome = Auction().express(snapshot(cheap, dear, urgent(9), leases=leases, escrows=escrows), "now")
    assert [award.shares[0].device for award in outcome.awards] == ["d1"]
    assert [each.bid for each in outcome.escrows] == ["dear"]
