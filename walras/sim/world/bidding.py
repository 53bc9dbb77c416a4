"""What agents bid: their strategies' prices, with the facts that the live proxy gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from walras.market.ground import SPEED_UNIT, at_speed
from walras.market.strategies.registry import PACING, STRATEGIES
from walras.market.strategies.slo import Curve, Slo
from walras.market.strategies.strategy import Facts, PacingState
from walras.market.types import AgentFacts, Bid, JobClass, Package
from walras.sim.world.bank import Bank
from walras.sim.world.fleet import Fleet
from walras.sim.world.leases import Claim, Holding
from walras.sim.world.workload import Agent

# A bid is named anew when its price has moved by a fiftieth, as the live proxy does.
MOVES_BY: Final = 50
_ALIKE: Final = (SPEED_UNIT,)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is wanted, before a price: `value_micros` a GPU-hour is what it is worth. Times are the market's.

    Any one of the packages would do; the price of each goes by its speed, 1000 for `value_micros`.
    latencies_ms: of requests without the share and with it, and `curve` what they are worth, if it matters.
    """

    agent: str
    packages: tuple[Package, ...]
    value_micros: int
    work_ms: int
    submitted_ms: int
    deadline_ms: int | None = None
    job_class: JobClass = "batch"
    restart_cost_micros: int = 0
    priority: int = 0
    curve: Curve | None = None
    latencies_ms: tuple[int, int] | None = None
    speeds: tuple[int, ...] = _ALIKE

    @property
    def package(self) -> Package:
        """The first."""
        return self.packages[0]

    def priced(self, price_micros: int) -> tuple[Package, ...]:
        """The packages where a GPU-hour at speed 1000 is paid so much."""
        if self.speeds == _ALIKE:
            return (_priced(self.packages[0], price_micros),)
        return tuple(
            _priced(package, at_speed(price_micros, speed))
            for package, speed in zip(self.packages, self.speeds, strict=True)
        )


def _priced(package: Package, price_micros: int) -> Package:
    """The package at that price. As `replace` does it, in a fifth of its time."""
    return Package(
        *(package.devices, package.milli_gpu, package.memory_mib, package.term_ms, price_micros),
        *(package.eligible, package.devices_min, package.affinity, package.mig_profile),
    )


class Floor(Protocol):
    """What an agent's work needs of the world that it is in. start_ms: what the market's clock shows when the
    run begins. fleet: the devices that there are."""

    start_ms: int
    fleet: Fleet

    def bid(self, ask: Ask, claim: Claim) -> None:
        """Bid for a lease; of the latency class it is decided at once."""

    def withdraw(self, claim: Claim) -> None:
        """Take its bid back, or its lease that has not begun."""

    def give_back(self, holding: Holding) -> None:
        """End a lease before its term."""

    def finish_at(self, at_ms: int, claim: Finishing) -> None:
        """Look then whether it is done."""


class Finishing(Claim, Protocol):
    """A claim on leases that ends once its work is done."""

    holding: Holding | None

    def is_done(self, now_ms: int) -> bool: ...


@dataclass(slots=True)
class Bidding:
    """Prices by agent, and the pacing of those that pace."""

    bank: Bank
    agents: Sequence[Agent]
    reserve_micros: int
    posted_micros: int = 0
    _strategies: dict[str, str] = field(default_factory=dict)
    _pacing: dict[str, PacingState] = field(default_factory=dict)
    _spent: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._strategies = {agent.name: agent.strategy for agent in self.agents}

    def adapts(self, agent: str) -> bool:
        """Whether what it bids changes with time."""
        return self._strategies[agent] != "fixed"

    def observe(self, at_ms: int) -> None:
        """Take note of what was spent; move the pacing of those that pace."""
        for name, strategy in self._strategies.items():
            if strategy == "pacing":
                was = self._pacing.get(name, PacingState(at_ms=at_ms))
                spent = self.bank.spent(name)
                target = PACING.target(self.bank.rate(name), self.bank.balance(name))
                self._pacing[name] = PACING.observe(was, at_ms, spent - self._spent.get(name, 0), target)
                self._spent[name] = spent

    def price(self, ask: Ask, at_ms: int) -> int:
        """What the agent's strategy names; at least the reserve where it is worth that."""
        strategy = self._strategies[ask.agent]
        if strategy == "fixed":
            return ask.value_micros
        facts = Facts(
            now_ms=at_ms,
            value_micros=ask.value_micros,
            milli=ask.package.total_milli,
            term_ms=ask.package.term_ms,
            available_micros=self.bank.available(ask.agent),
            posted_micros=self.posted_micros,
            submitted_ms=ask.submitted_ms,
            deadline_ms=ask.deadline_ms,
            work_ms=ask.work_ms,
            job_class=ask.job_class,
            pacing=self._pacing.get(ask.agent, PacingState()),
        )
        bids = STRATEGIES[strategy]
        if strategy == "slo" and ask.curve is not None and ask.latencies_ms is not None:
            without_ms, with_ms = ask.latencies_ms
            facts = replace(facts, latency_without_ms=without_ms, latency_with_ms=with_ms)
            bids = Slo({ask.job_class: ask.curve})
        return max(bids.price(facts), min(ask.value_micros, self.reserve_micros))

    def moved(self, bid: Bid, ask: Ask, at_ms: int) -> int | None:
        """The price at speed 1000 that a pending bid should name now, or None when its own is as good."""
        price, was = self.price(ask, at_ms), bid.packages[0].price_micros
        return price if abs(at_speed(price, ask.speeds[0]) - was) * MOVES_BY > was else None

    def facts(self) -> dict[str, AgentFacts]:
        """What mechanisms that divide by agent may know, as in the live exchange."""
        return {
            agent.name: AgentFacts(
                weight=agent.weight,
                spend_micros_per_hour=PACING.target(
                    self.bank.rate(agent.name), self.bank.balance(agent.name)
                ),
            )
            for agent in self.agents
        }
