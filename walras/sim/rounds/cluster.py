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
    """A round is about to begin. jobs: all that have come and are not done, in the order of arrival.

    ran_last: the numbers of those that ran in the round before.
    """

    now_s: float
    gpus: int
    round_s: float
    jobs: Sequence[Training]
    ran_last: frozenset[int]


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
            raise Invalid(
                f"job {each.job.number} wants {each.job.gpus} GPUs of {gpus}; take a larger cluster"
            )
    contention = max(1.0, len(jobs) / gpus)
    coming, here = list(reversed(jobs)), dict[int, Training]()
    played, ran, now_s, idle = Played(), frozenset[int](), 0.0, 0
    while coming or here:
        while coming and coming[-1].job.arrival_s <= now_s:
            arrived = coming.pop()
            here[arrived.job.number] = arrived
        if not here:
            now_s = coming[-1].job.arrival_s
            continue
        chosen = scheduler.choose(Moment(now_s, gpus, round_s, tuple(here.values()), ran))
        running = [here[number] for number in chosen]
        assert sum(each.job.gpus for each in running) <= gpus, "a scheduler promised more GPUs than there are"
        idle = 0 if running else idle + 1
        assert idle < _IDLE_ROUNDS, "a scheduler leaves jobs waiting for ever"
        end_s = max((_end_s(each, now_s, round_s) for each in running), default=now_s + round_s)
        work_s = 0.0
        for training in running:
            finish_s = _end_s(training, now_s, round_s)
            restarts = bool(played.busy) and training.job.number not in ran
            played.restarts += restarts
            worked_s, over = _run(training, finish_s - now_s, round_s, restarts=restarts)
            work_s += worked_s * training.job.gpus
            if over:
                del here[training.job.number]
                jct_s = finish_s - training.job.arrival_s
                played.jct_s[training.job.number] = jct_s
                played.rho[training.job.number] = round(jct_s / (training.alone_s * contention), 5)
        for training in here.values():
            training.look()
        played.busy.append((now_s, end_s, work_s))
        ran, now_s = frozenset(chosen), end_s
        progress(len(played.jct_s) / len(jobs))
    played.makespan_s = now_s
    return played


def _end_s(training: Training, now_s: float, round_s: float) -> float:
    """When it is done with this round: with its last step, or the last whole one that is in the round."""
    return now_s + _steps(training, round_s) / training.steps_per_s


def _steps(training: Training, round_s: float) -> int:
    return min(int(training.steps_per_s * round_s), training.left_steps)


def _run(training: Training, seconds: float, round_s: float, *, restarts: bool) -> tuple[float, bool]:
    """One round of a job: for how long it trained, and whether it is done."""
    steps = _steps(training, round_s)
    if restarts and seconds > round_s - _SHORT_S:
        steps, seconds = int(steps * ((seconds - RESTART_S) / seconds)), seconds - RESTART_S
    return seconds, training.train(steps, seconds)
