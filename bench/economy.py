"""A simulated economy: jobs that are worth something to agents, wallets, pacing, one pool, many ticks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from walras.core.money import HOUR_MS, charge
from walras.market.auction import Auction
from walras.market.placement import startable
from walras.market.slow import Slow, step
from walras.market.strategies.deadline import Deadline
from walras.market.strategies.fixed import Fixed
from walras.market.strategies.pacing import Pacing
from walras.market.strategies.strategy import Facts, PacingState, Strategy
from walras.market.types import (
    Bid,
    Device,
    Escrow,
    JobClass,
    Lease,
    Outcome,
    Package,
    Payments,
    Rules,
    Snapshot,
)

CREDIT = 1_000_000
STRATEGIC = "strategic"
RICH = 10**12
TERM_MS = 60_000  # the product's own default
FIXED = Fixed()
DEADLINE = Deadline()
PACING = Pacing(horizon_ms=2 * HOUR_MS, cushion_ms=300_000)


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is worth `value_micros` an hour of a whole device while all its devices run.

    It wants `work_ms` in all, and is given up when it has waited for `patience_ms`.
    """

    id: str
    agent: str
    arrives_ms: int
    devices: int
    milli: int
    value_micros: int
    work_ms: int
    patience_ms: int
    restart_cost_micros: int
    job_class: JobClass

    def worth(self, elapsed_ms: int) -> int:
        """Micros that so much time on all its devices is worth."""
        return charge(self.value_micros, self.devices * self.milli, elapsed_ms)


@dataclass(frozen=True, slots=True)
class Conduct:
    """How an agent behaves; the default is honest. Percentages are of what is true.

    accounts: among how many agents it splits its wallet and jobs. waits_for_last: bids only when its patience
    ends. watches_percent: bids only while the posted price is at most so much of its value. quits: leaves a
    lease whose price is above its value. hoards: keeps leases that it needs no more to the end of their term,
    for its next jobs. singles: asks for a gang as single devices. claims_latency: says that all is urgent.
    """

    price_percent: int = 100
    term_percent: int = 100
    restart_percent: int = 100
    accounts: int = 1
    waits_for_last: bool = False
    watches_percent: int = 0
    quits: bool = False
    hoards: bool = False
    singles: bool = False
    claims_latency: bool = False


HONEST = Conduct()


@dataclass(frozen=True, slots=True)
class World:
    """What is given: devices, jobs in order of arrival, each agent's income an hour (None is rich), and the
    strategy by which the sealed proxy turns what agents say into bids."""

    devices: tuple[Device, ...]
    jobs: tuple[Job, ...]
    incomes: Mapping[str, int] | None
    ticks: int
    strategy: Strategy = FIXED


@dataclass(slots=True)
class Running:
    """A job on its way: how long it has been served, and since when it waits."""

    job: Job
    account: str
    waits_from_ms: int
    served_ms: int = 0


@dataclass(slots=True)
class Wallet:
    """Money that is free, what was spent, and how the agent paces itself."""

    free_micros: int
    spent_micros: int = 0
    seen_micros: int = 0
    pacing: PacingState = field(default_factory=PacingState)


@dataclass(slots=True)
class Held:
    """A lease and the job that uses it, None when it is hoarded; what is set aside for it; and the price that
    it is renewed at, with the time from which that is paid."""

    lease: Lease
    job: str | None
    aside_micros: int
    renewed: tuple[int, int] | None = None


