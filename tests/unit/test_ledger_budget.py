"""Income and rebate, exact to the micro."""

from __future__ import annotations

import pytest

from walras.core.errors import MoneyError
from walras.core.money import HOUR_MS
from walras.ledger.budget import Accrual, Income, rebate


def test_income_is_paid_for_the_time_that_passed() -> None:
    income = Income(12_000_000, 288_000_000)
    amount, accrual = income.due(Accrual(0), HOUR_MS // 2, 0)
    assert amount == 6_000_000
    assert income.due(accrual, HOUR_MS // 2, amount) == (0, accrual)


def test_income_stops_at_the_cap_and_what_it_withholds_is_gone() -> None:
    income = Income(10, 15)
    amount, accrual = income.due(Accrual(0), HOUR_MS, 9)
    assert amount == 6
    assert income.due(accrual, 100 * HOUR_MS, 15) == (0, Accrual(100 * HOUR_MS))
    amount, _ = income.due(Accrual(100 * HOUR_MS), 101 * HOUR_MS, 0)
    assert amount == 10, "time at the cap earns nothing later"


def test_a_balance_above_the_cap_earns_nothing() -> None:
    assert Income(10, 15).due(Accrual(0), HOUR_MS, 99)[0] == 0


def test_time_that_runs_backwards_pays_nothing() -> None:
    accrual = Accrual(1000, 5)
    assert Income(10**9, 10**12).due(accrual, 999, 0) == (0, accrual)


def test_when_a_balance_is_reached_is_known() -> None:
    income = Income(10, 100)
    assert income.full_at_ms(Accrual(500), 20, 30) == 500 + HOUR_MS
    assert income.full_at_ms(Accrual(500), 30, 30) == 500
    assert income.full_at_ms(Accrual(500), 0, 101) is None
    assert Income(0, 100).full_at_ms(Accrual(500), 0, 1) is None


def test_negative_terms_are_refused() -> None:
    for rate, cap in ((-1, 0), (0, -1)):
        with pytest.raises(MoneyError):
            Income(rate, cap)
    with pytest.raises(MoneyError):
        rebate(-1, {"a": 1})
    with pytest.raises(MoneyError):
        rebate(1, {"a": -1})


def test_revenue_is_rebated_by_weight_to_the_last_micro() -> None:
    assert rebate(10, {"b": 1, "a": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}
    assert rebate(10, {"a": 0, "b": 2}) == {"a": 0, "b": 10}
    assert rebate(10, {}) == {}
    assert rebate(10, {"a": 0}) == {}


def test_the_guaranteed_are_paid_their_part_of_the_pool_before_the_rest_goes_by_weight() -> None:
    assert rebate(1000, {"a": 1, "b": 1}, {"a": 500}, 1000) == {"a": 750, "b": 250}
    assert rebate(1000, {"a": 1, "b": 3}, {"a": 200}, 1000) == {"a": 400, "b": 600}
    # Of a pool that is guaranteed whole nothing is left for weights.
    assert rebate(1000, {"a": 1, "b": 9}, {"a": 1000}, 1000) == {"a": 1000, "b": 0}


def test_guarantees_beyond_what_there_is_shrink_alike() -> None:
    assert rebate(1000, {"a": 1, "b": 1, "c": 1}, {"a": 3000, "b": 1000}, 1000) == {
        "a": 750,
        "b": 250,
        "c": 0,
    }
    assert rebate(1000, {"a": 1}, {"a": 3000}, 0) == {"a": 1000}


def test_without_weights_the_rest_goes_to_the_guaranteed() -> None:
    assert rebate(10, {"a": 0, "b": 0}, {"b": 1}, 1000) == {"a": 0, "b": 10}
    assert rebate(10, {"a": 0}, {"a": 0}, 1000) == {}


def test_negative_guarantees_are_refused() -> None:
    with pytest.raises(MoneyError):
        rebate(1, {"a": 1}, {"a": -1}, 1000)
    with pytest.raises(MoneyError):
        rebate(1, {"a": 1}, {"a": 1}, -1)
