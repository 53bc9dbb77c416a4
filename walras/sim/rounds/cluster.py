"""The cluster in rounds, as Shockwave simulates it: who runs is decided anew when a round is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from walras.core.errors import Invalid
from walras.sim.rounds.training import Training
from walras.sim.study import Progress

RESTART_S: Final = 20.0
"""What a job that did not run in the round before loses to its checkpoint."""

# Rounds that are shorter by more than this are a job's last, and are not charged for a restart.
_SHORT_S: Final = 5.0
# So many rounds in a row without work mean that a scheduler never gives any.
_IDLE_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Moment:
    """A round is about to begin. jobs: all that have come and are not done, in the order of arrival."""

    now_s: float
    gpus: int
    round_s: float
    jobs: Sequence[Training]


def unheard(done: float) -> None:
    """Progress that nobody waits for."""


class Scheduler(Protocol):
    """Decides round after round of one run; it may remember."""

    def choose(self, moment: Moment) -> Sequence[int]:
        """The numbers of the jobs that run in this round, on no more GPUs than there are."""


@dataclass(slots=True)
class Played:
    """What became of a trace.

    jct_s, rho: by job number. busy: begin, end and GPU-seconds of work of each round. rho is finish-time
    fairness as Shockwave reports it: the time from arrival to end over what the job takes alone times the
    contention, which is the jobs of the trace over the GPUs, at least 1.
    """

    jct_s: dict[int, float] = field(default_factory=dict)
    rho: dict[int, float] = field(default_factory=dict)
    busy: list[tuple[float, float, float]] = field(default_factory=list)
    makespan_s: float = 0.0
    restarts: int = 0


def play(
    jobs: Sequence[Training],
    scheduler: Scheduler,
    *,
    gpus: int,
    round_s: float = 120.0,
    progress: Progress = unheard,
) -> Played:
    """Run all jobs, in order of arrival, to their end. Raises Invalid for one larger than the cluster."""
    for each in jobs:
        if each.job.gpus > gpus:
            raise Invalid(f"job {each.job.number} wants {each.job.gpus} GPUs; the cluster has {gpus}")
    cluster = _Cluster(max(1.0, len(jobs) / gpus), round_s)
    coming, idle = list(reversed(jobs)), 0
    while coming or cluster.here:
        while coming and coming[-1].job.arrival_s <= cluster.now_s:
            arrived = coming.pop()
            cluster.here[arrived.job.number] = arrived
        if not cluster.here:
            cluster.now_s = coming[-1].job.arrival_s
            continue
        chosen = scheduler.choose(Moment(cluster.now_s, gpus, round_s, tuple(cluster.here.values())))
        assert sum(cluster.here[number].job.gpus for number in chosen) <= gpus, "more GPUs than there are"
        idle = 0 if chosen else idle + 1
        assert idle < _IDLE_ROUNDS, "a scheduler leaves jobs waiting for ever"
        cluster.run(chosen)
        progress(len(cluster.played.jct_s) / len(jobs))
    cluster.played.makespan_s = cluster.now_s
    return cluster.played


class _Cluster:
    def __init__(self, contention: float, round_s: float) -> None:
        self.here: dict[int, Training] = {}
        self.now_s = 0.0
        self.played = Played()
        self._contention, self._round_s = contention, round_s
        self._ran: frozenset[int] = frozenset()

    def run(self, chosen: Sequence[int]) -> None:
        """One round, until the last of those chosen is done with it."""
        running = [self.here[number] for number in chosen]
        ends_s = [self.now_s + self._steps(each) / each.steps_per_s for each in running]
        work_s = sum(
            self._train(each, end_s) * each.job.gpus for each, end_s in zip(running, ends_s, strict=True)
        )
        for each in self.here.values():
            each.look()
        end_s = max(ends_s, default=self.now_s + self._round_s)
        self.played.busy.append((self.now_s, end_s, work_s))
        self._ran, self.now_s = frozenset(chosen), end_s

    def _steps(self, training: Training) -> int:
        """What it can do in a round: whole steps, as far as there are any left."""
        return min(int(training.steps_per_s * self._round_s), training.left_steps)

    def _train(self, training: Training, end_s: float) -> float:
        """A job's part of a round, which ends then: for how long it trains."""
        number, steps, seconds = training.job.number, self._steps(training), end_s - self.now_s
        if self.played.busy and number not in self._ran:
            self.played.restarts += 1
            if seconds > self._round_s - _SHORT_S:
                steps, seconds = int(steps * ((seconds - RESTART_S) / seconds)), seconds - RESTART_S
        if training.train(steps, seconds):
            del self.here[number]
            jct_s = end_s - training.job.arrival_s
            self.played.jct_s[number] = jct_s
            self.played.rho[number] = round(jct_s / (training.alone_s * self._contention), 5)
        return seconds
