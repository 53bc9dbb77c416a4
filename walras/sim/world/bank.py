"""The agents' money: the same ledger as the live exchange's, with incomes, wallet caps and the rebate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from walras.ledger.budget import Accrual, Income, rebate
from walras.ledger.ledger import Ledger
from walras.ledger.types import Entry, Limit
from walras.sim.world.workload import Agent

MINT: Final = "mint"
REVENUE: Final = "revenue"


class Bank:
    """Accounts by agent. `drain` gives the journal, for whoever keeps books of its own."""

    def __init__(self, agents: Sequence[Agent], at_ms: int, *, rebates: bool = True) -> None:
        self.ledger = Ledger()
        self._rebates = rebates
        self._made = 0
        self.ledger.open(f"open:{MINT}", MINT, limit=Limit.CREDITS, at_ms=at_ms)
        self.ledger.open(f"open:{REVENUE}", REVENUE, limit=Limit.DEBITS, at_ms=at_ms)
        self.weights = {agent.name: agent.weight for agent in agents}
        self._incomes: dict[str, tuple[Income, Accrual]] = {}
        for agent in agents:
            self.ledger.open(f"open:{agent.name}", agent.name, limit=Limit.DEBITS, at_ms=at_ms)
            if agent.balance_micros:
                self.transfer(MINT, agent.name, agent.balance_micros, at_ms)
            income = Income(agent.income_micros_per_hour, agent.cap_micros)
            self._incomes[agent.name] = (income, Accrual(at_ms))

    def available(self, agent: str) -> int:
        """Micros that it can still promise."""
        return self.ledger.accounts[agent].available

    def balance(self, agent: str) -> int:
        """Micros that it owns, money on hold included."""
        return self.ledger.accounts[agent].balance

    def spent(self, agent: str) -> int:
        return self.ledger.accounts[agent].debits_posted

    def rate(self, agent: str) -> int:
        """Its income in micros an hour."""
        return self._incomes[agent][0].rate_micros_per_hour

    def pay(self, at_ms: int) -> None:
        """Incomes up to now, then the revenue back by weight."""
        for name, (income, was) in self._incomes.items():
            amount, accrual = income.due(was, at_ms, self.balance(name))
            self._incomes[name] = (income, accrual)
            if amount:
                self.transfer(MINT, name, amount, at_ms)
        revenue = self.available(REVENUE)
        if revenue and self._rebates:
            for name, part in rebate(revenue, self.weights).items():
                if part:
                    self.transfer(REVENUE, name, part, at_ms)

    def transfer(self, payer: str, payee: str, micros: int, at_ms: int) -> None:
        """Raises InsufficientFunds."""
        self.ledger.transfer(self._id(), payer, payee, micros, at_ms=at_ms)

    def hold(self, agent: str, micros: int, at_ms: int) -> str:
        """Set money aside for the pool; the hold's id. Raises InsufficientFunds."""
        hold = self._id()
        self.ledger.hold(hold, agent, REVENUE, micros, at_ms=at_ms)
        return hold

    def capture(self, hold: str, micros: int, at_ms: int) -> None:
        if micros:
            self.ledger.capture(self._id(), hold, micros, at_ms=at_ms)

    def release(self, hold: str, at_ms: int) -> None:
        self.ledger.release(f"release:{hold}", hold, at_ms=at_ms)

    def drain(self) -> list[Entry]:
        """The journal since the last call."""
        return self.ledger.drain()

    def _id(self) -> str:
        self._made += 1
        return f"op:{self._made}"
