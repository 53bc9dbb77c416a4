"""The posted price follows demand, the reserve how full the pool is, and neither by more than 5% a minute."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from walras.market.slow import Slow, excess_milli, step
from walras.market.types import Bid, Device, Lease, Package, Rules, Share, Snapshot

NOW = 10_000_000
DEVICES = (Device("d0", "n", "H100", 0, 80_000), Device("d1", "n", "A100", 1, 80_000, speed_milli=500))


def bid(price: int, milli: int = 1000, eligible: frozenset[str] | None = frozenset({"d0"})) -> Bid:
    package = Package(1, milli, 0, 60_000, price, eligible)
    return Bid(f"b{price}", "a", "batch", (package,), 0, 0, 10**9)


def lease(milli: int, price: int, device: str = "d0", state: str = "active") -> Lease:
    held = (Share(device, milli, milli * 80),)
    base = Lease("l", "b", "a", "batch", held, price, price, 0, 60_000, 0, NOW + 30_000, 10**9)
    return replace(base, id=f"l-{device}-{price}", state=state)  # type: ignore[arg-type]


def pool(*bids: Bid, leases: tuple[Lease, ...] = (), reserve: int = 100_000) -> Snapshot:
    return Snapshot(NOW, Rules(reserve_micros=reserve), DEVICES, leases, bids, 0)


def test_what_is_wanted_is_counted_at_the_price_of_each_device() -> None:
    assert excess_milli(pool(), 1_000_000) == -2000
    assert excess_milli(pool(bid(999_999)), 1_000_000) == -2000
    assert excess_milli(pool(bid(1_000_000), bid(500_000, eligible=frozenset({"d1"}))), 1_000_000) == 0
    assert excess_milli(pool(leases=(lease(1000, 500_000, "d1"),)), 1_000_000) == -1000
    assert excess_milli(pool(leases=(lease(1000, 2_000_000, state="draining"),)), 1_000_000) == -2000


def test_a_bid_that_cannot_pay_the_price_or_is_worth_less_by_now_does_not_count() -> None:
    poor = replace(bid(2_000_000), funds_micros=1)
    faded = replace(bid(2_000_000), decays_ms=NOW - 30_000, deadline_ms=NOW + 10_000)
    assert excess_milli(pool(poor, faded), 1_000_000) == -2000


def test_the_posted_price_rises_with_demand_and_falls_without() -> None:
    was = Slow(1_000_000, 100_000, NOW - 60_000)
    crowd = [bid(5_000_000 + i) for i in range(4)]
    assert step(was, pool(*crowd), reserve_micros=100_000, reserve_max_micros=0).posted_micros == 1_048_790
    assert step(was, pool(), reserve_micros=100_000, reserve_max_micros=0).posted_micros == 951_210
    balanced = pool(bid(5_000_000), bid(5_000_001))
    assert step(was, balanced, reserve_micros=100_000, reserve_max_micros=0) == Slow(1_000_000, 100_000, NOW)


def test_the_reserve_rises_where_nearly_all_is_under_lease_and_comes_back() -> None:
    full = pool(leases=(lease(1000, 5_000_000), lease(1000, 5_000_000, "d1")))
    slow = Slow(100_000, 100_000, NOW)
    for minute in range(1, 40):
        now = replace(full, now_ms=NOW + 60_000 * minute)
        slow = step(slow, now, reserve_micros=100_000, reserve_max_micros=200_000)
    assert slow.reserve_micros == 200_000 <= slow.posted_micros
    for minute in range(40, 80):
        now = replace(pool(), now_ms=NOW + 60_000 * minute)
        slow = step(slow, now, reserve_micros=100_000, reserve_max_micros=200_000)
    assert slow.reserve_micros == 100_000
    half = replace(pool(leases=(lease(1000, 5_000_000),)), now_ms=slow.at_ms + 60_000)
    assert step(slow, half, reserve_micros=100_000, reserve_max_micros=200_000).reserve_micros == 100_000


def test_steps_too_small_for_a_micro_add_up() -> None:
    slow = Slow(1_000, 1_000, NOW)
    for tick in range(1, 61):
        now = replace(pool(*[bid(5_000_000 + i) for i in range(4)], reserve=1_000), now_ms=NOW + 1_000 * tick)
        slow = step(slow, now, reserve_micros=1_000, reserve_max_micros=0)
    assert 1_025 <= slow.posted_micros <= 1_050


def test_the_reserve_takes_its_time_while_the_posted_price_waits_at_it() -> None:
    """Nearly full: the reserve rises, and what is left unsold keeps the posted price where it is."""
    slow = Slow(100_000, 100_000, NOW)
    for second in range(1, 61):
        held = (lease(950, 10**9), lease(950, 10**9, "d1"))
        rules = Rules(reserve_micros=slow.reserve_micros)
        now = replace(pool(leases=held), now_ms=NOW + 1_000 * second, rules=rules)
        slow = step(slow, now, reserve_micros=100_000, reserve_max_micros=10**6)
    assert 104_000 <= slow.reserve_micros <= 105_000


@given(st.integers(1_000, 10**8), st.integers(0, 600_000), st.integers(0, 6), st.booleans())
def test_no_price_moves_by_more_than_a_twentieth_a_minute(
    posted: int, elapsed_ms: int, wanted: int, full: bool
) -> None:
    held = (lease(1000, 10**9), lease(1000, 10**9, "d1")) if full else ()
    was = Slow(posted, 1_000, NOW - elapsed_ms)
    asked = pool(*[bid(10**9 + i) for i in range(wanted)], leases=held, reserve=1_000)
    now = step(was, asked, reserve_micros=1_000, reserve_max_micros=10**6)
    assert abs(now.posted_micros - posted) * 20 <= posted
    assert 1_000 <= now.reserve_micros <= 1_050
    assert now.posted_micros >= now.reserve_micros
