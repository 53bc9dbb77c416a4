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
