"""A job in its run: what it bids for, how far it is, and what it loses with a lease."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from walras.core.money import charge
from walras.market.types import Package
from walras.sim.world.bidding import Ask, Floor
from walras.sim.world.leases import Holding
from walras.sim.world.workload import Job


class JobRun:
    """One job. Work is counted in milli-GPU ms; `useful` is what was done and not lost.

    over: called once, when it is done or given up.
    """

    __slots__ = (
        *("job", "left_milli_ms", "holding", "first_ms", "done_ms", "lost_milli_ms", "evictions", "given_up"),
        *("stretches", "_floor", "_over", "_since_ms"),
    )

    def __init__(self, job: Job, floor: Floor, over: Callable[[JobRun], None]) -> None:
        self.job = job
        self._floor, self._over = floor, over
        self.left_milli_ms = job.work_ms * 1000
        self.holding: Holding | None = None
        self.first_ms: int | None = None
        self.done_ms: int | None = None
        self.lost_milli_ms = 0
        self.evictions = 0
        self.given_up = False
        self.stretches: list[tuple[int, int, int]] = []
        self._since_ms = 0

    @property
    def restart_cost_micros(self) -> int:
        """What the work is worth that it loses on average, with the time to begin again."""
        lost_ms = self.job.checkpoint_ms // 2 + self.job.restart_ms
        return charge(self.job.value_micros, self.job.gpus * self.job.milli, lost_ms)

    def want(self, now_ms: int) -> None:
        """Bid for a lease, or give up when it is too late."""
        job = self.job
        if job.deadline_ms is not None and now_ms >= job.deadline_ms:
            self._give_up()
            return
        fewest = job.gpus_min if job.gpus_min < job.gpus else 0
        work_ms = self.left_milli_ms // (job.gpus * job.milli)
        start_ms = self._floor.start_ms
        ask = Ask(
            agent=job.agent,
            package=_package(job.gpus, job.milli, job.term_ms, fewest),
            value_micros=job.value_micros,
            work_ms=work_ms,
            submitted_ms=start_ms + job.arrival_ms,
            deadline_ms=None if job.deadline_ms is None else start_ms + job.deadline_ms,
            job_class=job.job_class,
            restart_cost_micros=self.restart_cost_micros,
            priority=job.priority,
        )
        self._floor.bid(ask, self)

    def started(self, holding: Holding, now_ms: int) -> None:
        resumes = self.first_ms is not None
        self.holding = holding
        self.first_ms = now_ms if self.first_ms is None else self.first_ms
        self._since_ms = now_ms + (self.job.restart_ms if resumes else 0)
        self._floor.finish_at(self._since_ms - (-self.left_milli_ms // holding.milli), self)

    def warned(self, holding: Holding, now_ms: int) -> None:
        """It works on: what it loses is settled at the end."""

    def ended(self, holding: Holding, now_ms: int) -> None:
        """Count what was done; bid again when that is not all."""
        milli, ran_ms = holding.milli, max(0, now_ms - self._since_ms)
        running, self.holding = self.holding is holding, None
        if running:
            done = min(self.left_milli_ms, ran_ms * milli)
            if done < self.left_milli_ms and self.job.checkpoint_ms:
                lost = ran_ms % self.job.checkpoint_ms * milli
                self.lost_milli_ms += lost
                done -= lost
            self.left_milli_ms -= done
            self.stretches.append((self._since_ms, done, milli))
        if self.left_milli_ms == 0:
            self.done_ms = now_ms
            self._over(self)
        else:
            self.evictions += 1
            self.want(now_ms)

    def expire(self) -> None:
        """Its deadline has come: unless it runs, nobody needs it any more."""
        if self.done_ms is None and self.holding is None and not self.given_up:
            self._floor.withdraw(self)
            self._give_up()

    def _give_up(self) -> None:
        if not self.given_up:
            self.given_up = True
            self._over(self)

    def is_done(self, now_ms: int) -> bool:
        """Whether its present lease has done the rest by now."""
        if self.holding is None:
            return False
        ran_ms = now_ms - self._since_ms
        return ran_ms * self.holding.milli >= self.left_milli_ms

    def useful_milli_ms(self, until_ms: int) -> int:
        """What was done by then, of work that was kept."""
        return sum(min(done, max(0, until_ms - since_ms) * milli) for since_ms, done, milli in self.stretches)


@lru_cache(maxsize=256)
def _package(gpus: int, milli: int, term_ms: int, fewest: int) -> Package:
    """Many jobs ask for the same."""
    return Package(gpus, milli, 0, term_ms, 0, devices_min=fewest)
