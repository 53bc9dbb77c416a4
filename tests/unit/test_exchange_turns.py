"""Turns between agents."""

from __future__ import annotations

import pytest

from walras.exchange.turns import PACKAGES_A_TURN, Urgent, in_turn
from walras.market.types import Bid, Package


def bid(agent: str, number: int, price: int = 1, packages: int = 1) -> Bid:
    package = Package(devices=1, milli_gpu=100, memory_mib=0, term_ms=1000, price_micros=price, eligible=None)
    return Bid(
        id=f"{agent}/{number:05}", agent=agent, job_class="batch", packages=(package,) * packages,
        restart_cost_micros=0, submitted_ms=number, funds_micros=0, deadline_ms=None,
    )  # fmt: skip


def test_urgent_bids_of_a_flood_do_not_come_before_anothers_first() -> None:
    urgent = Urgent()
    for number in range(3):
        urgent.add("flood", f"flood/{number}")
    urgent.add("calm", "calm/0")
    assert [urgent.take() for _ in range(4)] == ["flood/0", "calm/0", "flood/1", "flood/2"]
    assert not urgent
    with pytest.raises(KeyError):
        urgent.take()


@pytest.mark.parametrize(("by_price", "first"), [(True, PACKAGES_A_TURN + 4), (False, 0)])
def test_of_too_many_bids_the_dearest_or_the_oldest_are_looked_at(by_price: bool, first: int) -> None:
    flood = [bid("flood", number, price=number) for number in range(PACKAGES_A_TURN + 5)]
    now, later = in_turn([*flood, bid("calm", 0)], by_price=by_price)
    assert len(now) == PACKAGES_A_TURN + 1 and len(later) == 5
    assert now[0] == flood[first]
    assert bid("calm", 0) in now


def test_packages_count_not_bids() -> None:
    now, later = in_turn([bid("flood", number, packages=8) for number in range(40)], by_price=True)
    assert (len(now), len(later)) == (PACKAGES_A_TURN // 8, 40 - PACKAGES_A_TURN // 8)
