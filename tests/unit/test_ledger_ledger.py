"""Two-phase double entry: what each operation does to the four sums, and what it refuses."""

from __future__ import annotations

import pytest

from walras.core.errors import AlreadyExists, Conflict, InsufficientFunds, MoneyError, NotFound
from walras.ledger.ledger import Ledger
from walras.ledger.types import AMOUNT_MAX, Account


@pytest.fixture
def ledger() -> Ledger:
    """A mint without a limit, an agent with 100 and the market's revenue."""
    ledger = Ledger()
    ledger.open("o1", "mint", limited=False, at_ms=0)
    ledger.open("o2", "agent", limited=True, at_ms=0)
    ledger.open("o3", "revenue", limited=True, at_ms=0)
    ledger.transfer("t1", "mint", "agent", 100, at_ms=1)
    return ledger


def test_a_transfer_moves_money_and_is_one_journal_entry(ledger: Ledger) -> None:
    entry = ledger.transfer("t2", "agent", "revenue", 30, at_ms=2, ref="rent")
    assert (entry.seq, entry.kind, entry.debit, entry.credit, entry.amount) == (
        5,
        "transfer",
        "agent",
        "revenue",
        30,
    )
    assert ledger.account("agent").available == 70
    assert ledger.account("revenue").available == 30
    assert ledger.account("mint").available == -100
    assert ledger.balanced()


def test_held_money_is_not_available_but_still_owned(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    assert ledger.account("agent").available == 40
    assert ledger.account("agent").balance == 100
    assert ledger.account("revenue").available == 0, "money on its way cannot be spent"
    with pytest.raises(InsufficientFunds, match="available"):
        ledger.transfer("t2", "agent", "revenue", 41, at_ms=3)


def test_a_hold_is_captured_in_parts_and_its_rest_is_released(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    ledger.capture("c1", "h", 25, at_ms=3)
    ledger.capture("c2", "h", 10, at_ms=4)
    assert ledger.find_hold("h").amount == 25
    assert ledger.account("revenue").available == 35
    entry = ledger.release("r", "h", at_ms=5)
    assert entry.amount == 25
    assert ledger.account("agent").available == 65
    assert not ledger.holds
    assert ledger.balanced()


def test_no_more_is_captured_than_is_held(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 10, at_ms=2)
    with pytest.raises(InsufficientFunds):
        ledger.capture("c", "h", 11, at_ms=3)
    ledger.capture("c", "h", 10, at_ms=3)
    assert ledger.find_hold("h").amount == 0, "an empty hold stays until it is released"
    ledger.release("r", "h", at_ms=4)
    with pytest.raises(NotFound):
        ledger.capture("c3", "h", 0, at_ms=5)


def test_a_repeated_operation_is_applied_once(ledger: Ledger) -> None:
    first = ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    assert ledger.hold("h", "agent", "revenue", 60, at_ms=9) == first
    assert ledger.capture("c", "h", 5, at_ms=3) == ledger.capture("c", "h", 5, at_ms=4)
    assert ledger.release("r", "h", at_ms=5) == ledger.release("r", "h", at_ms=6)
    assert ledger.capture("c", "h", 5, at_ms=7).amount == 5, "even when the hold is gone"
    assert ledger.transfer("t1", "mint", "agent", 100, at_ms=8).at_ms == 1
    assert ledger.open("o2", "agent", limited=True, at_ms=9).at_ms == 0
    assert ledger.account("agent").available == 95
    assert ledger.seq == 7


def test_an_id_is_not_used_for_something_else(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.transfer("t1", "mint", "agent", 101, at_ms=2)
    ledger.hold("h", "agent", "revenue", 5, at_ms=2)
    with pytest.raises(Conflict):
        ledger.capture("t1", "h", 5, at_ms=2)
    with pytest.raises(Conflict):
        ledger.release("h", "h", at_ms=2)


@pytest.mark.parametrize(
    ("debit", "credit", "amount", "error"),
    [
        ("agent", "revenue", -1, MoneyError),
        ("agent", "agent", 1, MoneyError),
        ("agent", "nobody", 1, NotFound),
        ("nobody", "agent", 1, NotFound),
        ("agent", "revenue", 101, InsufficientFunds),
        ("mint", "agent", AMOUNT_MAX, MoneyError),
    ],
)
def test_what_cannot_be_paid_changes_nothing(
    ledger: Ledger, debit: str, credit: str, amount: int, error: type[Exception]
) -> None:
    before = dict(ledger.accounts)
    with pytest.raises(error):
        ledger.transfer("x", debit, credit, amount, at_ms=2)
    with pytest.raises(error):
        ledger.hold("x", debit, credit, amount, at_ms=2)
    assert dict(ledger.accounts) == before
    assert ledger.seq == 4


def test_only_an_empty_account_is_closed(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.close("x1", "agent", at_ms=2)
    ledger.hold("h", "agent", "revenue", 0, at_ms=2)
    ledger.transfer("t2", "agent", "mint", 100, at_ms=2)
    with pytest.raises(Conflict):
        ledger.close("x1", "agent", at_ms=3)
    ledger.release("r", "h", at_ms=3)
    entry = ledger.close("x1", "agent", at_ms=4)
    assert ledger.close("x1", "agent", at_ms=5) == entry
    assert "agent" not in ledger.accounts
    assert ledger.balanced()
    with pytest.raises(Conflict):
        ledger.close("x2", "mint", at_ms=4)
    with pytest.raises(AlreadyExists):
        ledger.open("o9", "mint", limited=True, at_ms=4)


def test_what_could_not_be_stored_is_taken_back(ledger: Ledger) -> None:
    before = dict(ledger.accounts)
    entries = [
        ledger.hold("h", "agent", "revenue", 60, at_ms=2),
        ledger.capture("c", "h", 60, at_ms=3),
        ledger.release("r", "h", at_ms=3),
        ledger.transfer("t2", "agent", "mint", 40, at_ms=3),
        ledger.close("x", "agent", at_ms=3),
    ]
    ledger.undo(entries)
    assert dict(ledger.accounts) == before
    assert not ledger.holds
    assert ledger.hold("h", "agent", "revenue", 60, at_ms=4).seq == 10, "numbers are not used twice"


def test_a_ledger_is_restored_from_its_parts_and_checked(ledger: Ledger) -> None:
    last = ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    again = Ledger.restore(ledger.accounts.values(), ledger.holds.values(), ledger.seq, [last])
    assert dict(again.accounts) == dict(ledger.accounts)
    assert again.hold("h", "agent", "revenue", 60, at_ms=9) == last
    assert again.capture("c", "h", 60, at_ms=3).seq == 6
    with pytest.raises(Conflict, match="balance"):
        Ledger.restore(ledger.accounts.values(), [], 5)
    with pytest.raises(Conflict):
        Ledger.restore([Account(id="a", limited=False, debits_posted=1)], [], 1)
    payer = Account(id="a", limited=True, debits_posted=1)
    with pytest.raises(Conflict):
        Ledger.restore([payer, Account(id="b", limited=True, credits_posted=1)], [], 1)
