"""The agents' money: the pure ledger, with every entry stored in the transaction of what it pays for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from walras.core.money import MICROS
from walras.kube.transaction import Transaction
from walras.ledger.budget import Accrual, Income, rebate
from walras.ledger.ledger import RECENT_MAX, Ledger
from walras.ledger.types import Account, Entry, Hold

MINT: Final = "mint"
HOURS_OF_INCOME_AT_MOST: Final = 24

MIGRATIONS: Final = (
    """CREATE TABLE ledger_accounts (
        id TEXT PRIMARY KEY, limited INTEGER NOT NULL, debits_pending INTEGER NOT NULL,
        debits_posted INTEGER NOT NULL, credits_pending INTEGER NOT NULL,
        credits_posted INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE ledger_holds (
        id TEXT PRIMARY KEY, debit TEXT NOT NULL, credit TEXT NOT NULL, amount INTEGER NOT NULL,
        ref TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE ledger_journal (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        debit TEXT NOT NULL, credit TEXT NOT NULL, amount INTEGER NOT NULL, hold TEXT NOT NULL,
        ref TEXT NOT NULL
    )""",
    "CREATE INDEX ledger_journal_by_debit ON ledger_journal (debit, at_ms)",
    "CREATE TABLE budgets (agent TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
)


class Database(Protocol):
    def migrate(self, name: str, steps: Sequence[str]) -> None: ...
    def query(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]: ...


class Budget(msgspec.Struct, kw_only=True):
    """What an agent earns: micros an hour up to `cap_micros`, and its weight in the rebate."""

    uid: str
    rate_micros_per_hour: int
    cap_micros: int
    weight: int
    paid_ms: int
    remainder: int = 0


def account_of(agent: str) -> str:
    return f"agent:{agent}"


def revenue_of(pool: str) -> str:
    return f"revenue:{pool}"


class Treasury:
    """The ledger of all agents and pools. `store(tx)` writes what changed since it was last called."""

    def __init__(self, database: Database) -> None:
        database.migrate("ledger", MIGRATIONS)
        self.ledger = _restore(database)
        self.budgets = {
            agent: msgspec.json.decode(body, type=Budget)
            for agent, body in database.query("SELECT agent, body FROM budgets")
        }
        self._entries: list[Entry] = []
        self._budgets_changed: set[str] = set()

    def available(self, agent: str) -> int:
        """Micros that the agent can still promise; 0 for an agent without an account."""
        account = self.ledger.accounts.get(account_of(agent))
        return max(0, account.available) if account else 0

    def balance(self, agent: str) -> int:
        """Micros that the agent owns, money on hold included."""
        account = self.ledger.accounts.get(account_of(agent))
        return account.balance if account else 0

    def held(self, agent: str) -> int:
        account = self.ledger.accounts.get(account_of(agent))
        return account.debits_pending if account else 0

    def open_pool(self, pool: str, now_ms: int) -> None:
        """The mint and the pool's revenue account, if they are not there."""
        for account, limited in ((MINT, False), (revenue_of(pool), True)):
            if account not in self.ledger.accounts:
                self._entries.append(
                    self.ledger.open(f"open:{account}", account, limited=limited, at_ms=now_ms)
                )

    def open_agent(self, agent: str, budget: Budget, balance_micros: int, now_ms: int) -> None:
        """An account with `balance_micros` newly issued credits; the agent's uid makes it happen once."""
        account = account_of(agent)
        self._entries.append(self.ledger.open(f"open:{budget.uid}", account, limited=True, at_ms=now_ms))
        if balance_micros:
            self.transfer(f"grant:{budget.uid}", MINT, account, balance_micros, now_ms, ref="first balance")
        self.set_budget(agent, budget)

    def set_budget(self, agent: str, budget: Budget) -> None:
        self.budgets[agent] = budget
        self._budgets_changed.add(agent)

    def close_agent(self, agent: str, now_ms: int) -> None:
        """Give what is left back to the mint and forget the account. Its holds must be released before."""
        budget = self.budgets.pop(agent, None)
        self._budgets_changed.add(agent)
        account = account_of(agent)
        if account not in self.ledger.accounts:
            return
        uid = budget.uid if budget else str(self.ledger.seq)
        left = self.ledger.account(account).balance
        if left:
            self.transfer(f"return:{uid}", account, MINT, left, now_ms, ref="agent deleted")
        self._entries.append(self.ledger.close(f"close:{uid}", account, at_ms=now_ms))

    def transfer(self, id: str, debit: str, credit: str, micros: int, now_ms: int, ref: str = "") -> None:
        """Raises InsufficientFunds, NotFound."""
        self._note(self.ledger.transfer(id, debit, credit, micros, at_ms=now_ms, ref=ref))

    def hold(self, id: str, debit: str, credit: str, micros: int, now_ms: int, ref: str = "") -> None:
        """Raises InsufficientFunds, NotFound."""
        self._note(self.ledger.hold(id, debit, credit, micros, at_ms=now_ms, ref=ref))

    def capture(self, id: str, hold: str, micros: int, now_ms: int, ref: str = "") -> None:
        self._note(self.ledger.capture(id, hold, micros, at_ms=now_ms, ref=ref))

    def release(self, hold: str, now_ms: int) -> None:
        self._note(self.ledger.release(f"release:{hold}", hold, at_ms=now_ms))

    def pay_income(self, now_ms: int) -> None:
        """Issue to every agent what its rate earned since the last time, up to its cap."""
        for agent, budget in self.budgets.items():
            income = Income(budget.rate_micros_per_hour, budget.cap_micros)
            was = Accrual(budget.paid_ms, budget.remainder)
            amount, accrual = income.due(was, now_ms, self.balance(agent))
            if accrual == was:
                continue
            budget.paid_ms, budget.remainder = accrual.paid_ms, accrual.remainder
            self._budgets_changed.add(agent)
            if amount:
                self.transfer(
                    f"income:{budget.uid}:{now_ms}", MINT, account_of(agent), amount, now_ms, ref="income"
                )

    def pay_rebate(self, pool: str, now_ms: int) -> None:
        """Give the pool's revenue back to the agents by weight, so that trade leaves the supply as it was."""
        revenue = self.ledger.account(revenue_of(pool)).available
        weights = {agent: budget.weight for agent, budget in self.budgets.items()}
        if not revenue or not weights:
            return
        for agent, part in rebate(revenue, weights).items():
            if part:
                self.transfer(
                    f"rebate:{pool}:{self.budgets[agent].uid}:{now_ms}",
                    revenue_of(pool),
                    account_of(agent),
                    part,
                    now_ms,
                    ref="rebate",
                )

    def store(self, tx: Transaction) -> None:
        """Stage every entry made since the last call, with the accounts, holds and budgets it changed."""
        if self._entries:
            tx.execute(
                "INSERT INTO ledger_journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (e.seq, e.at_ms, e.id, e.kind, e.debit, e.credit, e.amount, e.hold, e.ref)
                    for e in self._entries
                ],
            )
            self._store_accounts(tx)
            self._store_holds(tx)
            self._entries = []
        if self._budgets_changed:
            kept = [agent for agent in self._budgets_changed if agent in self.budgets]
            tx.execute("DELETE FROM budgets WHERE agent = ?", [(agent,) for agent in self._budgets_changed])
            if kept:
                rows = [(agent, msgspec.json.encode(self.budgets[agent])) for agent in kept]
                tx.execute("INSERT INTO budgets VALUES (?, ?)", rows)
            self._budgets_changed = set()

    def _note(self, entry: Entry) -> None:
        # A repeated id gives the entry of the first time, which is stored already.
        if entry.seq == self.ledger.seq and (not self._entries or self._entries[-1].seq < entry.seq):
            self._entries.append(entry)

    def _store_accounts(self, tx: Transaction) -> None:
        touched = {account for entry in self._entries for account in (entry.debit, entry.credit) if account}
        gone = [(account,) for account in touched if account not in self.ledger.accounts]
        if gone:
            tx.execute("DELETE FROM ledger_accounts WHERE id = ?", gone)
        rows = [
            (a.id, int(a.limited), a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
            for a in (self.ledger.accounts[account] for account in touched if account in self.ledger.accounts)
        ]
        if rows:
            tx.execute("INSERT OR REPLACE INTO ledger_accounts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _store_holds(self, tx: Transaction) -> None:
        touched = {entry.hold for entry in self._entries if entry.hold}
        gone = [(hold,) for hold in touched if hold not in self.ledger.holds]
        if gone:
            tx.execute("DELETE FROM ledger_holds WHERE id = ?", gone)
        rows = [
            (h.id, h.debit, h.credit, h.amount, h.ref)
            for h in (self.ledger.holds[hold] for hold in touched if hold in self.ledger.holds)
        ]
        if rows:
            tx.execute("INSERT OR REPLACE INTO ledger_holds VALUES (?, ?, ?, ?, ?)", rows)


def _restore(database: Database) -> Ledger:
    accounts = [
        Account(
            id=row[0],
            limited=bool(row[1]),
            debits_pending=row[2],
            debits_posted=row[3],
            credits_pending=row[4],
            credits_posted=row[5],
        )
        for row in database.query("SELECT * FROM ledger_accounts")
    ]
    holds = [
        Hold(id=row[0], debit=row[1], credit=row[2], amount=row[3], ref=row[4])
        for row in database.query("SELECT * FROM ledger_holds")
    ]
    recent = journal(database, f"ORDER BY seq DESC LIMIT {RECENT_MAX}")
    seq = max((entry.seq for entry in recent), default=0)
    return Ledger.restore(accounts, holds, seq, reversed(recent))


def journal(database: Database, order: str = "ORDER BY seq") -> list[Entry]:
    """Entries of the journal as stored."""
    return [
        Entry(
            seq=row[0],
            at_ms=row[1],
            id=row[2],
            kind=row[3],
            debit=row[4],
            credit=row[5],
            amount=row[6],
            hold=row[7],
            ref=row[8],
        )
        for row in database.query(f"SELECT * FROM ledger_journal {order}")  # noqa: S608
    ]


def wallet_cap(rate_micros_per_hour: int, balance_micros: int) -> int:
    """The cap of an agent that names none: a day's income, or its first balance if that is more."""
    return max(rate_micros_per_hour * HOURS_OF_INCOME_AT_MOST, balance_micros, MICROS)


def differences(ledger: Ledger, entries: Iterable[Entry]) -> list[str]:
    """Accounts whose stored state differs from what the whole journal leads to; empty when all agree."""
    replayed = Ledger.replay(entries)
    names = set(ledger.accounts) | set(replayed.accounts)
    return sorted(name for name in names if ledger.accounts.get(name) != replayed.accounts.get(name))
