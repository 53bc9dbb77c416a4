"""The study of training jobs in rounds: a trace of Gavel or Shockwave under their policies and a market."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final

from walras.core.errors import Invalid, NotFound
from walras.market.auction import Auction
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.strategies.fixed import Fixed
from walras.market.strategies.slack import Slack
from walras.sim.rounds.cluster import Played, Scheduler, play, unheard
from walras.sim.rounds.gavel import Allocation, GavelRounds
from walras.sim.rounds.market import Market
from walras.sim.rounds.policies import (
    AlloX,
    Fifo,
    GandivaFair,
    MaxMinFairness,
    MaxSumThroughput,
    Ossp,
    ShortestFirst,
    Themis,
)
from walras.sim.rounds.training import Training
from walras.sim.study import Progress, Result, Series
from walras.sim.traces.gavel import Throughputs, TraceJob, read_throughputs, read_trace

UNFAIR_RHO: Final = 1.05
"""From where on Shockwave counts a job as treated unfairly: 5% are left to noise."""

# From so many rounds on a note says how many; and so many of a market are cleared in a minute, about.
MANY_ROUNDS: Final = 10_000
ROUNDS_A_MINUTE: Final = 7_500
# In tens of thousands of rounds the compiled engine is worth its loading sooner.
ENGINE_FROM: Final = 4_000

PROMPT: Final = "+prompt"
"""Behind the name of one of Gavel's policies: asked at every change, not only every 1000 s."""

_ALLOCATIONS: Final[Mapping[str, Callable[[], Allocation]]] = {
    "themis": Themis,
    "gavel": MaxMinFairness,
    "allox": AlloX,
    "gandiva-fair": GandivaFair,
    "ossp": Ossp,
    "mst": MaxSumThroughput,
    "fifo": Fifo,
}
_SCHEDULERS: Final[Mapping[str, Callable[[], Scheduler]]] = {
    "market": lambda: Market(Auction(ENGINE_FROM), Slack()),
    "market-planned": lambda: Market(Auction(ENGINE_FROM), Slack(), planned=True),
    "finishtime": lambda: Market(MECHANISMS["finishtime"], Fixed()),
    "shortest-first": ShortestFirst,
}


@dataclass(frozen=True, slots=True)
class GavelStudy:
    """A trace that is ready to be played on a cluster of equal GPUs of the type `worker`."""

    jobs: tuple[TraceJob, ...]
    throughputs: Throughputs
    gpus: int
    round_s: float
    worker: str
    notes: tuple[str, ...] = ()

    @property
    def policies(self) -> Sequence[str]:
        """The market, those that Shockwave is compared with, and others; Gavel's also with "+prompt"."""
        return ("market", *_ALLOCATIONS, *(name for name in _SCHEDULERS if name != "market"))

    def run(self, policy: str, *, seed: int = 0, load: float = 1.0, progress: Progress = unheard) -> Result:
        """Play the trace once. Raises NotFound for an unknown policy, Invalid for a job that is too large.

        load: how many times as fast jobs come as in the trace. seed: 0 plays it as it is; any other one
        delays each arrival by up to a round, to show how much of a result is chance.
        """
        scheduler = _scheduler(policy)
        if load <= 0:
            raise Invalid(f"load {load:g} is not above 0; 1 is the trace as it is")
        jobs = _moved(self.jobs, seed, load, self.round_s)
        trainings = [Training(job, self.throughputs, self.worker) for job in jobs]
        played = play(trainings, scheduler, gpus=self.gpus, round_s=self.round_s, progress=progress)
        return Result(_metrics(played, self.gpus), _series(played, self.gpus))


