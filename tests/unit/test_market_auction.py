"""What the transcripts do not show: packages to choose from, errors, floods."""

from __future__ import annotations

import pytest

from walras.core.errors import NotFound
from walras.market.auction import Auction
from walras.market.mechanisms.fifo import Fifo
from walras.market.types import Bid, Device, Lease, Package, Reason, Rules, Share, Snapshot

CREDIT = 1_000_000


def bid(name: str, *packages: Package, job_class: str = "batch", funds: int = 100 * CREDIT) -> Bid:
    assert job_class in ("latency", "standard", "batch")
    return Bid(name, f"agent-{name}", job_class, packages, 0, 0, funds)  # type: ignore[arg-type]


def package(price: int, milli: int = 1000, *, eligible: frozenset[str] | None = None) -> Package:
    return Package(1, milli, 0, 60_000, price, eligible)


def snapshot(*bids: Bid, devices: int = 2, leases: tuple[Lease, ...] = (), posted: int = 0) -> Snapshot:
    pool = tuple(Device(f"d{i}", "n", "m", i, 80_000) for i in range(devices))
    return Snapshot(100_000, Rules(), pool, leases, bids, posted)


def test_of_several_packages_the_one_with_the_largest_surplus_is_taken() -> None:
    choice = bid("x", package(2 * CREDIT, 500), package(3 * CREDIT, 1000))
    award = Auction().clear(snapshot(choice)).awards[0]
    assert (award.package, award.total_milli) == (1, 1000)


def test_the_next_package_is_taken_where_the_first_has_no_room() -> None:
    first, second = package(3 * CREDIT, eligible=frozenset({"d0"})), package(2 * CREDIT, 500)
    strong = bid("strong", package(4 * CREDIT, eligible=frozenset({"d0"})))
    outcome = Auction().clear(snapshot(strong, bid("x", first, second)))
    assert {award.bid: (award.package, award.shares[0].device) for award in outcome.awards} == {
        "strong": (0, "d0"),
        "x": (1, "d1"),
    }


def test_a_second_package_does_not_ride_on_the_density_of_the_first() -> None:
    """It competes at its own price: 1.00 against 2.00."""
    first, second = package(9 * CREDIT, 100, eligible=frozenset({"d9"})), package(CREDIT)
    outcome = Auction().clear(snapshot(bid("x", first, second), bid("y", package(2 * CREDIT)), devices=1))
    assert [award.bid for award in outcome.awards] == ["y"]


def test_an_agent_wins_no_more_than_it_can_pay() -> None:
    """Each costs 1/60 credit at most; the funds cover two of three."""
    funds = 2 * CREDIT // 60 + 1
    bids = [Bid(f"b{i}", "one", "batch", (package(CREDIT),), 0, i, funds) for i in range(3)]
    outcome = Auction().clear(snapshot(*bids, devices=3))
    assert [award.bid for award in outcome.awards] == ["b0", "b1"]
    assert outcome.refusals[0].explanation.reason is Reason.INSUFFICIENT_FUNDS


def test_express_does_not_sell_below_the_posted_price() -> None:
    outcome = Auction().express(snapshot(bid("x", package(CREDIT)), posted=2 * CREDIT), "x")
    why = outcome.refusals[0].explanation
    assert (why.reason, why.winning_price_micros) == (Reason.OUTBID, 2 * CREDIT)
    assert Auction().express(snapshot(bid("x", package(3 * CREDIT)), posted=2 * CREDIT), "x").awards[
        0
    ].price_micros == (2 * CREDIT)


def test_express_decides_the_one_bid_and_renews_nothing() -> None:
    due = Lease(
        id="due",
        bid="b",
        agent="a",
        job_class="batch",
        shares=(Share("d0", 1000, 0),),
        price_micros=0,
        max_price_micros=CREDIT,
        restart_cost_micros=0,
        term_ms=60_000,
        start_ms=0,
        end_ms=100_000,
        funds_micros=CREDIT,
    )
    bids = (bid("x", package(CREDIT)), bid("y", package(CREDIT)))
    for mechanism in (Auction(), Fifo()):
        outcome = mechanism.express(snapshot(*bids, leases=(due,)), "x")
        assert [award.bid for award in outcome.awards] == ["x"]
        assert not outcome.renewals
        assert not outcome.refusals
        with pytest.raises(NotFound):
            mechanism.express(snapshot(*bids), "z")


@pytest.mark.parametrize(
    "wrong",
    [
        Package(0, 100, 0, 1000, CREDIT),
        Package(1, 0, 0, 1000, CREDIT),
        Package(1, 100, -1, 1000, CREDIT),
        Package(1, 100, 0, 0, CREDIT),
        Package(1, 100, 0, 1000, -1),
    ],
)
def test_a_package_that_asks_for_nothing_is_refused(wrong: Package) -> None:
    for mechanism in (Auction(), Fifo()):
        outcome = mechanism.clear(snapshot(bid("x", wrong), bid("y", package(CREDIT))))
        assert outcome.refusals[0].explanation.reason is Reason.INVALID
        assert [award.bid for award in outcome.awards] == ["y"]


def test_a_pool_without_devices_or_without_eligible_ones_says_so() -> None:
    for mechanism in (Auction(), Fifo()):
        nothing = mechanism.clear(snapshot(bid("x", package(CREDIT)), devices=0)).refusals[0].explanation
        assert (nothing.reason, nothing.message) == (Reason.NO_DEVICE, "the pool has no devices")
        other = bid("x", package(CREDIT, eligible=frozenset({"elsewhere"})))
        why = mechanism.clear(snapshot(other)).refusals[0].explanation
        assert why.message == "none of the pool's 2 devices matches the selector"


def test_a_lease_on_a_device_that_is_gone_disturbs_nothing() -> None:
    gone = Lease("l", "b", "a", "batch", (Share("d9", 500, 0),), 0, 0, 0, 1, 0, 0, 0)
    assert Auction().clear(snapshot(bid("x", package(CREDIT)), leases=(gone,))).awards


def test_a_flood_of_bids_is_refused_without_searching_for_each_price() -> None:
    flood = [bid(f"b{i:03}", package(CREDIT + i, 999 - i)) for i in range(200)]
    outcome = Auction().clear(snapshot(*flood, devices=1))
    assert len(outcome.awards) + len(outcome.refusals) == 200
    assert any("too many bids" in refusal.explanation.message for refusal in outcome.refusals)
    assert any(refusal.explanation.winning_price_micros for refusal in outcome.refusals)
