"""Load that is made up, with distributions that are said: what `synthetic:SPEC` is.

Requests come as Poisson arrivals whose rate is BURST times as high for a tenth of each five minutes, jobs as
Poisson arrivals. Sizes are log-uniform between bounds. A gang has 1, 2, 4 or 8 devices, or as many as there
are, with chances of 8 : 4 : 2 : 1; every second one of several is content with half of it. One training
agent in three paces its spending; one has deadlines of four to sixteen times what the work takes on all its
devices.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from random import Random
from typing import Final

import numpy as np

from walras.core.errors import Invalid
from walras.sim.traces.chances import exponential, log_uniform, log_uniform_mean
from walras.sim.traces.source import PARTS, Source
from walras.sim.world.jobs import Jobs
from walras.sim.world.workload import Job, Stream

MINUTE_MS: Final = 60_000
GANGS: Final = (1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 8)
BURST: Final = 3
BURST_EVERY_MS: Final = 5 * MINUTE_MS
STRATEGIES: Final = ("fixed", "pacing", "deadline")
_TENTHS: Final = 10


@dataclass(frozen=True, slots=True)
class Spec:
    """minutes: for how long work arrives. serving, training: how many agents of each. serving_percent: of
    the work, what is requests. request_ms, job_s: the bounds of their sizes in time of a whole device.
    elastic: whether some gangs are content with half, 0 for none."""

    minutes: int = 30
    serving: int = 2
    training: int = 4
    serving_percent: int = 40
    request_ms_min: int = 50
    request_ms_max: int = 2_000
    job_s_min: int = 60
    job_s_max: int = 3_600
    checkpoint_s: int = 60
    restart_s: int = 5
    elastic: int = 1


def parse(text: str) -> Spec:
    """The spec that a comma-separated text such as "minutes=10,serving=3" gives. Raises Invalid."""
    known = {field.name for field in fields(Spec)}
    values: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise Invalid(f'synthetic load has no "{name}"; it has {", ".join(sorted(known))}')
        if not value.isascii() or not value.isdigit() or int(value) > 10**9:
            raise Invalid(f'{name} is a whole number, not "{value}"')
        values[name] = int(value)
    spec = Spec(**values)
    agents = spec.serving + spec.training
    if not 0 < agents <= 1000 or not 0 < spec.minutes <= 100_000 or spec.serving_percent > 100:
        raise Invalid(
            "synthetic load takes 1 to 1000 agents, 1 to 100000 minutes, at most 100 percent serving"
        )
    if not 0 < spec.request_ms_min <= spec.request_ms_max or not 0 < spec.job_s_min <= spec.job_s_max:
        raise Invalid("the smallest size of a request or a job is more than 0 and no more than the largest")
    return spec


def source(spec: Spec, gpus: int, load: float, chance: Random) -> Source:
    """Work that makes that load of so many devices, as it is drawn."""
    span_ms = spec.minutes * MINUTE_MS
    work_ms = round(load * PARTS) * gpus * span_ms // PARTS
    if work_ms <= 0:
        raise Invalid(f"a load is more than 0, not {load}")
    percent = spec.serving_percent if spec.training else 100
    percent = percent if spec.serving else 0
    requests_ms = work_ms * percent // 100
    streams = tuple(
        _stream(f"serving-{number}", spec, requests_ms // spec.serving, chance)
        for number in range(spec.serving)
    )
    each_ms = (work_ms - requests_ms) // max(1, spec.training)
    jobs = Jobs(
        job
        for number in range(spec.training)
        for job in _jobs(f"training-{number}", spec, gpus, each_ms, chance)
    )
    return Source(span_ms, jobs.in_order(by_name=True), streams, relative=False)


def strategy_of(agent: str) -> str:
    """How an agent bids, by its name."""
    kind, _, number = agent.rpartition("-")
    return STRATEGIES[int(number) % len(STRATEGIES)] if kind == "training" and number.isdigit() else "fixed"


def _stream(agent: str, spec: Spec, work_ms: int, chance: Random) -> Stream:
    span_ms = spec.minutes * MINUTE_MS
    mean_ms = log_uniform_mean(spec.request_ms_min, spec.request_ms_max)
    calm_gap_us = 1000 * span_ms * mean_ms * (_TENTHS + BURST - 1) // (_TENTHS * max(1, work_ms))
    phase_ms = chance.randrange(BURST_EVERY_MS)
    arrivals: list[int] = []
    at_us = 0
    while True:
        bursts = (at_us // 1000 + phase_ms) % BURST_EVERY_MS * _TENTHS < BURST_EVERY_MS
        at_us += max(1, exponential(chance, max(1, calm_gap_us // BURST if bursts else calm_gap_us)))
        if at_us >= 1000 * span_ms:
            break
        arrivals.append(at_us // 1000)
    works = [log_uniform(chance, spec.request_ms_min, spec.request_ms_max) for _ in arrivals]
    return Stream(agent, np.array(arrivals, np.int64), np.array(works, np.int64))


def _jobs(agent: str, spec: Spec, gpus: int, work_ms: int, chance: Random) -> Iterator[Job]:
    """Jobs of that work together, the last one as large as what is left, at times of a Poisson process."""
    span_ms, made, sizes = spec.minutes * MINUTE_MS, 0, array("q")
    while made < work_ms:
        size = log_uniform(chance, 1000 * spec.job_s_min, 1000 * spec.job_s_max)
        sizes.append(min(size, work_ms - made))
        made += size
    # Given their number, the times of a Poisson process are independent and uniform.
    arrivals = array("q", sorted(chance.randrange(span_ms) for _ in sizes))
    for number, (arrival_ms, size) in enumerate(zip(arrivals, sizes, strict=True)):
        gang = min(gpus, chance.choice(GANGS))
        elastic = gang > 1 and bool(chance.getrandbits(1)) and bool(spec.elastic)
        slack = chance.randrange(4, 17)
        late = arrival_ms + slack * max(MINUTE_MS, size // gang)
        yield Job(
            name=f"{agent}-{number}",
            agent=agent,
            arrival_ms=arrival_ms,
            work_ms=size,
            gpus=gang,
            gpus_min=gang // 2 if elastic else gang,
            checkpoint_ms=1000 * spec.checkpoint_s,
            restart_ms=1000 * spec.restart_s,
            deadline_ms=late if strategy_of(agent) == "deadline" else None,
        )
