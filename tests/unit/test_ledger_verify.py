"""Verification of a journal in memory: every kind of fault, and where it is said to be."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import astuple, replace

from walras.ledger.chain import GENESIS, seal
from walras.ledger.ledger import Ledger
from walras.ledger.types import Entry, Limit, Transfer
from walras.ledger.verify import EMPTY, Books, Head, Verdict, Verifier

Row = tuple[Any, ...]


def a_ledger() -> Ledger:
    ledger = Ledger()
    ledger.open("o1", "mint", limit=Limit.CREDITS, at_ms=0)
    ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=0)
    ledger.open("o3", "revenue", limit=Limit.DEBITS, at_ms=0)
    ledger.apply([Transfer("t1", "mint", "agent", 100)], at_ms=1)
    ledger.hold("h", "agent", "revenue", 60, at_ms=2, ref="default/x", expires_at_ms=50)
    ledger.capture("c1", "h", 20, at_ms=3)
    ledger.capture("c2", "h", 5, at_ms=4)
    ledger.hold("h2", "agent", "revenue", 3, at_ms=4)
    ledger.release("r", "h2", at_ms=5)
    return ledger


def rows_of(entries: list[Entry]) -> list[Row]:
    return [(*astuple(entry), sealed) for entry, sealed in zip(entries, seal(GENESIS, entries), strict=True)]


def books_of(ledger: Ledger, rows: list[Row]) -> Books:
    return Books(dict(ledger.accounts), dict(ledger.holds), Head(rows[-1][0], rows[-1][-1].hex()))


def check(rows: list[Row], books: Books, anchor: Head | None = None) -> Verdict:
    verifier = Verifier(anchor)
    for start in range(0, len(rows), 2):
        if not verifier.read(rows[start : start + 2]):
            break
    return verifier.verdict(books)


def test_a_whole_journal_is_right_and_says_what_was_captured() -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    verdict = check(rows, books_of(ledger, rows))
    assert verdict.fault is None
    assert verdict.head == Head(9, rows[-1][-1].hex())
    assert str(verdict.head) == f"9:{rows[-1][-1].hex()}"
    assert verdict.captured == {("agent", "default/x"): 25}


def test_nothing_at_all_is_right() -> None:
    assert check([], Books({}, {}, EMPTY)).fault is None


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("column", range(11))
def test_whatever_is_altered_is_found_at_its_entry(number: int, column: int) -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    books = books_of(ledger, rows)
    row = list(rows[number - 1])
    old = row[column]
    row[column] = old + 1 if isinstance(old, int) else bytes(32) if isinstance(old, bytes) else f"{old}x"
    rows[number - 1] = tuple(row)
    fault = check(rows, books).fault
    assert fault is not None
    assert fault.seq == number
    assert str(number) in fault.message


@pytest.mark.parametrize("number", range(1, 10))
def test_a_removed_entry_is_found(number: int) -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    books = books_of(ledger, rows)
    del rows[number - 1]
    fault = check(rows, books).fault
    assert fault is not None
    assert fault.seq == number


@pytest.mark.parametrize("number", range(1, 9))
def test_swapped_entries_are_found(number: int) -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    books = books_of(ledger, rows)
    first, second = rows[number - 1], rows[number]
    rows[number - 1], rows[number] = (first[0], *second[1:]), (second[0], *first[1:])
    fault = check(rows, books).fault
    assert fault is not None
    assert fault.seq == number


def test_an_entry_that_cannot_be_is_found_even_when_it_is_sealed() -> None:
    ledger = a_ledger()
    entries = ledger.drain()
    entries.append(replace(entries[6], seq=10, id="c3", amount=10**6))
    rows = rows_of(entries)
    fault = check(rows, books_of(ledger, rows)).fault
    assert fault is not None
    assert (fault.seq, "cannot be" in fault.message) == (10, True)
    entries[-1] = replace(entries[-1], hold="none")
    rows = rows_of(entries)
    assert "not found" in str(check(rows, books_of(ledger, rows)).fault)


def test_a_journal_that_was_rewritten_whole_differs_from_the_head_that_was_noted() -> None:
    ledger = a_ledger()
    entries = ledger.drain()
    rows = rows_of(entries)
    noted = Head(6, rows[5][-1].hex())
    assert check(rows, books_of(ledger, rows), noted).fault is None
    entries[2] = replace(entries[2], ref="forged")
    forged = rows_of(entries)
    books = books_of(ledger, forged)
    assert check(forged, books).fault is None, "in itself it is right"
    fault = check(forged, books, noted).fault
    assert fault is not None
    assert (fault.seq, "rewritten" in fault.message) == (6, True)


def test_a_journal_that_was_cut_short_is_found() -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    noted, books = Head(9, rows[8][-1].hex()), books_of(ledger, rows)
    fault = check(rows[:-1], books).fault
    assert fault is not None
    assert fault.seq == 9
    fault = check(rows[:-1], replace(books, head=Head(8, rows[7][-1].hex())), noted).fault
    assert fault is not None
    assert "you know 9:" in fault.message


def test_books_that_the_journal_does_not_lead_to_are_found() -> None:
    ledger = a_ledger()
    rows = rows_of(ledger.drain())
    books = books_of(ledger, rows)
    agent, hold = books.accounts["agent"], books.holds["h"]
    for wrong, said in (
        (replace(books, accounts={**books.accounts, "agent": replace(agent, credits_posted=101)}), "agent"),
        (replace(books, accounts={**books.accounts, "extra": replace(agent, id="extra")}), '"extra"'),
        (replace(books, accounts={"mint": books.accounts["mint"]}), '"agent" is stored as nothing'),
        (replace(books, holds={"h": replace(hold, expires_at_ms=51)}), 'hold "h"'),
        (replace(books, holds={}), 'hold "h" is stored as nothing'),
    ):
        fault = check(rows, wrong).fault
        assert fault is not None
        assert fault.seq == 0
        assert said in fault.message
