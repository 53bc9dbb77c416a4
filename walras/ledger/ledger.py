"""Double entry in two phases: every micro that leaves an account arrives in another.

Pure and in memory: each operation checks, applies and returns one journal Entry. The caller takes the new
entries with `drain`, stores them in the transaction of what they pay for, and restores the ledger from what
is stored when that fails. Modelled on TigerBeetle's accounts and transfers: a limit is a property of the
account, a hold may have a timeout, and the id of an operation is its idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from types import MappingProxyType
from typing import Final

from walras.core.errors import AlreadyExists, Conflict, InsufficientFunds, MoneyError, NotFound, WalrasError
from walras.core.money import format_credits
from walras.ledger.types import AMOUNT_MAX, BATCH_MAX, Account, Entry, Hold, Kind, Limit, Transfer

LIMITS: Final = frozenset(map(int, Limit))
RECENT_MAX: Final = 16_384  # so many operations back, at least, a repeated id is known without `history`

History = Callable[[Sequence[str]], Mapping[str, Entry]]


def no_history(_: Sequence[str]) -> Mapping[str, Entry]:
    """The history of a ledger whose older ids nobody repeats."""
    return {}


class Ledger:
    """Accounts and holds. An operation whose id was applied before returns that entry and changes nothing.

    `history` finds entries by id that are older than those in memory. Times never run backwards: an
    operation is booked at its `at_ms` or at the time of the last one, whichever is later.
    """

    def __init__(self, history: History = no_history) -> None:
        self._accounts: dict[str, Account] = {}
        self._holds: dict[str, Hold] = {}
        self._expiries: list[tuple[int, str]] = []  # a heap; holds that ended may still be in it
        self._history = history
        self._recent: dict[str, Entry] = {}
        self._older: dict[str, Entry] = {}
        self._remembers_all = True
        self._fresh: list[Entry] = []
        self._seq = self._at_ms = 0

    @classmethod
    def restore(
        cls,
        accounts: Iterable[Account],
        holds: Iterable[Hold],
        recent: Sequence[Entry],
        history: History = no_history,
    ) -> Ledger:
        """A ledger as it was; `recent` is the end of its journal, in order. It becomes the parts' owner.

        Raises Conflict when the parts do not balance.
        """
        ledger = cls(history)
        ledger._accounts = {account.id: account for account in accounts}
        ledger._holds = {hold.id: hold for hold in holds}
        timed = (hold for hold in ledger._holds.values() if hold.expires_at_ms)
        ledger._expiries = [(hold.expires_at_ms, hold.id) for hold in timed]
        heapify(ledger._expiries)
        ledger._recent = {entry.id: entry for entry in recent}
        if recent:
            ledger._seq, ledger._at_ms = recent[-1].seq, recent[-1].at_ms
            ledger._remembers_all = recent[0].seq == 1
        if not ledger.balanced():
            raise Conflict("the ledger's accounts and holds do not balance; restore the data from a backup")
        return ledger

    @property
    def seq(self) -> int:
        """The number of the last entry; the first has 1."""
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

    def find(self, id: str) -> Entry | None:
        """The entry of an operation that was applied; None when there was none of that id."""
        return self._find(id)

    def drain(self) -> list[Entry]:
        """The entries since the last call, in order."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def open(self, id: str, account: str, *, limit: Limit, at_ms: int, ref: str = "") -> Entry:
        """An empty account. Raises AlreadyExists when the account is open."""
        return self._do(self._entry(at_ms, id, "open", account, "", int(limit), ref=ref), self._find(id))

    def close(self, id: str, account: str, *, at_ms: int, ref: str = "") -> Entry:
        """Forget a wallet that is empty. Raises NotFound, Conflict (balance, hold, no wallet)."""
        known = self._find(id)
        if known is not None and (known.kind, known.debit) == ("close", account):
            return known
        posted = self.account(account).debits_posted
        return self._do(self._entry(at_ms, id, "close", account, "", posted, ref=ref), known)

    def transfer(self, id: str, debit: str, credit: str, amount: int, *, at_ms: int, ref: str = "") -> Entry:
        """Move `amount` at once. Raises InsufficientFunds, NotFound, MoneyError, Conflict (id reused)."""
        return self._do(self._entry(at_ms, id, "transfer", debit, credit, amount, ref=ref), self._find(id))

    def hold(
        self,
        id: str,
        debit: str,
        credit: str,
        amount: int,
        *,
        at_ms: int,
        ref: str = "",
        expires_at_ms: int = 0,
    ) -> Entry:
        """Set `amount` aside until it is captured or released; `id` names the hold. Raises as `transfer`."""
        wanted = self._entry(
            at_ms, id, "hold", debit, credit, amount, hold=id, ref=ref, expires_at_ms=expires_at_ms
        )
        return self._do(wanted, self._find(id))

    def capture(self, id: str, hold: str, amount: int, *, at_ms: int, ref: str = "") -> Entry:
        """Pay a part of a hold, which stays open with the rest, be it nothing.

        Raises InsufficientFunds when less than `amount` is left of it, NotFound, MoneyError, Conflict.
        """
        known = self._find(id)
        if known is not None and (known.kind, known.hold, known.amount) == ("capture", hold, amount):
            return known
        of = self.find_hold(hold)
        wanted = self._entry(at_ms, id, "capture", of.debit, of.credit, amount, hold=hold, ref=ref)
        return self._do(wanted, known)

    def release(self, id: str, hold: str, *, at_ms: int, ref: str = "") -> Entry:
        """Give back what is left of a hold and end it. Raises NotFound, Conflict (id reused)."""
        known = self._find(id)
        if known is not None and (known.kind, known.hold) == ("release", hold):
            return known
        return self._do(self._rest(at_ms, id, "release", self.find_hold(hold), ref), known)

    def expire(self, now_ms: int, keep: Collection[str] = frozenset()) -> list[Entry]:
        """Give back what is left of every hold whose time is over, but for those to `keep`."""
        expired, kept = [], []
        while self._expiries and self._expiries[0][0] <= now_ms:
            expires_at_ms, id = heappop(self._expiries)
            hold = self._holds.get(id)
            if hold is None or hold.expires_at_ms != expires_at_ms:
                continue
            if id in keep:
                kept.append((expires_at_ms, id))
            else:
                wanted = self._rest(now_ms, f"expire:{id}", "expire", hold, "")
                expired.append(self._do(wanted, self._find(wanted.id)))
        for expiry in kept:
            heappush(self._expiries, expiry)
        return expired

    def apply(self, transfers: Sequence[Transfer], *, at_ms: int) -> list[Entry | WalrasError]:
        """A batch, each transfer as `transfer` does it; in order its entry, or the error that refused it.

        Raises MoneyError for more than BATCH_MAX, with nothing applied.
        """
        if len(transfers) > BATCH_MAX:
            raise MoneyError(f"a batch has at most {BATCH_MAX} transfers, not {len(transfers)}")
        past = {} if self._remembers_all else self._history([transfer.id for transfer in transfers])
        at = max(at_ms, self._at_ms)
        find, recent, older, seq = self._accounts.get, self._recent, self._older, self._seq
        limits_debits, limits_credits, highest = Limit.DEBITS, Limit.CREDITS, AMOUNT_MAX
        done: list[Entry | WalrasError] = []
        fresh: list[Entry] = []
        for transfer in transfers:
            id, debit, credit, amount, ref = transfer
            payer, payee = find(debit), find(credit)
            # What is plain is done here, as this is the inner loop; the rest is refused or was done before.
            if payer is not None and payee is not None and payer is not payee and amount >= 0:
                debits, credits = payer.debits_posted + amount, payee.credits_posted + amount
                if (
                    debits + payer.debits_pending
                    <= (payer.credits_posted if payer.limit is limits_debits else highest)
                    and credits + payee.credits_pending
                    <= (payee.debits_posted if payee.limit is limits_credits else highest)
                    and id not in recent
                    and id not in older
                    and id not in past
                ):
                    payer.debits_posted, payee.credits_posted = debits, credits
                    seq += 1
                    recent[id] = entry = Entry(seq, at, id, "transfer", debit, credit, amount, "", ref)
                    done.append(entry)
                    fresh.append(entry)
                    continue
            done.append(self._refusal(transfer, at))
        if fresh:
            self._seq, self._at_ms = seq, at
            self._fresh += fresh
        if len(self._recent) >= RECENT_MAX:
            self._age()
        return done

    def _refusal(self, transfer: Transfer, at_ms: int) -> Entry | WalrasError:
        """What `transfer` says of one that cannot be applied: its first entry if it is repeated."""
        wanted = self._entry(at_ms, transfer.id, "transfer", *transfer[1:4], ref=transfer.ref)
        refusal: WalrasError | None = None
        try:
            if known := self._find(wanted.id):
                return _same(known, wanted)
            self._check(wanted)
        except WalrasError as error:
            refusal = error
        assert refusal is not None, f"{transfer.id} was not plain and yet can be applied"
        return refusal

    def append(self, entry: Entry) -> None:
        """Apply the next entry of a journal. Raises a WalrasError when it cannot follow what was before."""
        if entry.seq != self._seq + 1:
            raise Conflict(f"entry {entry.seq} cannot follow entry {self._seq}")
        if self._find(entry.id):
            raise Conflict(f'"{entry.id}" was used for another operation')
        self._check(entry)
        self._commit(entry)

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
            if account.debits_posted + account.debits_pending > account.debits_max:
                return False
            if account.credits_posted + account.credits_pending > account.credits_max:
                return False
        return posted == 0 and not any(pending.values())

    def _entry(
        self,
        at_ms: int,
        id: str,
        kind: Kind,
        debit: str,
        credit: str,
        amount: int,
        *,
        hold: str = "",
        ref: str = "",
        expires_at_ms: int = 0,
    ) -> Entry:
        at_ms = max(at_ms, self._at_ms)
        return Entry(self._seq + 1, at_ms, id, kind, debit, credit, amount, hold, ref, expires_at_ms)

    def _rest(self, at_ms: int, id: str, kind: Kind, hold: Hold, ref: str) -> Entry:
        return self._entry(
            at_ms, id, kind, hold.debit, hold.credit, hold.amount, hold=hold.id, ref=ref or hold.ref
        )

    def _find(self, id: str) -> Entry | None:
        if id in self._recent:
            return self._recent[id]
        entry = self._older.get(id)
        if entry is None and not self._remembers_all:
            entry = self._history((id,)).get(id)
        return entry

    def _do(self, wanted: Entry, known: Entry | None) -> Entry:
        """Apply it, unless it is `known`: the entry that there is of that id."""
        if known is not None:
            return _same(known, wanted)
        self._check(wanted)
        self._commit(wanted)
        self._fresh.append(wanted)
        return wanted

    def _check(self, entry: Entry) -> None:
        """Raises the WalrasError that refuses the entry."""
        if not 0 <= entry.amount <= AMOUNT_MAX:
            raise MoneyError(f"an amount must be 0 to {AMOUNT_MAX} micro-credits, not {entry.amount}")
        if entry.kind in ("capture", "release", "expire"):
            self._check_rest(entry)
        elif entry.kind in ("transfer", "hold"):
            self._check_payment(entry)
        elif entry.kind == "close":
            self._check_close(entry)
        else:
            if entry.amount not in LIMITS:
                raise Conflict(f"there is no limit of the kind {entry.amount}")
            if entry.debit in self._accounts:
                raise AlreadyExists(f'account "{entry.debit}" already exists')

    def _check_close(self, entry: Entry) -> None:
        state = self.account(entry.debit)
        if state.limit is not Limit.DEBITS:
            raise Conflict(f'account "{state.id}" is one of the market and stays')
        pending = any(state.id in (hold.debit, hold.credit) for hold in self._holds.values())
        if pending or not entry.amount == state.debits_posted == state.credits_posted:
            raise Conflict(f'account "{state.id}" still has a balance or money on hold')

    def _check_payment(self, entry: Entry) -> None:
        payer, payee, amount = self.account(entry.debit), self.account(entry.credit), entry.amount
        if payer is payee:
            raise MoneyError(f'account "{payer.id}" cannot pay itself')
        if payer.debits_posted + payer.debits_pending + amount > payer.debits_max:
            if payer.limit is not Limit.DEBITS:
                raise MoneyError(f'account "{payer.id}" cannot pay more')
            raise InsufficientFunds(
                f'account "{payer.id}" has {format_credits(payer.available)} available, '
                f"not {format_credits(amount)}"
            )
        if payee.credits_posted + payee.credits_pending + amount > payee.credits_max:
            raise MoneyError(f'account "{payee.id}" cannot take more')
        if entry.kind == "hold" and (entry.id in self._holds or entry.hold != entry.id):
            raise Conflict(f'"{entry.hold}" was used for another hold')

    def _check_rest(self, entry: Entry) -> None:
        """Of capture, release and expire, which are about a hold that there must be."""
        hold = self.find_hold(entry.hold)
        if (entry.debit, entry.credit) != (hold.debit, hold.credit):
            raise Conflict(f'hold "{hold.id}" is from "{hold.debit}" to "{hold.credit}"')
        if entry.amount > hold.amount:
            raise InsufficientFunds(
                f'hold "{hold.id}" has {format_credits(hold.amount)} left, not {format_credits(entry.amount)}'
            )
        if entry.kind != "capture" and entry.amount != hold.amount:
            raise Conflict(f'hold "{hold.id}" ends with all that is left of it')
        if entry.kind == "expire" and not 0 < hold.expires_at_ms <= entry.at_ms:
            raise Conflict(f'hold "{hold.id}" is not over yet')

    def _commit(self, entry: Entry) -> None:
        """Apply an entry that was checked."""
        amount, kind = entry.amount, entry.kind
        if kind == "open":
            self._accounts[entry.debit] = Account(id=entry.debit, limit=Limit(amount))
        elif kind == "close":
            del self._accounts[entry.debit]
        else:
            payer, payee = self._accounts[entry.debit], self._accounts[entry.credit]
            if kind in ("transfer", "capture"):
                payer.debits_posted += amount
                payee.credits_posted += amount
            if kind != "transfer":
                change = amount if kind == "hold" else -amount
                payer.debits_pending += change
                payee.credits_pending += change
                self._commit_hold(entry)
        self._seq = entry.seq
        self._at_ms = max(self._at_ms, entry.at_ms)
        self._recent[entry.id] = entry
        if len(self._recent) >= RECENT_MAX:
            self._age()

    def _commit_hold(self, entry: Entry) -> None:
        if entry.kind == "capture":
            self._holds[entry.hold].amount -= entry.amount
        elif entry.kind == "hold":
            self._holds[entry.hold] = Hold(
                id=entry.hold,
                debit=entry.debit,
                credit=entry.credit,
                amount=entry.amount,
                ref=entry.ref,
                expires_at_ms=entry.expires_at_ms,
            )
            if entry.expires_at_ms:
                heappush(self._expiries, (entry.expires_at_ms, entry.hold))
        else:
            del self._holds[entry.hold]

    def _age(self) -> None:
        """Two generations, so that forgetting costs nothing an entry."""
        self._remembers_all = self._remembers_all and not self._older
        self._older, self._recent = self._recent, {}


def _same(known: Entry, wanted: Entry) -> Entry:
    """The entry of an operation that is repeated. Raises Conflict when it was another one."""
    if _essence(known) != _essence(wanted):
        raise Conflict(f'"{wanted.id}" was used for another operation')
    return known


def _essence(entry: Entry) -> tuple[str, str, str, int, str]:
    """What must be the same when an operation is repeated: not when, nor its remarks."""
    return entry.kind, entry.debit, entry.credit, entry.amount, entry.hold
