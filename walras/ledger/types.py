"""Accounts, holds and journal entries. Amounts are micro-credits, never negative."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

AMOUNT_MAX: Final = 2**63 - 1  # what the store keeps in one column

Kind = Literal["open", "transfer", "hold", "capture", "release", "close"]


class Account(Struct, frozen=True, kw_only=True):
    """Four running sums, as in TigerBeetle's `Account`. If limited, debits never exceed posted credits."""

    id: str
    limited: bool
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def available(self) -> int:
        """What can still be paid: negative only for accounts without a limit."""
        return self.credits_posted - self.debits_posted - self.debits_pending

    @property
    def balance(self) -> int:
        """What it owns, money on hold included."""
        return self.credits_posted - self.debits_posted


class Hold(Struct, frozen=True, kw_only=True):
    """Money set aside on `debit` for `credit`; `amount` is what is left of it."""

    id: str
    debit: str
    credit: str
    amount: int
    ref: str = ""


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the journal; the lines in order of `seq` rebuild the ledger.

    open: account `debit` (amount 1 if it is limited); transfer: amount moved from debit to credit; hold:
    amount pending (its id is the hold's id); capture: part of `hold` posted; release: the rest of `hold`
    given back; close: account `debit`, with amount its equal debits and credits.
    """

    seq: int
    at_ms: int
    id: str
    kind: Kind
    debit: str
    credit: str
    amount: int
    hold: str = ""
    ref: str = ""
