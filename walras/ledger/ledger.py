"""Double entry in two phases: every micro that leaves an account arrives in another.

Pure and in memory: each operation checks, applies and returns one journal Entry; the caller stores it in the
transaction of what it pays for and calls `undo` when that fails. Modelled on TigerBeetle's accounts and
transfers: a limit is a property of the account and the id of an operation is its idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from msgspec.structs import replace

from walras.core.errors import AlreadyExists, Conflict, InsufficientFunds, MoneyError, NotFound
from walras.core.money import format_credits
from walras.ledger.types import AMOUNT_MAX, Account, Entry, Hold, Kind

RECENT_MAX: Final = 65_536  # how many operations back a repeated id is recognised

_Move = tuple[str, str, int]  # debit, credit, amount


class Ledger:
    """Accounts and holds. An operation whose id was applied before returns that entry and changes nothing."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._holds: dict[str, Hold] = {}
        self._recent: dict[str, Entry] = {}
        self._seq = 0

    @classmethod
    def restore(
        cls, accounts: Iterable[Account], holds: Iterable[Hold], seq: int, recent: Iterable[Entry] = ()
    ) -> Ledger:
        """A ledger as it was: `seq` is the last one used, `recent` the entries whose ids may be repeated.

        Raises Conflict when the parts do not balance.
        """
        ledger = cls()
        ledger._accounts = {account.id: account for account in accounts}
        ledger._holds = {hold.id: hold for hold in holds}
        ledger._recent = {entry.id: entry for entry in recent}
        ledger._seq = seq
        if not ledger.balanced():
            raise Conflict("the ledger's accounts and holds do not balance; restore the data from a backup")
        return ledger

    @classmethod
    def replay(cls, journal: Iterable[Entry]) -> Ledger:
        """The ledger that a whole journal, in order, leads to. Raises Conflict when it does not balance."""
        ledger = cls()
        for entry in journal:
            ledger._apply(entry, 1)
            ledger._remember(entry)
        if not ledger.balanced():
            raise Conflict("the journal does not balance")
        return ledger

    @property
    def seq(self) -> int:
        """The number of the last entry."""
        return self._seq

    @property
    def accounts(self) -> Mapping[str, Account]:
        return MappingProxyType(self._accounts)

    @property
    def holds(self) -> Mapping[str, Hold]:
        return MappingProxyType(self._holds)

    def account(self, account: str) -> Account:
        """Raises NotFound."""
        try:
            return self._accounts[account]
        except KeyError:
            raise NotFound(f'account "{account}" not found') from None

    def find_hold(self, hold: str) -> Hold:
        """Raises NotFound."""
        try:
            return self._holds[hold]
        except KeyError:
            raise NotFound(f'hold "{hold}" not found') from None

    def open(self, id: str, account: str, *, limited: bool, at_ms: int, ref: str = "") -> Entry:
        """An empty account. Raises AlreadyExists when the account is open."""
        wanted = self._entry(at_ms, id, "open", (account, "", int(limited)), ref=ref)
        if known := self._known(wanted):
            return known
        if account in self._accounts:
            raise AlreadyExists(f'account "{account}" already exists')
        return self._commit(wanted)

    def close(self, id: str, account: str, *, at_ms: int, ref: str = "") -> Entry:
        """Forget a limited account that is empty. Raises NotFound, Conflict (balance, hold, no limit)."""
        if (known := self._recent.get(id)) and (known.kind, known.debit) == ("close", account):
            return known
        state = self.account(account)
        if not state.limited:
            raise Conflict(f'account "{account}" is one of the market and stays')
        if state.balance or state.debits_pending or state.credits_pending or self._holds_of(account):
            raise Conflict(f'account "{account}" still has a balance or money on hold')
        return self._commit(self._entry(at_ms, id, "close", (account, "", state.debits_posted), ref=ref))

    def transfer(self, id: str, debit: str, credit: str, amount: int, *, at_ms: int, ref: str = "") -> Entry:
        """Move `amount` at once. Raises InsufficientFunds, NotFound, MoneyError, Conflict (id reused)."""
        wanted = self._entry(at_ms, id, "transfer", (debit, credit, amount), ref=ref)
        if known := self._known(wanted):
            return known
        self._check(debit, credit, amount)
        return self._commit(wanted)

    def hold(self, id: str, debit: str, credit: str, amount: int, *, at_ms: int, ref: str = "") -> Entry:
        """Set `amount` aside until it is captured or released; `id` names the hold. Raises as `transfer`."""
        wanted = self._entry(at_ms, id, "hold", (debit, credit, amount), hold=id, ref=ref)
        if known := self._known(wanted):
            return known
        if id in self._holds:
            raise Conflict(f'"{id}" was used for another hold')
        self._check(debit, credit, amount)
        return self._commit(wanted)

    def capture(self, id: str, hold: str, amount: int, *, at_ms: int, ref: str = "") -> Entry:
        """Pay a part of a hold, which stays open with the rest, be it nothing.

        Raises InsufficientFunds when less than `amount` is left of it, NotFound, MoneyError, Conflict.
        """
        known = self._recent.get(id)
        if known and (known.kind, known.hold, known.amount) == ("capture", hold, amount):
            return known
        state = self.find_hold(hold)
        wanted = self._entry(at_ms, id, "capture", (state.debit, state.credit, amount), hold=hold, ref=ref)
        self._known(wanted)
        self._check_amount(state.credit, amount)
        if amount > state.amount:
            raise InsufficientFunds(
                f'hold "{hold}" has {format_credits(state.amount)} left, not {format_credits(amount)}'
            )
        return self._commit(wanted)

    def release(self, id: str, hold: str, *, at_ms: int, ref: str = "") -> Entry:
        """Give back what is left of a hold and end it. Raises NotFound, Conflict (id reused)."""
        if (known := self._recent.get(id)) and (known.kind, known.hold) == ("release", hold):
            return known
        state = self.find_hold(hold)
        rest = (state.debit, state.credit, state.amount)
        wanted = self._entry(at_ms, id, "release", rest, hold=hold, ref=ref or state.ref)
        self._known(wanted)
        return self._commit(wanted)

    def undo(self, entries: Iterable[Entry]) -> None:
        """Take back entries that could not be stored, newest first; their numbers are not used again."""
        for entry in sorted(entries, key=lambda entry: -entry.seq):
            assert self._recent.get(entry.id) == entry, f"{entry.id} was not applied"
            self._apply(entry, -1)
            del self._recent[entry.id]

    def balanced(self) -> bool:
        """Whether debits equal credits, every pending sum is its holds' and no limit is passed."""
        pending: dict[tuple[str, str], int] = {}
        for hold in self._holds.values():
            for key in (("debit", hold.debit), ("credit", hold.credit)):
                pending[key] = pending.get(key, 0) + hold.amount
        posted = 0
        for account in self._accounts.values():
            posted += account.debits_posted - account.credits_posted
            if account.debits_pending != pending.pop(("debit", account.id), 0):
                return False
            if account.credits_pending != pending.pop(("credit", account.id), 0):
                return False
            if account.limited and account.available < 0:
                return False
        return posted == 0 and not any(pending.values())

    def _holds_of(self, account: str) -> bool:
        return any(account in (hold.debit, hold.credit) for hold in self._holds.values())

    def _entry(self, at_ms: int, id: str, kind: Kind, move: _Move, *, hold: str = "", ref: str = "") -> Entry:
        debit, credit, amount = move
        return Entry(
            seq=self._seq + 1,
            at_ms=at_ms,
            id=id,
            kind=kind,
            debit=debit,
            credit=credit,
            amount=amount,
            hold=hold,
            ref=ref,
        )

    def _known(self, wanted: Entry) -> Entry | None:
        known = self._recent.get(wanted.id)
        if known is None:
            return None
        if replace(known, seq=0, at_ms=0, ref="") != replace(wanted, seq=0, at_ms=0, ref=""):
            raise Conflict(f'"{wanted.id}" was used for another operation')
        return known

    def _check_amount(self, credit: str, amount: int) -> None:
        if amount < 0:
            raise MoneyError(f"an amount must be zero or more, not {amount} micro-credits")
        account = self.account(credit)
        if account.credits_posted + account.credits_pending + amount > AMOUNT_MAX:
            raise MoneyError(f'account "{credit}" cannot take more')

    def _check(self, debit: str, credit: str, amount: int) -> None:
        if debit == credit:
            raise MoneyError(f'account "{debit}" cannot pay itself')
        self._check_amount(credit, amount)
        payer = self.account(debit)
        if payer.debits_posted + payer.debits_pending + amount > AMOUNT_MAX:
            raise MoneyError(f'account "{debit}" cannot pay more')
        if payer.limited and amount > payer.available:
            raise InsufficientFunds(
                f'account "{debit}" has {format_credits(payer.available)} available, '
                f"not {format_credits(amount)}"
            )

    def _commit(self, entry: Entry) -> Entry:
        self._apply(entry, 1)
        self._remember(entry)
        return entry

    def _remember(self, entry: Entry) -> None:
        self._seq = max(self._seq, entry.seq)
        self._recent[entry.id] = entry
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]

    def _apply(self, entry: Entry, sign: int) -> None:
        """Add an entry's effect, or with sign -1 take it away."""
        amount = entry.amount * sign
        if entry.kind in ("open", "close"):
            if (entry.kind == "open") == (sign == 1):
                self._reopen(entry)
            else:
                del self._accounts[entry.debit]
            return
        pending = {"transfer": 0, "hold": amount, "capture": -amount, "release": -amount}[entry.kind]
        posted = amount if entry.kind in ("transfer", "capture") else 0
        payer, payee = self.account(entry.debit), self.account(entry.credit)
        self._accounts[payer.id] = replace(
            payer,
            debits_pending=payer.debits_pending + pending,
            debits_posted=payer.debits_posted + posted,
        )
        self._accounts[payee.id] = replace(
            payee,
            credits_pending=payee.credits_pending + pending,
            credits_posted=payee.credits_posted + posted,
        )
        if entry.hold:
            self._apply_hold(entry, sign)

    def _apply_hold(self, entry: Entry, sign: int) -> None:
        if entry.kind == "capture":
            hold = self._holds[entry.hold]
            self._holds[entry.hold] = replace(hold, amount=hold.amount - entry.amount * sign)
        elif (entry.kind == "hold") == (sign == 1):
            self._holds[entry.hold] = Hold(
                id=entry.hold, debit=entry.debit, credit=entry.credit, amount=entry.amount, ref=entry.ref
            )
        else:
            del self._holds[entry.hold]

    def _reopen(self, entry: Entry) -> None:
        """An account as `open` makes it, or, taking back a `close`, as it was."""
        closed = entry.kind == "close"
        self._accounts[entry.debit] = Account(
            id=entry.debit,
            limited=closed or entry.amount == 1,
            debits_posted=entry.amount if closed else 0,
            credits_posted=entry.amount if closed else 0,
        )
