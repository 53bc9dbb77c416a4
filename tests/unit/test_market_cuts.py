"""Devices that are cut into MIG instances while others still drain from them."""

from __future__ import annotations

from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import GEOMETRIES
from walras.market.auction import Auction
from walras.market.types import Bid, Device, Lease, LeaseState, Package, Rules, Share, Snapshot

CREDIT = 1_000_000
A100 = GEOMETRIES["A100-80GB"]
DEVICE = Device("d0", "n", "m", 0, 81_920, mig=A100)


def instance(profile: str, start: int) -> Share:
    return Share("d0", A100.sold_milli(profile), A100[profile].memory_mib, MigInstance(profile, start))


def bid(name: str, profile: str) -> Bid:
    package = Package(1, A100.sold_milli(profile), 0, 60_000, 2 * CREDIT, mig_profile=profile)
    return Bid(name, f"of-{name}", "batch", (package,), 0, 0, 10**12)


def lease(name: str, share: Share, state: LeaseState) -> Lease:
    return Lease(
        id=name,
        bid=name,
        agent=f"of-{name}",
        job_class="batch",
        shares=(share,),
        price_micros=0,
        max_price_micros=3 * CREDIT,
        restart_cost_micros=0,
        term_ms=600_000,
        start_ms=0,
        end_ms=600_000,
        funds_micros=10**12,
        state=state,
        drains_at_ms=102_000 if state == "draining" else None,
    )


def snapshot(*bids: Bid, leases: tuple[Lease, ...] = ()) -> Snapshot:
    return Snapshot(100_000, Rules(), (DEVICE,), leases, bids, 0, frozenset())


def test_a_device_is_sold_as_seven_instances() -> None:
    outcome = Auction().clear(snapshot(*(bid(f"b{i}", "1g.10gb") for i in range(7))))
    assert len(outcome.awards) == 7


def test_no_instance_starts_while_a_plain_share_drains() -> None:
    leases = (
        lease("plain", Share("d0", 500, 40_960), "draining"),
        lease("cut", instance("3g.40gb", 4), "reserved"),
    )
    outcome = Auction().clear(snapshot(bid("x", "1g.10gb"), leases=leases))
    assert [award.starts_now for award in outcome.awards] == [False]


def test_no_instance_goes_where_a_plain_share_is_reserved() -> None:
    leases = (
        lease("cut", instance("3g.40gb", 4), "draining"),
        lease("plain", Share("d0", 810, 40_960), "reserved"),
    )
    assert not Auction().clear(snapshot(bid("x", "1g.10gb"), leases=leases)).awards


def test_an_instance_that_is_reserved_where_another_drains_does_not_stop_the_market() -> None:
    leases = (
        lease("old", instance("1g.10gb", 2), "draining"),
        lease("new", instance("2g.20gb", 2), "reserved"),
    )
    outcome = Auction().clear(snapshot(bid("x", "1g.10gb"), leases=leases))
    assert [award.starts_now for award in outcome.awards] == [True]
