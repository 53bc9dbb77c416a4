"""Gavel's traces as jobs for a pool of several models: how fast each is on which, by its table.

Work is in time of REFERENCE. A job's speed on another model is its steps a second there over those on that,
on as many devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.core.errors import Invalid, NotFound
from walras.sim.traces.gavel import Throughputs, TraceJob, read_trace
from walras.sim.traces.source import Source
from walras.sim.world.jobs import Jobs
from walras.sim.world.workload import Job

REFERENCE: Final = "V100"
# Models of a pool as the table names them.
WORKERS: Final[Mapping[str, str]] = {"V100": "v100", "P100": "p100", "K80": "k80"}
# A job that begins again loses so much to its checkpoint, as in Gavel's and Shockwave's simulations; it saves
# on notice.
RESTART_MS: Final = 20_000
TERM_MS: Final = 3_600_000
UNIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Measured:
    """A trace on a pool. speeds: of all its work by model, to be those of the pool; left_out: how many of
    its jobs no model of the pool has room and a rate for."""

    source: Source
    speeds: Mapping[str, int]
    left_out: int


def measured(
    traces: Mapping[str, Path],
    rates: Throughputs,
    models: Mapping[str, int],
    agent_of: Callable[[str, TraceJob], str] = lambda _, job: job.model,
    longest_ms: int | None = None,
) -> Measured:
    """The jobs of these traces together, by arrival.

    agent_of: whose a job is, by its trace's name and itself. longest_ms: what takes longer alone on the
    reference is left out too.

    Raises NotFound for a trace that is not there or of which nothing can be played, Invalid for a trace that
    is none, or a model that was not measured.
    """
    if unknown := [model for model in models if model not in WORKERS]:
        raise Invalid(
            f"the table has no {', '.join(unknown)}; a pool for it has some of {', '.join(WORKERS)}"
        )
    found, count = Jobs(), 0
    for name, path in traces.items():
        for job in read_trace(path):
            count += 1
            made = _job(name, job, rates, models, agent_of(name, job))
            if made is not None and (longest_ms is None or made.work_ms // made.gpus <= longest_ms):
                found.add(made)
    if not found:
        raise NotFound(f"no job of {', '.join(map(str, traces.values()))} can be played on this pool")
    jobs = found.in_order()
    source = Source(jobs[-1].arrival_ms + 1, jobs, relative=False)
    return Measured(source, _speeds(jobs, models), count - len(jobs))


def _job(trace: str, job: TraceJob, rates: Throughputs, models: Mapping[str, int], agent: str) -> Job | None:
    speeds = tuple(_rates(job, rates, models))
    if not speeds:
        return None
    alone_ms = max(1, round(1000 * job.steps / _rate(job, rates, REFERENCE)))
    return Job(
        name=f"{trace}-{job.number}",
        agent=agent,
        arrival_ms=round(1000 * job.arrival_s),
        work_ms=alone_ms * job.gpus,
        gpus=job.gpus,
        restart_ms=RESTART_MS,
        term_ms=TERM_MS,
        speeds=speeds,
    )


def _rates(job: TraceJob, rates: Throughputs, models: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """By model that has room for it, how fast it is there; of none where the reference was not measured."""
    if not (whole := _rate(job, rates, REFERENCE)):
        return
    for model, count in models.items():
        rate = _rate(job, rates, model)
        if rate and count >= job.gpus:
            yield model, max(1, round(UNIT * rate / whole))


def _rate(job: TraceJob, rates: Throughputs, model: str) -> float:
    """Steps a second, 0 where it was not measured or does not run."""
    kind = (WORKERS[model], job.model, job.batch_size, job.gpus)
    return rates.steps_per_s(*kind) if rates.has(*kind) else 0.0


def _speeds(jobs: Jobs, models: Mapping[str, int]) -> dict[str, int]:
    """How much faster than the reference each model is over all work that it can do."""
    done_ms, took_ms = dict.fromkeys(models, 0), dict.fromkeys(models, 0)
    for job in jobs:
        for model, speed in job.speeds:
            done_ms[model] += job.work_ms
            took_ms[model] += job.work_ms * UNIT // speed
    return {model: max(1, UNIT * done_ms[model] // max(1, took_ms[model])) for model in models}
