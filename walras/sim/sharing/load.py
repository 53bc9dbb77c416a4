"""Inference beside training as one load: Azure's and Mooncake's requests, and jobs of Microsoft's Philly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

import numpy as np

from walras.core.money import MICROS
from walras.sim.sharing.published import SLO_MS, Traces
from walras.sim.traces.chances import log_uniform
from walras.sim.traces.source import PARTS, Source, scaled
from walras.sim.world.study import workload
from walras.sim.world.workload import Ints, Job, Stream, Workload

# Of what the pool can do, what requests come to and what jobs do. The replicas that the requests need are
# nearly twice as many as they keep busy, so that with the jobs they are all of the pool.
SERVING: Final = 0.30
TRAINING: Final = 0.40
# So many agents of each trace of requests on so many GPUs: their peak is then within the pool.
AGENTS: Final = 2
AGENTS_GPUS: Final = 64
# What a GPU-hour is worth. To all training the same, so that its GPU time says what was gained; and to
# requests so much more that one replica outweighs a gang of eight.
SERVING_WORTH: Final = (24 * MICROS, 48 * MICROS)
TRAINING_WORTH: Final = 2 * MICROS
# A part of the jobs is there soon after the beginning, when the replicas are.
AT_ONCE: Final = 0.15
AT_ONCE_MS: Final = 15_000
# Of the jobs on more than one GPU, those that take all of them at once or none.
GANGS: Final = 0.5
RESTART_MS: Final = 5_000


def mixed(traces: Traces, gpus: int, span_ms: int, seed: int, *, checkpoint_ms: int = 0) -> Workload:
    """The load of a run: the same agents, jobs and requests for every policy.

    checkpoint_ms: how often jobs save; 0 saves on notice.
    """
    chance = Random(f"{seed}:sharing")  # noqa: S311 - to be the same again is what it is for
    number = max(1, AGENTS * gpus // AGENTS_GPUS)
    each = gpus * SERVING / (number * len(traces.requests))
    streams = tuple(
        _stream(trace, f"serving-{name}-{agent}", span_ms, each, chance)
        for name, trace in traces.requests.items()
        for agent in range(number)
    )
    work_ms = {name: sum(job.work_ms for job in cluster) for name, cluster in traces.clusters.items()}
    jobs: list[Job] = []
    for name, cluster in traces.clusters.items():
        part = TRAINING * work_ms[name] / max(1, sum(work_ms.values()))
        jobs += _jobs(cluster, gpus, span_ms, part, chance)
    jobs.sort(key=lambda job: (job.arrival_ms, job.name))
    told = tuple(
        replace(job, checkpoint_ms=checkpoint_ms, restart_ms=RESTART_MS, value_micros=TRAINING_WORTH)
        for job in jobs
    )
    worth = tuple((stream.agent, log_uniform(chance, *SERVING_WORTH)) for stream in streams)
    return workload(Source(span_ms, told, streams, prices=worth), gpus, seed)


def _stream(trace: Stream, agent: str, span_ms: int, gpus: float, chance: Random) -> Stream:
    """The trace over and over, as often at once as keeps so many GPUs busy, each copy from a drawn time of it
    on; of the last copy a part is drawn."""
    length_ms = int(trace.arrivals_ms[-1]) + 1
    parts = round(gpus * PARTS * length_ms) // int(trace.works_ms.sum())
    arrivals: list[Ints] = []
    works: list[Ints] = []
    while parts > 0:
        kept = np.arange(len(trace.arrivals_ms))
        if parts < PARTS:
            kept = np.array(sorted(chance.sample(range(len(kept)), len(kept) * parts // PARTS)), np.int64)
        first = (trace.arrivals_ms[kept] + chance.randrange(length_ms)) % length_ms
        for again_ms in range(0, span_ms, length_ms):
            within = first + again_ms < span_ms
            arrivals.append(first[within] + again_ms)
            works.append(trace.works_ms[kept][within])
        parts -= PARTS
    come = np.concatenate(arrivals) if arrivals else np.empty(0, np.int64)
    work = np.concatenate(works) if works else come
    order = np.argsort(come, kind="stable")
    return Stream(agent, come[order], work[order], SLO_MS[trace.agent])


def _jobs(cluster: Sequence[Job], gpus: int, span_ms: int, load: float, chance: Random) -> list[Job]:
    """Jobs drawn from all of a cluster's until they make the load, each at its time of the span over and
    over; a part of them is there from the beginning."""
    folded = tuple(replace(job, arrival_ms=job.arrival_ms % span_ms) for job in cluster)
    if round(load * PARTS) == 0:
        return []
    found = scaled(Source(span_ms, folded), gpus, load, chance).jobs
    placed = [replace(job, arrival_ms=AT_ONCE_MS) if chance.random() < AT_ONCE else job for job in found]
    return [worker for job in placed for worker in _workers(job, chance)]


def _workers(job: Job, chance: Random) -> list[Job]:
    """The job as a gang, or elastic: as workers that have a lease each, and come and go by themselves."""
    if job.gpus == 1 or chance.random() < GANGS:
        return [job]
    worker = replace(job, work_ms=max(1, job.work_ms // job.gpus), gpus=1)
    return [replace(worker, name=f"{job.name}/{number}") for number in range(job.gpus)]
