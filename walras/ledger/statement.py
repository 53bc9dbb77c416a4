"""Statements: an account's entries in order, with its balance and what is on hold all along."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from walras.ledger.types import Entry, Kind


class Position(NamedTuple):
    """What an account owns, money on hold included, and how much of it is on hold."""

    balance: int
    held: int


class Line(Struct, frozen=True):
    """One entry as the account sees it: what it changed, and where that led."""

    seq: int
    at_ms: int
    id: str
    kind: Kind
    other: str  # the account on the other side
    change: Position
    after: Position
    ref: str


class Statement(Struct, frozen=True):
    """`opening` and the changes of `lines`, added up, are `closing`."""

    account: str
    opening: Position
    lines: tuple[Line, ...]
    closing: Position


def effect(entry: Entry, account: str) -> Position:
    """What an entry changes of one of its two accounts. A hold is the payer's; the payee waits."""
    amount = entry.amount
    if entry.kind in ("open", "close"):
        return Position(0, 0)
    paid = amount if entry.kind in ("transfer", "capture") else 0
    if account != entry.debit:
        return Position(paid, 0)
    if entry.kind == "transfer":
        return Position(-paid, 0)
    return Position(-paid, amount if entry.kind == "hold" else -amount)


def statement(account: str, opening: Position, entries: Iterable[Entry]) -> Statement:
    """The statement of an account that stood at `opening` before these, its next entries."""
    at, lines = opening, []
    for entry in entries:
        assert account in (entry.debit, entry.credit), f"entry {entry.seq} is not of {account}"
        change = effect(entry, account)
        at = Position(at.balance + change.balance, at.held + change.held)
        other = entry.credit if account == entry.debit else entry.debit
        lines.append(Line(entry.seq, entry.at_ms, entry.id, entry.kind, other, change, at, entry.ref))
    return Statement(account, opening, tuple(lines), at)
