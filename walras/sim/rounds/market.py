"""Jobs as agents of a market: each bids by how soon it has to run to end when it would in fair parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from walras.market.mechanism import Mechanism
from walras.market.strategies.strategy import Facts, Strategy
from walras.market.types import (
    AgentFacts,
    Bid,
    Device,
    Escrow,
    Lease,
    Memory,
    Outcome,
    Package,
    Rules,
    Snapshot,
)
from walras.sim.rounds.cluster import Moment
from walras.sim.rounds.training import Training

VALUE_MICROS: Final = 10_000_000
"""What a GPU-hour is worth to every job, so that only need tells one from another."""

LEASE_ROUNDS: Final = 3

NO_CLAIMS: Final[Mapping[int, float]] = {}

# Funds never bind: each agent's cover months.
_FUNDS_MICROS: Final = 10**15
_GPU_MEMORY_MIB: Final = 16_384
_GPUS_PER_NODE: Final = 4
# All work is to be done in so much more time than it would take if no GPU ever idled.
_DRAIN: Final = 1.1


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an agent thinks of its own job: how long it still takes on its GPUs, and how long in all."""

    left_s: float
    alone_s: float


def by_present_speed(training: Training) -> Estimate:
    """As if it trained on as fast as now: batch sizes that change come as a surprise."""
    return Estimate(training.left_s, training.ran_s + training.left_s)


def by_plan(training: Training) -> Estimate:
    """With the batch sizes of its plan, as far as that goes."""
    return Estimate(training.planned_left_s, training.alone_s)


class Market:
    """A Scheduler that clears a mechanism of the project at the begin of every round; who has a lease runs.

    A lease is for whole GPUs, some rounds, at a locked price; when its term is over its agent names a price
    anew and has the right to renew. An agent's deadline is the end that is fair: its arrival plus what its
    job takes alone, times the agents that have come so far to the GPUs there are, as far as that is more than
    1. It is earlier if the pool says so: at the time by which all work that is left could be done, with a
    tenth to spare, or else long jobs would be left to run alone at the end.
    """

    def __init__(
        self,
        mechanism: Mechanism,
        strategy: Strategy,
        *,
        planned: bool = False,
        claims: Mapping[int, float] = NO_CLAIMS,
        lease_rounds: int = LEASE_ROUNDS,
    ) -> None:
        """planned: whether agents know how their batch sizes will change, or only how fast they train now.

        claims: by job, how many times its work an agent claims to have, 1 for those that are not named.
        """
        self._mechanism, self._strategy = mechanism, strategy
        self._claims = claims
        self._estimate = by_plan if planned else by_present_speed
        self._lease_rounds = lease_rounds
        self._came: set[int] = set()
        self._leases: dict[str, Lease] = {}
        self._price_micros = 0
        self._memory = Memory()
        self._escrows: tuple[Escrow, ...] = ()

    def choose(self, moment: Moment) -> Sequence[int]:
        self._came.update(each.job.number for each in moment.jobs)
        snapshot = self._snapshot(moment)
        outcome = self._mechanism.clear(snapshot)
        self._price_micros, self._memory = outcome.price_micros, outcome.memory
        self._escrows = outcome.escrows
        self._leases = _leases(snapshot, outcome)
        return [int(agent) for agent in self._leases]

    def _snapshot(self, moment: Moment) -> Snapshot:
        now_ms, term_ms = _ms(moment.now_s), _ms(moment.round_s * self._lease_rounds)
        prices, facts = self._prices(moment, now_ms, term_ms)
        leases, bids = [], []
        for training in moment.jobs:
            agent = str(training.job.number)
            if (lease := self._leases.get(agent)) is None:
                bids.append(_bid(training, prices[agent], term_ms))
            elif lease.end_ms > now_ms + _ms(moment.round_s) // 2:
                leases.append(lease)
            else:
                leases.append(replace(lease, end_ms=now_ms, max_price_micros=prices[agent]))
        return Snapshot(
            now_ms,
            Rules(reserve_micros=0, epsilon_percent=0, quantum_ms=0, notice_ms=0, tick_ms=0),
            _devices(moment.gpus),
            tuple(leases),
            tuple(bids),
            self._price_micros,
            explain=frozenset(),
            agents=facts,
            memory=self._memory,
            escrows=self._escrows,
        )

    def _prices(
        self, moment: Moment, now_ms: int, term_ms: int
    ) -> tuple[dict[str, int], Mapping[str, AgentFacts]]:
        """What each agent would pay now, and what mechanisms that go by finish times may know of it."""
        estimates = {str(each.job.number): self._claim(each) for each in moment.jobs}
        contention = max(1.0, len(self._came) / moment.gpus)
        work_s = sum(estimates[str(each.job.number)].left_s * each.job.gpus for each in moment.jobs)
        drained_s = moment.now_s + _DRAIN * work_s / moment.gpus
        prices, told = {}, {}
        for training in moment.jobs:
            job, agent = training.job, str(training.job.number)
            fair_s = estimates[agent].alone_s * contention
            facts = Facts(
                now_ms=now_ms,
                value_micros=VALUE_MICROS,
                milli=1_000 * job.gpus,
                term_ms=term_ms,
                available_micros=_FUNDS_MICROS,
                posted_micros=self._price_micros,
                job_class="batch",
                submitted_ms=_ms(job.arrival_s),
                deadline_ms=_ms(min(job.arrival_s + fair_s, drained_s)),
                work_ms=_ms(estimates[agent].left_s),
            )
            prices[agent] = self._strategy.price(facts)
            told[agent] = AgentFacts(
                started_ms=facts.submitted_ms,
                work_milli_ms=facts.work_ms * facts.milli,
                ideal_ms=_ms(fair_s),
            )
        return prices, told

    def _claim(self, training: Training) -> Estimate:
        truth, times = self._estimate(training), self._claims.get(training.job.number, 1.0)
        return Estimate(truth.left_s * times, truth.alone_s * times)


def _leases(snapshot: Snapshot, outcome: Outcome) -> dict[str, Lease]:
    """What is leased then: leases that are not renewed end with their term, which is now."""
    leases = {lease.id: lease for lease in snapshot.leases}
    for renewal in outcome.renewals:
        leases[renewal.lease] = replace(
            leases[renewal.lease], price_micros=renewal.price_micros, end_ms=renewal.end_ms
        )
    for displacement in outcome.displacements:
        del leases[displacement.lease]
    bids = {bid.id: bid for bid in snapshot.bids}
    for award in outcome.awards:
        bid = bids[award.bid]
        # What drains for it ends with its term, which is now.
        leases[bid.id] = replace(award.lease(bid.id, bid, snapshot.now_ms), state="active")
    return leases


def _bid(training: Training, price_micros: int, term_ms: int) -> Bid:
    name = str(training.job.number)
    package = Package(training.job.gpus, 1_000, 0, term_ms, price_micros)
    return Bid(name, name, "batch", (package,), 0, _ms(training.job.arrival_s), _FUNDS_MICROS)


def _devices(gpus: int) -> tuple[Device, ...]:
    return tuple(
        Device(
            f"gpu-{at:04}", f"node-{at // _GPUS_PER_NODE:04}", "V100", at % _GPUS_PER_NODE, _GPU_MEMORY_MIB
        )
        for at in range(gpus)
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)
