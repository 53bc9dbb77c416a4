"""Money is integer and nothing is lost to rounding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core import money
from walras.core.errors import MoneyError


@pytest.mark.parametrize(
    ("text", "micros"), [("0", 0), ("12", 12_000_000), ("97.20", 97_200_000), ("0.000001", 1)]
)
def test_a_decimal_is_read_as_micro_credits(text: str, micros: int) -> None:
    assert money.parse_credits(text) == micros


@pytest.mark.parametrize("text", ["", "-1", "1.0000001", "1e3", "NaN", "1,5", "9" * 12, "٣"])
def test_what_is_not_an_amount_is_refused(text: str) -> None:
    with pytest.raises(MoneyError):
        money.parse_credits(text)


@given(st.integers(0, money.CREDITS_MAX * money.MICROS))
def test_an_amount_reads_back_as_written(micros: int) -> None:
    assert money.parse_credits(money.format_credits(micros)) == micros


def test_rates_are_per_hour() -> None:
    assert money.parse_rate("12/h") == 12_000_000
    assert money.parse_rate("0.2/m") == 12_000_000
    assert money.parse_rate("288/d") == 12_000_000
    with pytest.raises(MoneyError):
        money.parse_rate("12")
    with pytest.raises(MoneyError, match="credits an hour"):
        money.parse_rate(f"{money.CREDITS_MAX}/s")


@pytest.mark.parametrize("text", ["1.0000001", "9" * 12])
def test_a_number_that_does_not_fit_is_told_from_one_that_is_none(text: str) -> None:
    with pytest.raises(MoneyError, match="at most six decimals, at most"):
        money.parse_credits(text)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**6), min_size=1).filter(any))
def test_a_split_conserves_the_total_and_is_within_one_of_the_exact_share(
    total: int, weights: list[int]
) -> None:
    parts = money.split(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)


@given(st.integers(0, 10**15), st.integers(1, 10**6), st.integers(1, 10**9))
def test_the_highest_price_within_an_amount_is_the_last_that_does_not_cost_more(
    micros: int, milli: int, elapsed_ms: int
) -> None:
    price = money.price_within(micros, milli * elapsed_ms)
    assert money.charge(price, milli, elapsed_ms) <= micros < money.charge(price + 1, milli, elapsed_ms)
