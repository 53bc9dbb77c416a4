"""The agents' money: the pure ledger, with every entry stored in the transaction of what it pays for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from walras.core.errors import WalrasError
from walras.core.money import CREDITS_MAX, MICROS
from walras.exchange import journal
from walras.exchange.journal import Database
from walras.kube.transaction import Transaction
from walras.ledger.budget import Accrual, Income, rebate
from walras.ledger.chain import seal
from walras.ledger.types import BATCH_MAX, Limit, Transfer

MINT: Final = "mint"
HOURS_OF_INCOME_AT_MOST: Final = 24


class Budget(msgspec.Struct, kw_only=True):
    """What an agent earns: micros an hour up to `cap_micros`, and its part of the rebate.

    guaranteed_milli: of the pool's milli-GPU, for what they earn; None is no guarantee.
    """

    uid: str
    rate_micros_per_hour: int
    cap_micros: int
    weight: int
    paid_ms: int
    remainder: int = 0
    guaranteed_milli: int | None = None


def account_of(agent: str) -> str:
    return f"agent:{agent}"


def revenue_of(pool: str) -> str:
    return f"revenue:{pool}"


class Treasury:
    """The ledger of all agents and pools. `store(tx)` writes what changed since it was last called."""

    def __init__(self, database: Database) -> None:
        database.migrate("ledger", journal.MIGRATIONS)
        self._seal, self._backlog = journal.ending(database)
        self.ledger = journal.restore(database)
        self.budgets = {
            agent: msgspec.json.decode(body, type=Budget)
            for agent, body in database.query("SELECT agent, body FROM budgets")
        }
        self._budgets_changed: set[str] = set()
        # Whose leases have to end before their accounts do; whoever has the name by now waits for that.
        self.leaving: set[str] = set()

    def serves(self, agent: str) -> bool:
        """Whether the agent has an account to buy from."""
        return agent in self.budgets and agent not in self.leaving

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
        for account, limit in ((MINT, Limit.CREDITS), (revenue_of(pool), Limit.DEBITS)):
            if account not in self.ledger.accounts:
                self.ledger.open(f"open:{account}", account, limit=limit, at_ms=now_ms)

    def open_agent(self, agent: str, budget: Budget, balance_micros: int, now_ms: int) -> None:
        """An account with `balance_micros` newly issued credits; the agent's uid makes it happen once."""
        account = account_of(agent)
        self.ledger.open(f"open:{budget.uid}", account, limit=Limit.DEBITS, at_ms=now_ms)
        if balance_micros:
            self.transfer(f"grant:{budget.uid}", MINT, account, balance_micros, now_ms, ref="first balance")
        self.set_budget(agent, budget)

    def set_budget(self, agent: str, budget: Budget) -> None:
        self.budgets[agent] = budget
        self._budgets_changed.add(agent)

    def close_agent(self, agent: str, now_ms: int) -> None:
        """Give what is left back to the mint and forget the account. Its holds must be released before."""
        budget = self.budgets.pop(agent, None)
        self.leaving.discard(agent)
        self._budgets_changed.add(agent)
        account = account_of(agent)
        if account not in self.ledger.accounts:
            return
        uid = budget.uid if budget else str(self.ledger.seq)
        left = self.ledger.account(account).balance
        if left:
            self.transfer(f"return:{uid}", account, MINT, left, now_ms, ref="agent deleted")
        self.ledger.close(f"close:{uid}", account, at_ms=now_ms)

    def transfer(self, id: str, debit: str, credit: str, micros: int, now_ms: int, ref: str = "") -> None:
        """Raises InsufficientFunds, NotFound."""
        self.ledger.transfer(id, debit, credit, micros, at_ms=now_ms, ref=ref)

    def transfer_all(self, transfers: Sequence[Transfer], now_ms: int) -> list[WalrasError]:
        """Many at once, each done or refused by itself; returns the refusals."""
        refused = []
        for start in range(0, len(transfers), BATCH_MAX):
            done = self.ledger.apply(transfers[start : start + BATCH_MAX], at_ms=now_ms)
            refused += [result for result in done if isinstance(result, WalrasError)]
        return refused

    def hold(
        self,
        id: str,
        debit: str,
        credit: str,
        micros: int,
        now_ms: int,
        *,
        ref: str = "",
        expires_at_ms: int = 0,
    ) -> None:
        """Raises InsufficientFunds, NotFound."""
        self.ledger.hold(id, debit, credit, micros, at_ms=now_ms, ref=ref, expires_at_ms=expires_at_ms)

    def capture(self, id: str, hold: str, micros: int, now_ms: int, ref: str = "") -> None:
        self.ledger.capture(id, hold, micros, at_ms=now_ms, ref=ref)

    def release(self, hold: str, now_ms: int) -> None:
        self.ledger.release(f"release:{hold}", hold, at_ms=now_ms)

    def expire(self, now_ms: int, keep: Collection[str]) -> list[str]:
        """Give back what holds that nobody ended have left; `keep` are those of leases. Returns their ids."""
        return [entry.hold for entry in self.ledger.expire(now_ms, keep)]

    def pay_income(self, now_ms: int) -> None:
        """Issue to every agent what its rate earned since the last time, up to its cap."""
        due = []
        for agent, budget in self.budgets.items():
            income = Income(budget.rate_micros_per_hour, budget.cap_micros)
            was = Accrual(budget.paid_ms, budget.remainder)
            amount, accrual = income.due(was, now_ms, self.balance(agent))
            if accrual == was:
                continue
            budget.paid_ms, budget.remainder = accrual.paid_ms, accrual.remainder
            self._budgets_changed.add(agent)
            if amount:
                # A clock that was set back shows the same time twice; a journal has no entry twice.
                id = f"income:{self.ledger.seq}:{budget.uid}"
                due.append(Transfer(id, MINT, account_of(agent), amount, "income"))
        self._pay(due, now_ms)

    def pay_rebate(self, pool: str, capacity_milli: int, now_ms: int) -> None:
        """Give the pool's revenue back to the agents, so that trade leaves the supply as it was."""
        revenue = self.ledger.account(revenue_of(pool)).available
        weights = {agent: budget.weight for agent, budget in self.budgets.items()}
        if not revenue or not weights:
            return
        guaranteed = {
            agent: budget.guaranteed_milli
            for agent, budget in self.budgets.items()
            if budget.guaranteed_milli
        }
        self._pay(
            [
                Transfer(
                    f"rebate:{self.ledger.seq}:{pool}:{self.budgets[agent].uid}",
                    revenue_of(pool),
                    account_of(agent),
                    part,
                    "rebate",
                )
                for agent, part in rebate(revenue, weights, guaranteed, capacity_milli).items()
                if part
            ],
            now_ms,
        )

    def _pay(self, due: Sequence[Transfer], now_ms: int) -> None:
        """Pay what cannot be refused."""
        for refusal in self.transfer_all(due, now_ms):
            raise refusal

    def store(self, tx: Transaction) -> None:
        """Stage every entry made since the last call, with the accounts, holds and budgets it changed."""
        if self._backlog:
            journal.store_backlog(tx, self._backlog)
            self._backlog = []
        if entries := self.ledger.drain():
            seals = seal(self._seal, entries)
            journal.store_entries(tx, entries, seals)
            journal.store_books(tx, self.ledger, entries)
            self._seal = seals[-1]
        if self._budgets_changed:
            kept = [agent for agent in self._budgets_changed if agent in self.budgets]
            tx.execute("DELETE FROM budgets WHERE agent = ?", [(agent,) for agent in self._budgets_changed])
            if kept:
                rows = [(agent, msgspec.json.encode(self.budgets[agent])) for agent in kept]
                tx.execute("INSERT INTO budgets VALUES (?, ?)", rows)
            self._budgets_changed = set()


def wallet_cap(rate_micros_per_hour: int, balance_micros: int) -> int:
    """The cap of an agent that names none: a day's income, or its first balance if that is more."""
    cap = max(rate_micros_per_hour * HOURS_OF_INCOME_AT_MOST, balance_micros, MICROS)
    return min(cap, CREDITS_MAX * MICROS)
