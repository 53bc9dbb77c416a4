"""What is to be done in a simulated pool: agents, jobs and streams of requests. Pure data, all integers.

Times are milliseconds since the beginning of the run, work is milliseconds of a whole reference device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from walras.core.money import MICROS
from walras.market.types import JobClass

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

# By model of device, how much work it does in a given time, 1000 for the reference device.
Speeds = tuple[tuple[str, int], ...]

SLO_MS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent with its money and how it bids. Amounts are micro-credits.

    value_micros: what a GPU-hour is worth to it where its work does not say.
    """

    name: str
    value_micros: int = MICROS
    weight: int = 1
    income_micros_per_hour: int = 0
    balance_micros: int = 0
    cap_micros: int = 0
    strategy: str = "fixed"


@dataclass(frozen=True, slots=True)
class Job:
    """So much work on `gpus` devices at once, or on `gpus_min` and more of them.

    checkpoint_ms: a lease that ends takes the work since the last multiple of it along; 0 saves on notice.
    restart_ms: how long it computes nothing when it begins again. A deadline is a time of the run.
    speeds: how fast it is on which model, and it runs on no other; () for as fast as the pool says of each.
    """

    name: str
    agent: str
    arrival_ms: int
    work_ms: int
    gpus: int = 1
    gpus_min: int = 0
    checkpoint_ms: int = 0
    restart_ms: int = 0
    value_micros: int = 0
    deadline_ms: int | None = None
    job_class: JobClass = "batch"
    priority: int = 0
    milli: int = 1000
    term_ms: int = 60_000
    speeds: Speeds = ()


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Requests of one agent in order of arrival, each answered by one of its replicas, one at a time.

    A replica is `milli` of one device; a request that takes longer than `slo_ms` misses its objective.
    """

    agent: str
    arrivals_ms: Ints
    works_ms: Ints
    slo_ms: int = SLO_MS
    milli: int = 1000
    term_ms: int = 60_000

    def __post_init__(self) -> None:
        assert len(self.arrivals_ms) == len(self.works_ms)


@dataclass(frozen=True, slots=True)
class Workload:
    """All of it. `span_ms` is the time in which it arrives. Jobs are in the order of their arrival."""

    agents: tuple[Agent, ...]
    jobs: Collection[Job]
    streams: tuple[Stream, ...]
    span_ms: int

    @property
    def work_ms(self) -> int:
        """All work together."""
        return sum(job.work_ms for job in self.jobs) + sum(int(each.works_ms.sum()) for each in self.streams)
