"""Money is neither made nor lost: the ledger against a naive wallet book over many random operations."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from walras.core.errors import WalrasError
from walras.core.money import HOUR_MS
from walras.ledger.budget import Accrual, Income, rebate
from walras.ledger.ledger import Ledger
from walras.ledger.types import Entry, Limit

OPERATIONS = 6_000


class Book:
    """What every account owns and what is set aside, in plain dictionaries."""

    def __init__(self) -> None:
        self.owns: dict[str, int] = {}
        self.aside: dict[str, tuple[str, str, int]] = {}

    def free(self, account: str) -> int:
        return self.owns[account] - sum(
            amount for payer, _, amount in self.aside.values() if payer == account
        )

    def pay(self, payer: str, payee: str, amount: int) -> bool:
        if payer == payee or (payer != "mint" and amount > self.free(payer)):
            return False
        self.owns[payer] -= amount
        self.owns[payee] += amount
        return True


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ledger_agrees_with_a_naive_book_over_many_operations(seed: int) -> None:
    chance, ledger, book = random.Random(seed), Ledger(), Book()
    journal: list[Entry] = []
    names = ["mint", *(f"a{i}" for i in range(6))]
    for name in names:
        limit = Limit.DEBITS if name != "mint" else Limit.NONE
        journal.append(ledger.open(f"open-{name}", name, limit=limit, at_ms=0))
        book.owns[name] = 0
    for number in range(OPERATIONS):
        entry = one_operation(chance, ledger, book, names, number)
        if entry is not None and chance.random() < 0.1:
            repeated(ledger, entry)
        if entry is not None:
            journal.append(entry)
        if number % 500 == 0:
            assert_same(ledger, book)
    assert_same(ledger, book)
    assert len({entry.kind for entry in journal}) == 5
    assert ledger.drain() == journal
    again = Ledger()
    for entry in journal:
        again.append(entry)
    assert again.accounts == ledger.accounts
    assert again.holds == ledger.holds


def one_operation(
    chance: random.Random, ledger: Ledger, book: Book, names: list[str], number: int
) -> Entry | None:
    """The same random operation on both; both do it or both refuse."""
    kind = chance.choice(("transfer", "hold", "hold", "capture", "capture", "release", "income"))
    payer, payee = chance.choice(names[1:]), chance.choice(names)
    amount = chance.choice((0, 1, chance.randint(0, 10**6)))
    held = chance.choice(sorted(book.aside)) if book.aside else "none"
    entry, did = None, False
    try:
        if kind == "income":
            entry = ledger.transfer(f"n{number}", "mint", payer, amount, at_ms=number)
            did = book.pay("mint", payer, amount)
        elif kind == "transfer":
            did = book.pay(payer, payee, amount)
            entry = ledger.transfer(f"n{number}", payer, payee, amount, at_ms=number)
        elif kind == "hold":
            did = payer != payee and amount <= book.free(payer)
            if did:
                book.aside[f"n{number}"] = (payer, payee, amount)
            entry = ledger.hold(f"n{number}", payer, payee, amount, at_ms=number)
        elif kind == "capture":
            if held in book.aside and amount <= book.aside[held][2]:
                did = True
                payer, payee, left = book.aside[held]
                book.aside[held] = (payer, payee, left - amount)
                book.owns[payer] -= amount
                book.owns[payee] += amount
            entry = ledger.capture(f"n{number}", held, amount, at_ms=number)
        else:
            did = book.aside.pop(held, None) is not None
            entry = ledger.release(f"n{number}", held, at_ms=number)
    except WalrasError:
        entry = None
    assert (entry is not None) == did, (kind, payer, payee, amount, held)
    return entry


def repeated(ledger: Ledger, entry: Entry) -> None:
    """Doing it again changes nothing."""
    accounts = {name: replace(account) for name, account in ledger.accounts.items()}
    if entry.kind == "transfer":
        assert ledger.transfer(entry.id, entry.debit, entry.credit, entry.amount, at_ms=0) is entry
    elif entry.kind == "capture":
        assert ledger.capture(entry.id, entry.hold, entry.amount, at_ms=0) is entry
    assert ledger.accounts == accounts


def assert_same(ledger: Ledger, book: Book) -> None:
    assert ledger.balanced()
    assert sum(book.owns.values()) == 0
    for name, owns in book.owns.items():
        account = ledger.account(name)
        assert account.balance == owns
        assert account.available == book.free(name)
        assert name == "mint" or account.available >= 0
    assert {hold.id: hold.amount for hold in ledger.holds.values()} == {
        name: amount for name, (_, _, amount) in book.aside.items()
    }


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10 * HOUR_MS), max_size=50))
def test_income_loses_nothing_to_rounding_however_often_it_is_paid(rate: int, steps: list[int]) -> None:
    income, accrual, paid, now = Income(rate, 10**18), Accrual(0), 0, 0
    for step in steps:
        now += step
        amount, accrual = income.due(accrual, now, paid)
        paid += amount
    assert paid == rate * now // HOUR_MS


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.lists(st.tuples(st.integers(0, HOUR_MS), st.integers(0, 10**7)), max_size=50),
)
def test_income_never_lifts_a_balance_above_the_cap(
    rate: int, cap: int, steps: list[tuple[int, int]]
) -> None:
    income, accrual, balance, now = Income(rate, cap), Accrual(0), 0, 0
    for step, spend in steps:
        now += step
        amount, accrual = income.due(accrual, now, balance)
        assert amount == 0 or balance + amount <= cap
        balance += amount
        balance -= min(balance, spend)
        assert 0 <= accrual.remainder < HOUR_MS


@given(st.integers(0, 10**15), st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), max_size=10))
def test_a_rebate_sums_to_the_revenue_and_follows_the_weights(revenue: int, weights: dict[str, int]) -> None:
    parts = rebate(revenue, weights)
    whole = sum(weights.values())
    assert sum(parts.values()) == (revenue if whole else 0)
    for name, part in parts.items():
        assert abs(part * whole - revenue * weights[name]) < whole
