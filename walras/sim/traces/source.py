"""What a trace holds, and how it is laid on a pool to make a load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from walras.core.errors import Invalid
from walras.sim.world.jobs import Jobs
from walras.sim.world.workload import Ints, Job, Stream

# Loads are multiples of a millionth, so that no sum of floats decides how much of a trace is played.
PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """Jobs and streams as they arrive within `span_ms`.

    relative: whether it has to be laid on a pool (a load of 1 is all that the pool can do), or is as large as
    it is (a load of 1 is all that it holds). prices: by agent, what a GPU-hour is worth, where it says so.
    """

    span_ms: int
    jobs: Sequence[Job] = ()
    streams: tuple[Stream, ...] = ()
    relative: bool = True
    prices: tuple[tuple[str, int], ...] = ()

    @property
    def agents(self) -> list[str]:
        return sorted({*(job.agent for job in self.jobs), *(stream.agent for stream in self.streams)})

    @property
    def work_ms(self) -> int:
        return sum(job.work_ms for job in self.jobs) + sum(int(each.works_ms.sum()) for each in self.streams)


def wrong(path: Path, line: int, what: str) -> Invalid:
    """The error for a line of a trace."""
    return Invalid(f"{path}:{line}: {what}")


def scaled(source: Source, gpus: int, load: float, chance: Random) -> Source:
    """The source played so often that it makes that load of so many devices.

    A copy begins at a time of the span that is drawn, and what would come after its end comes at its
    beginning; of the last copy a part is drawn. At once and unchanged where the load is 1 of what it holds.
    """
    wanted = round(load * PARTS)
    if wanted <= 0:
        raise Invalid(f"a load is more than 0, not {load}")
    if not source.relative and wanted == PARTS:
        return source
    work_ms = source.work_ms
    if work_ms == 0:
        raise Invalid("the trace holds no work")
    parts = wanted * gpus * source.span_ms // work_ms if source.relative else wanted
    streams = tuple(_stream(stream, source.span_ms, parts, chance) for stream in source.streams)
    return replace(source, jobs=_jobs(source.jobs, source.span_ms, parts, chance), streams=streams)


def _copies(parts: int) -> list[int]:
    """How much of each copy is played, in parts."""
    whole, rest = divmod(parts, PARTS)
    return [PARTS] * whole + ([rest] if rest else [])


def _stream(stream: Stream, span_ms: int, parts: int, chance: Random) -> Stream:
    arrivals: list[Ints] = []
    works: list[Ints] = []
    for part in _copies(parts):
        shift_ms = chance.randrange(span_ms)
        kept = np.arange(len(stream.works_ms))
        if part < PARTS:
            kept = np.array(sorted(chance.sample(range(len(kept)), len(kept) * part // PARTS)), np.int64)
        arrivals.append((stream.arrivals_ms[kept] + shift_ms) % span_ms)
        works.append(stream.works_ms[kept])
    come = np.concatenate(arrivals) if arrivals else np.empty(0, np.int64)
    order = np.argsort(come, kind="stable")
    work = np.concatenate(works) if works else come
    return replace(stream, arrivals_ms=come[order], works_ms=work[order])


def _jobs(jobs: Sequence[Job], span_ms: int, parts: int, chance: Random) -> Jobs:
    return Jobs(_copied(jobs, span_ms, parts, chance)).in_order(by_name=True)


def _copied(jobs: Sequence[Job], span_ms: int, parts: int, chance: Random) -> Iterator[Job]:
    for copy, part in enumerate(_copies(parts)):
        shift_ms = chance.randrange(span_ms)
        kept = jobs if part == PARTS else _drawn(jobs, part, chance)
        for job in kept:
            arrival_ms = (job.arrival_ms + shift_ms) % span_ms
            deadline_ms = job.deadline_ms
            if deadline_ms is not None:
                deadline_ms += arrival_ms - job.arrival_ms
            yield replace(job, name=f"{job.name}.{copy}", arrival_ms=arrival_ms, deadline_ms=deadline_ms)


def _drawn(jobs: Sequence[Job], part: int, chance: Random) -> list[Job]:
    """Jobs in an order that is drawn, until that part of the work is reached."""
    left = sum(job.work_ms for job in jobs) * part // PARTS
    order = list(range(len(jobs)))
    chance.shuffle(order)
    chosen = []
    for number in order:
        if jobs[number].work_ms <= 2 * left:
            chosen.append(number)
            left -= jobs[number].work_ms
    return [jobs[number] for number in sorted(chosen)]
