"""Accounts, holds, transfers and journal entries. Amounts are micro-credits, never negative."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal, NamedTuple

from msgspec import Struct

AMOUNT_MAX: Final = 2**63 - 1  # what the store keeps in one column
BATCH_MAX: Final = 8_192

Kind = Literal["open", "transfer", "hold", "capture", "release", "expire", "close"]


class Limit(IntEnum):
    """What an account must keep to, as the flags of TigerBeetle's `Account`; pending sums count too."""

    NONE = 0
    DEBITS = 1  # debits must not exceed posted credits: a wallet
    CREDITS = 2  # credits must not exceed posted debits: a mint takes back no more than it issued


class Account(Struct, kw_only=True, gc=False):
    """Four running sums, as in TigerBeetle's `Account`. The ledger's own are live: copy what is to stay."""

    id: str
    limit: Limit
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def available(self) -> int:
        """What can still be paid: negative only for accounts whose debits have no limit."""
        return self.credits_posted - self.debits_posted - self.debits_pending

    @property
    def balance(self) -> int:
        """What it owns, money on hold included."""
        return self.credits_posted - self.debits_posted

    @property
    def debits_max(self) -> int:
        """How high pending and posted debits may go together."""
        return self.credits_posted if self.limit is Limit.DEBITS else AMOUNT_MAX

    @property
    def credits_max(self) -> int:
        """How high pending and posted credits may go together."""
        return self.debits_posted if self.limit is Limit.CREDITS else AMOUNT_MAX


class Hold(Struct, kw_only=True, gc=False):
    """Money set aside on `debit` for `credit`; `amount` is what is left of it. Live like accounts.

    From `expires_at_ms` on it is given back by `expire`; 0 is never.
    """

    id: str
    debit: str
    credit: str
    amount: int
    ref: str = ""
    expires_at_ms: int = 0


class Transfer(NamedTuple):
    """One movement of a batch; `id` is its idempotency key."""

    id: str
    debit: str
    credit: str
    amount: int
    ref: str = ""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One line of the journal; the lines in order of `seq`, which has no gaps, rebuild the ledger.

    open: account `debit` (amount is its Limit); transfer: amount moved from debit to credit; hold: amount
    pending (its id is the hold's id); capture: part of `hold` posted; release, expire: the rest of `hold`
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
    expires_at_ms: int = 0