def gavel_study(
    trace_file: Path,
    throughputs_file: Path,
    gpus: int = 32,
    *,
    round_s: float = 120.0,
    worker: str = "v100",
) -> GavelStudy:
    """Read a trace and its throughputs. Raises NotFound or Invalid, with file and line.

    worker: the type of all GPUs, as the table of throughputs names it. Jobs of which the table has no
    throughput are left out, and the study's notes say so; with none left NotFound is raised.
    """
    trace = tuple(read_trace(trace_file))
    if not trace:
        raise Invalid(f"{trace_file}: has no jobs")
    if gpus < 1 or round_s <= 0:
        raise Invalid(f"{gpus} GPUs in rounds of {round_s:g} s: both must be above 0")
    throughputs = read_throughputs(throughputs_file)
    jobs: list[TraceJob] = []
    unknown: list[str] = []
    for job in trace:
        try:
            Training(job, throughputs, worker)
        except NotFound as fault:
            unknown.append(f"{trace_file}:{job.number + 1}: {fault.message}")
        else:
            jobs.append(job)
    if not jobs:
        raise NotFound(unknown[0])
    work_s = sum(Training(job, throughputs, worker).alone_s * job.gpus for job in jobs)
    rounds = int(max(jobs[-1].arrival_s, work_s / gpus) / round_s)
    return GavelStudy(tuple(jobs), throughputs, gpus, round_s, worker, _notes(unknown, len(jobs), rounds))


def _notes(unknown: Sequence[str], known: int, rounds: int) -> tuple[str, ...]:
    notes = []
    if unknown:
        count = len(unknown) + known
        notes.append(
            f"{len(unknown)} of {count} jobs are left out: no throughput is known, as of {unknown[0]}"
        )
    if rounds >= MANY_ROUNDS:
        notes.append(
            f"{known} jobs in {rounds:,} rounds and more; a market, which clears each of them anew, takes "
            f"some {1 + rounds // ROUNDS_A_MINUTE} minutes"
        )
    return tuple(notes)


def _scheduler(policy: str) -> Scheduler:
    if policy in _SCHEDULERS:
        return _SCHEDULERS[policy]()
    name = policy.removesuffix(PROMPT)
    if name not in _ALLOCATIONS:
        known = ", ".join([*_SCHEDULERS, *_ALLOCATIONS])
        raise NotFound(f'no policy "{policy}"; there are {known}, and those of Gavel with "{PROMPT}"')
    allocation = _ALLOCATIONS[name]()
    return GavelRounds(allocation, reset_s=0.0) if policy != name else GavelRounds(allocation)


def _moved(jobs: Sequence[TraceJob], seed: int, load: float, round_s: float) -> list[TraceJob]:
    random = Random(seed)  # noqa: S311 (repeatable, not secret)
    moved = [
        replace(job, arrival_s=job.arrival_s / load + (random.uniform(0, round_s) if seed else 0.0))
        for job in jobs
    ]
    return sorted(moved, key=lambda job: (job.arrival_s, job.number))


def _metrics(played: Played, gpus: int) -> dict[str, float]:
    rho = played.rho.values()
    return {
        "makespan_s": played.makespan_s,
        "jct_mean_s": fmean(played.jct_s.values()),
        "rho_worst": max(rho),
        "unfair_pct": 100 * sum(each > UNFAIR_RHO for each in rho) / len(rho),
        "above_one_pct": 100 * sum(each > 1 for each in rho) / len(rho),
        "utilisation": sum(work_s for *_, work_s in played.busy) / (gpus * played.makespan_s),
        "restarts": float(played.restarts),
    }


def _series(played: Played, gpus: int) -> dict[str, Series]:
    times = [begin_s for begin_s, *_ in played.busy]
    used = [work_s / (gpus * (end_s - begin_s)) for begin_s, end_s, work_s in played.busy]
    return {
        "jct": _sorted("Time from arrival to end, sorted", "jct_s", played.jct_s.values(), "s"),
        "rho": _sorted("Finish-time fairness, sorted", "rho", played.rho.values(), ""),
        "utilisation": Series(
            "GPUs at work over time", {"time_s": times, "utilisation": used}, "s", "part of all GPUs"
        ),
    }


def _sorted(title: str, name: str, values: Iterable[float], unit: str) -> Series:
    ordered = sorted(values)
    share = [100 * (at + 1) / len(ordered) for at in range(len(ordered))]
    return Series(title, {"jobs_pct": share, name: ordered}, "% of the jobs", unit)
