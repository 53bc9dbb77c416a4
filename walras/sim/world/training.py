"""A job in its run: what it bids for, how far it is, and what it loses with a lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from walras.core.money import charge
from walras.sim.world.bidding import Ask, Floor
from walras.sim.world.leases import Holding
from walras.sim.world.workload import Job


class JobRun:
    """One job. Work is counted in milli-GPU ms of the reference; `useful` is what was done and not lost.

    stretches: of each lease that is over, since when it worked, what it did and kept, how much in a ms, and
    on how many milli-GPU of which models where devices are unlike.

    over: called once, when it is done or given up.
    """

    __slots__ = (
        *("job", "left_milli_ms", "holding", "first_ms", "done_ms", "lost_milli_ms", "evictions", "given_up"),
        *("stretches", "_floor", "_over", "_since_ms", "_rate_milli"),
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
        self.stretches: list[tuple[int, int, int, tuple[tuple[str, int], ...]]] = []
        self._since_ms = self._rate_milli = 0

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
        packages, speeds = self._floor.fleet.offers(job)
        work_ms = self.left_milli_ms // (job.gpus * job.milli)
        start_ms = self._floor.start_ms
        ask = Ask(
            agent=job.agent,
            packages=packages,
            value_micros=job.value_micros,
            work_ms=work_ms,
            submitted_ms=start_ms + job.arrival_ms,
            deadline_ms=None if job.deadline_ms is None else start_ms + job.deadline_ms,
            job_class=job.job_class,
            restart_cost_micros=self.restart_cost_micros,
            priority=job.priority,
            speeds=speeds,
        )
        self._floor.bid(ask, self)

    def started(self, holding: Holding, now_ms: int) -> None:
        resumes = self.first_ms is not None
        self.holding = holding
        self.first_ms = now_ms if self.first_ms is None else self.first_ms
        self._since_ms = now_ms + (self.job.restart_ms if resumes else 0)
        rate = self._floor.fleet.rate_milli(self.job, holding.lease.shares, holding.milli)
        self._rate_milli = rate
        self._floor.finish_at(self._since_ms - (-self.left_milli_ms // rate), self)

    def warned(self, holding: Holding, now_ms: int) -> None:
        """It works on: what it loses is settled at the end."""

    def ended(self, holding: Holding, now_ms: int) -> None:
        """Count what was done; bid again when that is not all."""
        rate, ran_ms = self._rate_milli, max(0, now_ms - self._since_ms)
        running, self.holding = self.holding is holding, None
        if running:
            done = min(self.left_milli_ms, ran_ms * rate)
            if done < self.left_milli_ms and self.job.checkpoint_ms:
                lost = ran_ms % self.job.checkpoint_ms * rate
                self.lost_milli_ms += lost
                done -= lost
            self.left_milli_ms -= done
            fleet = self._floor.fleet
            parts = () if fleet.alike else fleet.parts(holding.lease.shares)
            self.stretches.append((self._since_ms, done, rate, parts))
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
        return ran_ms * self._rate_milli >= self.left_milli_ms

    def useful_milli_ms(self, until_ms: int) -> int:
        """What was done by then, of work that was kept."""
        return sum(
            min(done, max(0, until_ms - since_ms) * rate) for since_ms, done, rate, _ in self.stretches
        )

    def kept_milli_ms(self, until_ms: int) -> Iterator[tuple[str, int]]:
        """By model, milli-GPU ms in which work was done by then that was kept; of devices that are unlike."""
        for since_ms, done, rate, parts in self.stretches:
            worked_ms = min(done // rate, max(0, until_ms - since_ms))
            yield from ((model, worked_ms * milli) for model, milli in parts)
