"""What is rare: escrows that stand no more, gangs of instances, devices too small for anybody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import geometry_of
from walras.devices.placement import Shape
from walras.devices.topology import Affinity
from walras.market import payments
from walras.market.auction import Auction
from walras.market.eviction import evict
from walras.market.ground import Ask, Ground
from walras.market.placement import Board, startable
from walras.market.prepared import Prepared
from walras.market.types import (
    Bid,
    Constraint,
    Device,
    Escrow,
    Explanation,
    Lease,
    Package,
    Reason,
    Rules,
    Share,
    Snapshot,
)

NOW = 1_000_000
CREDIT = 1_000_000
CRITICAL = Rules(payments="critical")
WHOLE = Package(1, 1000, 0, 60_000, 2 * CREDIT)
D0, D1 = (Device(name, "node", "H100", at, 80_000) for at, name in enumerate(("d0", "d1")))


def bid(name: str, *packages: Package) -> Bid:
    return Bid(name, name, "batch", packages or (WHOLE,), 0, NOW - 1000, 100 * CREDIT)


def lease(name: str, *shares: Share, price: int = CREDIT, left_ms: int = 30_000) -> Lease:
    start, end = NOW - 60_000, NOW + left_ms
    return Lease(name, name, name, "batch", shares, price, price, 0, 60_000, start, end, 100 * CREDIT)


def pool(*bids: Bid, leases: tuple[Lease, ...] = (), devices: tuple[Device, ...] = (D0, D1)) -> Snapshot:
    return Snapshot(NOW, Rules(), devices, leases, bids, 0)


def refused(snapshot: Snapshot, name: str) -> Explanation:
    refusals = {each.bid: each.explanation for each in Auction().clear(snapshot).refusals}
    return refusals[name]


FULL = tuple(lease(device, Share(device, 1000, 80_000), price=9 * CREDIT) for device in ("d0", "d1"))
KEPT = Escrow("a", 0, (Share("d0", 1000, 80_000),), NOW + 20_000)


def test_room_is_kept_no_longer_than_its_bid_its_devices_and_its_time_are_there() -> None:
    standing = replace(pool(bid("a"), leases=FULL), escrows=(KEPT,))
    assert Auction().clear(standing).escrows == (KEPT,)
    for gone in (
        replace(standing, bids=()),
        replace(standing, devices=(D1,)),
        replace(standing, now_ms=NOW + 30_000),
        replace(standing, escrows=(replace(KEPT, package=1),)),
        replace(standing, bids=(bid("a", replace(WHOLE, milli_gpu=500)),)),
    ):
        assert Auction().clear(gone).escrows == ()


def test_room_is_not_kept_for_a_package_that_no_device_takes_any_more() -> None:
    elsewhere = replace(WHOLE, eligible=frozenset({"nowhere"}))
    asked = replace(pool(bid("a", elsewhere, WHOLE), leases=FULL), escrows=(KEPT,))
    assert Auction().clear(asked).escrows == ()


def test_an_arriving_bid_finds_what_is_kept_taken() -> None:
    urgent = replace(bid("u"), job_class="latency")
    asked = pool(bid("a"), urgent, leases=(FULL[1],))
    assert [award.bid for award in Auction().express(asked, "u").awards] == ["u"]
    held = Auction().express(replace(asked, escrows=(KEPT,)), "u")
    assert held.awards == () and held.escrows == (KEPT,)


def test_two_instances_on_as_many_devices_end_the_leases_that_are_on_both() -> None:
    geometry = geometry_of("A100")
    assert geometry is not None
    devices = [Device(name, "node", "A100", 0, 81_920, mig=geometry) for name in ("d0", "d1")]
    cut = MigInstance("7g.80gb", 0)
    both = lease("x", Share("d0", 1000, 80_384, cut), Share("d1", 1000, 80_384, cut))
    ask = Ask({name: Shape(142, 9_728) for name in ("d0", "d1")}, 2, 2, Affinity.ANY, "1g.10gb")
    board = Board(Ground(devices), [both])
    found = evict(ask, board, [both], lambda each: each.total_milli)
    assert found is not None and found.victims == (both,) and set(found.devices) == {"d0", "d1"}
    assert evict(ask, board, [], lambda each: 0) is None


def test_an_instance_does_not_start_on_a_device_that_is_shared_or_gone() -> None:
    device = Device("d0", "node", "A100", 0, 81_920, mig=geometry_of("A100"))
    waiting = replace(lease("r", Share("d0", 142, 9_728, MigInstance("1g.10gb", 0))), state="reserved")
    shared, cut = lease("s", Share("d0", 100, 8_000)), Share("d0", 142, 9_728, MigInstance("1g.10gb", 1))
    same = replace(cut, mig=MigInstance("1g.10gb", 0))
    assert startable(waiting, [waiting], [device])
    assert startable(waiting, [waiting, lease("c", cut)], [device])
    assert not startable(waiting, [waiting, shared], [device])
    assert not startable(waiting, [waiting, lease("c", same)], [device])
    assert not startable(waiting, [waiting], [])


def test_an_agent_in_debt_wins_nothing() -> None:
    poor = replace(bid("a"), funds_micros=-1)
    assert refused(pool(poor), "a").reason is Reason.INSUFFICIENT_FUNDS
    assert Prepared(pool(poor)).options["a"][0].most(0, -1) == 0


def test_what_no_device_is_large_enough_for_says_how_large_they_are() -> None:
    small = tuple(Device(name, "node", "L4", 0, 23_034, milli=500) for name in ("d0", "d1"))
    found = refused(pool(bid("a"), devices=small), "a")
    assert (found.reason, found.constraint) == (Reason.TOO_LARGE, Constraint.MILLI_GPU)
    assert "at most 500 milli-GPU" in found.message
    found = refused(pool(bid("a", replace(WHOLE, milli_gpu=100, memory_mib=90_000))), "a")
    assert found.constraint is Constraint.MEMORY and "at most 80000 MiB" in found.message
    found = refused(pool(bid("a", replace(WHOLE, devices=3))), "a")
    assert found.constraint is Constraint.DEVICES and "at most 2 such devices" in found.message


def test_what_is_taken_until_just_now_is_considered_again_every_tick() -> None:
    waiting = replace(FULL[0], end_ms=NOW, state="reserved")
    found = refused(pool(bid("a"), leases=(waiting,), devices=(D0,)), "a")
    assert found.reason is Reason.NO_CAPACITY and found.message.endswith("every tick")


def test_beyond_the_bound_of_searches_critical_payments_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal, and a winner beside it, while a gang that finds no room makes the one price."""
    due = lease("l0", Share("d0", 500, 40_000), price=5 * CREDIT, left_ms=10)
    full = lease("l1", Share("d1", 1000, 80_000), price=9 * CREDIT)
    gang, half = replace(WHOLE, devices=2), replace(WHOLE, milli_gpu=500, price_micros=3 * CREDIT)
    asked = replace(pool(bid("gang", gang), bid("half", half), leases=(due, full)), rules=CRITICAL)
    cheap = Auction().clear(asked)
    assert [(each.lease, each.price_micros) for each in cheap.renewals] == [("l0", 100_000)]
    assert [(each.bid, each.price_micros) for each in cheap.awards] == [("half", 100_000)]
    monkeypatch.setattr(payments, "EFFORT_MAX", -1)
    dear = Auction().clear(asked)
    assert [(each.lease, each.price_micros) for each in dear.renewals] == [("l0", 2 * CREDIT)]
    assert [(each.bid, each.price_micros) for each in dear.awards] == [("half", 2 * CREDIT)]


def test_the_lease_of_an_award_has_what_was_won_and_what_its_bid_says() -> None:
    asked = replace(bid("a"), restart_cost_micros=7, priority=3)
    (award,) = Auction().clear(pool(asked)).awards
    won = award.lease("l", asked, NOW)
    assert (won.id, won.bid, won.agent, won.state) == ("l", "a", "a", "active")
    assert (won.price_micros, won.max_price_micros) == (100_000, 2 * CREDIT)
    assert (won.start_ms, won.end_ms, won.restart_cost_micros, won.priority) == (NOW, NOW + 60_000, 7, 3)
    assert replace(award, starts_now=False).lease("l", asked, NOW).state == "reserved"
