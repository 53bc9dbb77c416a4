"""Statements: what each entry means to one account."""

from __future__ import annotations

import pytest

from walras.ledger.ledger import Ledger
from walras.ledger.statement import Position, effect, statement
from walras.ledger.types import Entry, Limit


@pytest.fixture
def journal() -> list[Entry]:
    """An agent that is paid 100, pays 10, holds 60 of which 25 are captured, and gets the rest back."""
    ledger = Ledger()
    ledger.open("o1", "mint", limit=Limit.CREDITS, at_ms=0)
    ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=0)
    ledger.open("o3", "revenue", limit=Limit.DEBITS, at_ms=0)
    ledger.transfer("t1", "mint", "agent", 100, at_ms=1, ref="income")
    ledger.transfer("t2", "agent", "revenue", 10, at_ms=2)
    ledger.hold("h", "agent", "revenue", 60, at_ms=3, expires_at_ms=9)
    ledger.capture("c", "h", 25, at_ms=4)
    ledger.expire(9)
    return ledger.drain()


def of(account: str, journal: list[Entry]) -> list[Entry]:
    return [entry for entry in journal if account in (entry.debit, entry.credit)]


def test_a_statement_leads_from_its_opening_to_its_closing(journal: list[Entry]) -> None:
    found = statement("agent", Position(0, 0), of("agent", journal))
    assert [(line.kind, line.other, line.change, line.after) for line in found.lines] == [
        ("open", "", (0, 0), (0, 0)),
        ("transfer", "mint", (100, 0), (100, 0)),
        ("transfer", "revenue", (-10, 0), (90, 0)),
        ("hold", "revenue", (0, 60), (90, 60)),
        ("capture", "revenue", (-25, -60 + 35), (65, 35)),
        ("expire", "revenue", (0, -35), (65, 0)),
    ]
    assert found.closing == (65, 0)
    assert [line.ref for line in found.lines][1] == "income"


def test_who_is_paid_sees_the_payments_and_what_is_on_its_way_changes_nothing(journal: list[Entry]) -> None:
    found = statement("revenue", Position(5, 0), of("revenue", journal))
    assert [line.change.balance for line in found.lines] == [0, 10, 0, 25, 0]
    assert found.closing == (40, 0)


def test_an_empty_statement_closes_as_it_opens() -> None:
    assert statement("agent", Position(7, 3), ()).closing == (7, 3)


def test_closing_an_account_changes_nothing_of_its_balance() -> None:
    assert effect(Entry(9, 1, "x", "close", "agent", "", 500), "agent") == (0, 0)
    assert effect(Entry(9, 1, "x", "release", "agent", "b", 5, "h"), "agent") == (0, -5)
    assert effect(Entry(9, 1, "x", "release", "agent", "b", 5, "h"), "b") == (0, 0)