class Economy:
    """One run. `gained_micros` is what the strategic agent's jobs were worth, less payments and restarts."""

    def __init__(self, world: World, payments: Payments, conduct: Conduct = HONEST) -> None:
        self.world, self.conduct = world, conduct
        self.rules = Rules(
            reserve_micros=100_000, quantum_ms=10_000, notice_ms=2_000, tick_ms=10_000, payments=payments
        )
        self.now_ms = 0
        self.price_micros = self.rules.reserve_micros
        self.gained_micros = 0
        self._auction = Auction()
        self._slow = Slow(self.price_micros, self.price_micros, 0)
        self._jobs = list(reversed(world.jobs))
        self._running: dict[str, Running] = {}
        self._bids: dict[str, Bid] = {}
        self._bid_job: dict[str, str] = {}
        self._held: dict[str, Held] = {}
        self._escrows: tuple[Escrow, ...] = ()
        self._wallets: dict[str, Wallet] = {}
        self._made = 0

    def run(self) -> int:
        for _ in range(self.world.ticks):
            self._tick()
        return self.gained_micros

    # One tick

    def _tick(self) -> None:
        self.now_ms += self.rules.tick_ms
        self._earn()
        self._serve()
        self._end_drained()
        self._start_reserved()
        self._give_up()
        while self._jobs and self._jobs[-1].arrives_ms <= self.now_ms:
            self._arrive(self._jobs.pop())
        self._rebid()
        snapshot = self._snapshot(self.price_micros)
        outcome = self._auction.clear(snapshot)
        self.price_micros, self._escrows = outcome.price_micros, outcome.escrows
        reserve = self.rules.reserve_micros
        self._slow = step(self._slow, snapshot, reserve_micros=reserve, reserve_max_micros=reserve)
        self._apply(outcome)

    def _earn(self) -> None:
        incomes = self.world.incomes
        for account, wallet in self._wallets.items():
            if incomes is not None:
                income = self._income(account)
                wallet.free_micros += income * self.rules.tick_ms // HOUR_MS
                balance = wallet.free_micros
                target = PACING.target(income, balance)
                spent, wallet.seen_micros = wallet.spent_micros - wallet.seen_micros, wallet.spent_micros
                wallet.pacing = PACING.observe(wallet.pacing, self.now_ms, max(0, spent), target)

    def _income(self, account: str) -> int:
        assert self.world.incomes is not None
        agent = account.split("#", maxsplit=1)[0]
        parts = self.conduct.accounts if agent == STRATEGIC else 1
        return self.world.incomes[agent] // parts

    def _wallet(self, account: str) -> Wallet:
        if account not in self._wallets:
            free = RICH if self.world.incomes is None else self._income(account) // 6
            self._wallets[account] = Wallet(free, pacing=PacingState(0, self.now_ms))
        return self._wallets[account]

    def _of(self, agent: str) -> Conduct:
        return self.conduct if agent == STRATEGIC else HONEST

    # Service

    def _serve(self) -> None:
        """Meter every lease for the tick that is over, and serve jobs all of whose devices ran."""
        devices: dict[str, int] = {}
        for held in self._held.values():
            lease = held.lease
            if lease.state == "reserved":
                continue
            if held.renewed is not None and self.now_ms > held.renewed[1]:
                held.lease = lease = replace(lease, price_micros=held.renewed[0])
            self._pay(held, charge(lease.price_micros, lease.total_milli, self.rules.tick_ms))
            if held.job is not None:
                devices[held.job] = devices.get(held.job, 0) + len(lease.shares)
        for job_id, count in devices.items():
            running = self._running[job_id]
            if count < running.job.devices:
                continue
            elapsed = min(self.rules.tick_ms, running.job.work_ms - running.served_ms)
            running.served_ms += elapsed
            if running.job.agent == STRATEGIC:
                self.gained_micros += running.job.worth(elapsed)
            if running.served_ms >= running.job.work_ms:
                self._finish(running)

    def _pay(self, held: Held, micros: int) -> None:
        wallet = self._wallets[held.lease.agent]
        from_aside = min(held.aside_micros, micros)
        held.aside_micros -= from_aside
        wallet.free_micros -= micros - from_aside
        wallet.spent_micros += micros
        if held.lease.agent.split("#")[0] == STRATEGIC:
            self.gained_micros -= micros

    def _finish(self, running: Running) -> None:
        """The job is over: its bids go, its leases too unless they are hoarded."""
        job = running.job
        del self._running[job.id]
        for bid_id in [bid_id for bid_id, of in self._bid_job.items() if of == job.id]:
            del self._bid_job[bid_id]
            self._bids.pop(bid_id, None)
        for held in [held for held in self._held.values() if held.job == job.id]:
            if self._of(job.agent).hoards and held.lease.state == "active":
                held.job = None
            else:
                self._release(held)

    def _release(self, held: Held) -> None:
        self._wallets[held.lease.agent].free_micros += held.aside_micros
        del self._held[held.lease.id]

    def _end_drained(self) -> None:
        for held in list(self._held.values()):
            drains_at_ms = held.lease.drains_at_ms
            idle = held.job is None and held.lease.end_ms <= self.now_ms
            if idle or (drains_at_ms is not None and drains_at_ms <= self.now_ms):
                self._release(held)
                if held.job is not None:
                    running = self._running[held.job]
                    running.waits_from_ms = self.now_ms

    def _start_reserved(self) -> None:
        leases = [held.lease for held in self._held.values()]
        for held in list(self._held.values()):
            if held.lease.state == "reserved" and startable(held.lease, leases, self.world.devices):
                end_ms = self.now_ms + held.lease.term_ms
                held.lease = replace(held.lease, state="active", start_ms=self.now_ms, end_ms=end_ms)
                leases = [each.lease for each in self._held.values()]

    def _give_up(self) -> None:
        """Jobs that have waited for too long go, with what they have of a gang."""
        for running in list(self._running.values()):
            has = sum(len(held.lease.shares) for held in self._held.values() if held.job == running.job.id)
            if has < running.job.devices and self.now_ms > running.waits_from_ms + running.job.patience_ms:
                self._finish(running)

    # Bids

    def _arrive(self, job: Job) -> None:
        self._made += 1
        parts = self._of(job.agent).accounts
        account = job.agent if parts == 1 else f"{job.agent}#{self._made % parts}"
        self._wallet(account)
        running = Running(job, account, self.now_ms)
        self._running[job.id] = running
        for held in self._held.values():  # a hoarded lease of the same shape is used at once
            lease = held.lease
            shape = (len(lease.shares), lease.shares[0].milli)
            if held.job is None and lease.agent == account and shape == (job.devices, job.milli):
                held.job = job.id
                return

    def _rebid(self) -> None:
        """Every job without all its devices bids, at what its agent says that it is worth by now."""
        for running in list(self._running.values()):
            job, conduct = running.job, self._of(running.job.agent)
            mine = [held for held in self._held.values() if held.job == job.id]
            if conduct.quits:
                for held in [each for each in mine if each.lease.price_micros > job.value_micros]:
                    self._release(held)
                    mine.remove(held)
            missing = job.devices - sum(len(held.lease.shares) for held in mine)
            wanted = missing if conduct.singles else (1 if missing else 0)
            names = [f"{job.id}/{number}" for number in range(wanted)]
            for bid_id in [bid_id for bid_id, of in self._bid_job.items() if of == job.id]:
                if bid_id not in names:
                    del self._bid_job[bid_id]
                    del self._bids[bid_id]
            for name in names:
                self._bid(name, running, conduct)

    def _bid(self, name: str, running: Running, conduct: Conduct) -> None:
        job = running.job
        last_ms = running.waits_from_ms + job.patience_ms - self.rules.tick_ms
        holds_back = conduct.waits_for_last and self.now_ms < last_ms
        if conduct.watches_percent:
            holds_back = self.price_micros * 100 > job.value_micros * conduct.watches_percent
        if holds_back:
            if name in self._bids:
                del self._bids[name], self._bid_job[name]
            return
        tick_ms = self.rules.tick_ms
        term_ms = max(tick_ms, TERM_MS * conduct.term_percent // 100 // tick_ms * tick_ms)
        price = self._price(running, conduct, term_ms)
        devices = 1 if conduct.singles else job.devices
        new = name not in self._bids
        self._bids[name] = Bid(
            id=name,
            agent=running.account,
            job_class="latency" if conduct.claims_latency else job.job_class,
            packages=(Package(devices, job.milli, 0, term_ms, price),),
            restart_cost_micros=job.restart_cost_micros * conduct.restart_percent // 100,
            submitted_ms=running.waits_from_ms,
            funds_micros=self._wallets[running.account].free_micros,
        )
        self._bid_job[name] = job.id
        if new and self._bids[name].job_class == "latency":
            self._apply(self._auction.express(self._snapshot(self._slow.posted_micros), name))

    def _price(self, running: Running, conduct: Conduct, term_ms: int) -> int:
        job = running.job
        wallet, work_ms = self._wallets[running.account], job.work_ms - running.served_ms
        facts = Facts(
            now_ms=self.now_ms,
            value_micros=job.value_micros * conduct.price_percent // 100,
            milli=job.devices * job.milli,
            term_ms=term_ms,
            available_micros=wallet.free_micros,
            posted_micros=self.price_micros,
            submitted_ms=running.waits_from_ms,
            deadline_ms=running.waits_from_ms + job.patience_ms + work_ms,
            work_ms=work_ms,
            pacing=wallet.pacing,
        )
        return max(min(job.value_micros, self.rules.reserve_micros), self.world.strategy.price(facts))

    # The market

    def _snapshot(self, price_micros: int) -> Snapshot:
        return Snapshot(
            now_ms=self.now_ms,
            rules=self.rules,
            devices=self.world.devices,
            leases=tuple(
                replace(held.lease, funds_micros=self._wallets[held.lease.agent].free_micros)
                for held in self._held.values()
                if held.job is not None or held.lease.state == "draining" or held.lease.end_ms > self.now_ms
            ),
            bids=tuple(
                replace(bid, funds_micros=self._wallets[bid.agent].free_micros) for bid in self._bids.values()
            ),
            price_micros=price_micros,
            explain=frozenset(),
            escrows=self._escrows,
        )

    def _apply(self, outcome: Outcome) -> None:
        for renewal in outcome.renewals:
            held = self._held[renewal.lease]
            if held.job is None:
                continue  # hoarded to the end of its term only
            lease = held.lease
            cost = charge(renewal.price_micros, lease.total_milli, lease.term_ms)
            self._set_aside(held, cost)
            held.renewed = (renewal.price_micros, renewal.end_ms - lease.term_ms)
            held.lease = replace(lease, end_ms=renewal.end_ms)
        for gone in outcome.displacements:
            held = self._held[gone.lease]
            held.lease = replace(held.lease, state="draining", drains_at_ms=gone.drains_at_ms)
            self._compensate(held, gone.by, gone.compensation_micros)
        for award in outcome.awards:
            bid = self._bids.pop(award.bid)
            job = self._bid_job.pop(award.bid)
            lease = award.lease(f"{bid.id}@{self.now_ms}", bid, self.now_ms)
            self._held[lease.id] = held = Held(lease, job, 0)
            self._set_aside(held, award.cost_micros)

    def _set_aside(self, held: Held, micros: int) -> None:
        wallet = self._wallets[held.lease.agent]
        assert micros <= wallet.free_micros, "nobody promises more than it has"
        wallet.free_micros -= micros
        held.aside_micros += micros

    def _compensate(self, held: Held, by: str | None, micros: int) -> None:
        """Who is displaced pays for its restart and gets what the displacing bid pays for it."""
        loser = held.lease.agent
        if by is None:
            return
        payer = self._bids[by].agent if by in self._bids else loser
        if loser.split("#")[0] == STRATEGIC and held.job is not None:
            self.gained_micros -= self._running[held.job].job.restart_cost_micros
        if payer == loser:
            return
        self._wallets[payer].free_micros -= micros
        self._wallets[payer].spent_micros += micros
        self._wallets[loser].free_micros += micros
        for agent, sign in ((payer, -1), (loser, 1)):
            if agent.split("#")[0] == STRATEGIC:
                self.gained_micros += sign * micros


MakeWorld = Callable[[int], World]


def _jobs(chance: random.Random, ticks: int, load: float, agents: list[str], **fixed: int) -> list[Job]:
    """Poisson arrivals for so many times what four devices can serve; a tenth is the strategic agent's."""
    found: list[Job] = []
    at_ms = 0.0
    while at_ms < ticks * 10_000:
        milli = chance.choice((250, 250, 500, 500, 1000))
        devices = chance.choice((1, 1, 1, 2)) if milli == 1000 else 1
        work_ms = chance.choice((60_000, 60_000, 120_000, 240_000))
        at_ms += chance.expovariate(load * 4_000 / (570 * 1.1 * 120_000))
        value = round(chance.lognormvariate(14.2, 0.6))
        agent = STRATEGIC if chance.random() < 0.1 else chance.choice(agents)
        found.append(
            Job(
                id=f"j{len(found):05}",
                agent=agent,
                arrives_ms=round(at_ms),
                devices=devices,
                milli=milli,
                value_micros=value,
                work_ms=work_ms,
                patience_ms=fixed["patience_ms"],
                restart_cost_micros=charge(value, milli * devices, 10_000),
                job_class=chance.choice(("latency", "standard", "batch", "batch")),
            )
        )
    return found


def _devices() -> tuple[Device, ...]:
    return tuple(Device(f"d{i}", "n", "m", i, 80_000) for i in range(4))


def once(seed: int, ticks: int = 120) -> World:
    """Single-minded agents of one job each, which they want now or never; money is no object."""
    chance = random.Random(seed)
    jobs = _jobs(chance, ticks, 1.4, ["other"], patience_ms=0)
    jobs = [job if job.agent == STRATEGIC else replace(job, agent=f"a-{job.id}") for job in jobs]
    return World(_devices(), tuple(jobs), None, ticks)


def patient(seed: int, ticks: int = 120) -> World:
    """The same, but they wait for two minutes."""
    jobs = [replace(job, patience_ms=120_000) for job in once(seed, ticks).jobs]
    return World(_devices(), tuple(jobs), None, ticks)


def timed(seed: int, ticks: int = 120) -> World:
    """Patient agents whose proxy knows when they must have begun, and bids low until then."""
    return replace(patient(seed, ticks), strategy=DEADLINE)


def paced(seed: int, ticks: int = 120) -> World:
    """Ten agents with incomes that bound what they can have; they pace their bids, and wait for a minute."""
    chance = random.Random(seed)
    agents = [f"a{i}" for i in range(9)]
    jobs = _jobs(chance, ticks, 1.4, agents, patience_ms=60_000)
    incomes = {agent: round(chance.uniform(0.5, 1.5) * 4 * CREDIT / 10) for agent in [*agents, STRATEGIC]}
    incomes[STRATEGIC] = 4 * CREDIT // 10
    return World(_devices(), tuple(jobs), incomes, ticks, PACING)
