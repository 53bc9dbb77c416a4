"""The event loop: agents, jobs and requests over one pool, in whole milliseconds, from one seed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from walras.core.errors import Invalid
from walras.market.types import Device, Rules
from walras.sim.world.auditor import Auditor
from walras.sim.world.bank import Bank
from walras.sim.world.bidding import Ask, Bidding, Finishing
from walras.sim.world.fleet import ASKING, Fleet
from walras.sim.world.leases import Claim, Holding
from walras.sim.world.market import Market
from walras.sim.world.serving import CONTROL_MS, Service
from walras.sim.world.tally import Tally
from walras.sim.world.training import JobRun
from walras.sim.world.workload import Job, Workload

# The market's clock shows this when the run begins.
START_MS: Final = 1_700_000_000_000
PAY_MS: Final = 5_000  # or every tick, where those are longer

Event = Callable[[Any], None]


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """What a run is done with has no cycles: to look for some as often as Python does takes a tenth of its
    time."""
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], before[1], before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def devices(gpus: int, node_gpus: int = 8) -> tuple[Device, ...]:
    """Reference devices on nodes of so many."""
    return tuple(
        Device(f"gpu{number}", f"node{number // node_gpus}", "H100", number % node_gpus, 81_559)
        for number in range(gpus)
    )


class World:
    """One run. `step` handles the next event and returns its time, or None when nothing is left to do.
    `noted` is called after each, `arrived` with every job as it comes.

    `now_ms` is the true time from 0; the market's clock is that, `skew_ms` and START_MS, and never runs back.
    """

    def __init__(
        self,
        workload: Workload,
        mechanism: str,
        pool: tuple[Device, ...],
        *,
        rules: Rules | None = None,
        until_ms: int | None = None,
        rebates: bool = True,
        kept: bool | None = None,
        asking: str = ASKING[0],
    ) -> None:
        """kept: whether the compiled engine keeps the pool, if it can; None for large ones. asking: how jobs
        ask for devices that are unlike, one of `fleet.ASKING`.

        Raises Invalid for requests on devices that are not all alike.
        """
        self.workload, self.start_ms, self.now_ms, self.skew_ms = workload, START_MS, 0, 0
        self.until_ms = 2 * workload.span_ms if until_ms is None else until_ms
        self.events = 0
        self.pool_milli = sum(device.milli for device in pool)
        self.fleet = Fleet(pool, asking)
        if workload.streams and not self.fleet.alike:
            raise Invalid(
                "requests are played on devices of one model and speed 1000 alone; leave requests out"
            )
        self.noted: Callable[[], None] = lambda: None
        self.arrived: Callable[[JobRun], None] = lambda _: None
        self._at_ms = START_MS
        self._heap: list[tuple[int, int, Event, Any]] = []
        self._numbers = count()
        rules = rules or Rules()
        self.bank = Bank(workload.agents, START_MS, rebates=rebates)
        bidding = Bidding(self.bank, workload.agents, rules.reserve_micros)
        self.market = Market(mechanism, rules, pool, self.bank, bidding, kept=kept)
        self.market.at_drain = lambda when_ms: self.at(when_ms, self._drain, None)
        self.auditor = Auditor(self.market, self.bank)
        self.running: dict[JobRun, None] = {}
        self.tally = Tally(workload, self.pool_milli, self.fleet)
        self.services = self._services(len(pool))
        self._jobs: Iterator[Job] = iter(workload.jobs)
        self._next_job()
        for number, service in enumerate(self.services):
            # Not all at the same moment, nor at that of the tick.
            self.at(211 * (number + 1) % CONTROL_MS, self._control, service)
        self.at(rules.tick_ms, self._tick, None)
        self.at(0, self._pay, None)

    @property
    def at_ms(self) -> int:
        """What the market's clock shows."""
        self._at_ms = max(self._at_ms, START_MS + self.now_ms + self.skew_ms)
        return self._at_ms

    def at(self, when_ms: int, event: Event, what: Any) -> None:
        """Call `event` with `what` at that time; events of one time in the order in which they were made."""
        heappush(self._heap, (when_ms, next(self._numbers), event, what))

    def run(self, progress: Callable[[float], None] = lambda _: None) -> None:
        """All events up to the end: when all is done after the arrivals are over, or at `until_ms`."""
        shown = 0
        with _seldom_collected():
            while (at_ms := self.step()) is not None:
                if at_ms * 100 // self.until_ms > shown:
                    shown = at_ms * 100 // self.until_ms
                    progress(shown / 100)
        self.auditor.close()
        progress(1.0)

    def step(self) -> int | None:
        """Handle the next event and have it audited; its time, or None when the run is over."""
        when_ms, _, event, what = self._heap[0]
        over = when_ms >= self.workload.span_ms and not self._waiting()
        if when_ms > self.until_ms or over:
            return None
        heappop(self._heap)
        self.now_ms = when_ms
        self.events += 1
        event(what)
        if self.market.leases.freed:
            self.market.turn_over(self.now_ms, self.at_ms)
        self.auditor.check(event.__name__, self.now_ms)
        self.noted()
        return when_ms

    # What work asks of it

    def bid(self, ask: Ask, claim: Claim) -> None:
        self.market.bid(ask, claim, self.now_ms, self.at_ms)

    def withdraw(self, claim: Claim) -> None:
        self.market.withdraw(claim, self.now_ms, self.at_ms)

    def give_back(self, holding: Holding) -> None:
        self.market.leases.end(holding, self.now_ms, self.at_ms)

    def finish_at(self, at_ms: int, claim: Finishing) -> None:
        self.at(max(at_ms, self.now_ms), self._finish, claim)

    def set_devices(self, there: tuple[Device, ...]) -> None:
        """The pool has these from now on."""
        self.market.set_devices(there, self.now_ms, self.at_ms)

    # Events

    def _services(self, gpus: int) -> list[Service]:
        agents = {agent.name: agent for agent in self.workload.agents}
        return [
            Service(stream, agents[stream.agent], self, gpus * 1000 // stream.milli)
            for stream in self.workload.streams
        ]

    def _waiting(self) -> bool:
        return bool(self.running) or any(service.queue.waits(self.now_ms) for service in self.services)

    def _over(self, run: JobRun) -> None:
        del self.running[run]
        self.tally.over(run)

    def _next_job(self) -> None:
        job = next(self._jobs, None)
        if job is not None:
            self.at(job.arrival_ms, self._arrive, job)

    def _arrive(self, job: Job) -> None:
        run = JobRun(job, self, self._over)
        self.running[run] = None
        self.tally.came(job)
        self.arrived(run)
        run.want(self.now_ms)
        if job.deadline_ms is not None:
            self.at(job.deadline_ms, self._expire, run)
        self._next_job()

    def _expire(self, run: JobRun) -> None:
        run.expire()

    def _finish(self, run: Finishing) -> None:
        if run.holding is not None and run.is_done(self.now_ms):
            self.market.leases.end(run.holding, self.now_ms, self.at_ms)

    def _control(self, service: Service) -> None:
        service.control(self.now_ms)
        self.at(self.now_ms + CONTROL_MS, self._control, service)

    def _drain(self, _: None) -> None:
        self.market.turn_over(self.now_ms, self.at_ms)

    def _tick(self, _: None) -> None:
        self.market.tick(self.now_ms, self.at_ms)
        self.at(self.now_ms + self.market.rules.tick_ms, self._tick, None)

    def _pay(self, _: None) -> None:
        self.bank.pay(self.at_ms)
        self.market.funds_changed()
        self.at(self.now_ms + max(PAY_MS, self.market.rules.tick_ms), self._pay, None)
