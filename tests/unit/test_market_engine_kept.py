"""A pool that the engine keeps: what it is asked of bids and money that it does not know."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")

from walras.core.errors import Invalid
from walras.market.engine.standing import Standing
from walras.market.engine.supports import FUNDS_MAX
from walras.market.types import Device, Rules

POOL = tuple(Device(f"d{number}", "n", "m", number, 80_000) for number in range(2))


def kept() -> Standing:
    return Standing(POOL, Rules(), ("a", "b"), priced=True)


def test_a_bid_that_it_was_not_told_of_wins_nothing() -> None:
    outcome = kept().express("unheard-of", 1_000, 100_000)
    assert outcome.awards == () and outcome.displacements == ()


def test_more_money_than_it_counts_is_refused() -> None:
    with pytest.raises(Invalid, match="more than the engine counts"):
        kept().told.pay((0, FUNDS_MAX + 1))
