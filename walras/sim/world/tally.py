"""What becomes of jobs, folded into columns and sums as they are over, so that none has to be kept."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

import numpy as np

from walras.market.ground import SPEED_UNIT
from walras.sim.world.fleet import Fleet
from walras.sim.world.training import JobRun
from walras.sim.world.workload import Ints, Job, Workload

NEVER = -1


class Tally:
    """Jobs that have come, and those that are over: done or given up."""

    def __init__(self, workload: Workload, pool_milli: int, fleet: Fleet) -> None:
        self._span_ms, self._pool_milli, self._fleet = workload.span_ms, pool_milli, fleet
        self._weights = {agent.name: agent.weight for agent in workload.agents}
        self._whole = sum(self._weights.values())
        self._numbers = {name: number for number, name in enumerate(self._weights)}
        self._came_ms, self._come_work_ms = array("q"), array("q")
        self._columns = tuple(array("q") for _ in range(5))
        self.come_milli_ms: Counter[str] = Counter()  # by agent, the work of all that have come
        self.useful_milli_ms: Counter[str] = Counter()  # what was done in the span, and kept
        self.kept_milli_ms: Counter[str] = Counter()  # by model, device time of that; if devices are unlike
        self.lost_milli_ms = self.evictions = 0

    def came(self, job: Job) -> None:
        """One has come."""
        self._came_ms.append(job.arrival_ms)
        self._come_work_ms.append(job.work_ms)
        self.come_milli_ms[job.agent] += job.work_ms * 1000

    def over(self, run: JobRun) -> None:
        """One is over, or the world is and it is not."""
        job = run.job
        part = max(1, self._pool_milli * self._weights[job.agent] // self._whole)
        speed = self._fleet.mean_speed_of(job)
        alone_ms = max(1, job.work_ms * 1000 * SPEED_UNIT // (min(job.gpus * job.milli, part) * speed))
        first_ms = NEVER if run.first_ms is None else run.first_ms
        done_ms = NEVER if run.done_ms is None else run.done_ms
        row = (self._numbers[job.agent], job.arrival_ms, first_ms, done_ms, alone_ms)
        for column, value in zip(self._columns, row, strict=True):
            column.append(value)
        self.useful_milli_ms[job.agent] += run.useful_milli_ms(self._span_ms)
        if not self._fleet.alike:
            for model, kept in run.kept_milli_ms(self._span_ms):
                self.kept_milli_ms[model] += kept
        self.lost_milli_ms += run.lost_milli_ms
        self.evictions += run.evictions

    def with_all(self, running: Iterable[JobRun]) -> Tally:
        """One of its own in which these are over too, as they are."""
        found = Tally.__new__(Tally)
        found.__dict__.update(self.__dict__)
        found._columns = tuple(column[:] for column in self._columns)
        found.useful_milli_ms = self.useful_milli_ms.copy()
        found.kept_milli_ms = self.kept_milli_ms.copy()
        for run in running:
            found.over(run)
        return found

    @property
    def come(self) -> int:
        """How many have come."""
        return len(self._came_ms)

    @property
    def arrivals(self) -> tuple[Ints, Ints]:
        """When each came, in order, and its work in ms of a whole device."""
        return _ints(self._came_ms), _ints(self._come_work_ms)

    @property
    def agent(self) -> Ints:
        """Of each that is over its agent's number, in the order of the workload."""
        return _ints(self._columns[0])

    @property
    def arrival_ms(self) -> Ints:
        return _ints(self._columns[1])

    @property
    def first_ms(self) -> Ints:
        """When its first lease began, NEVER if none did."""
        return _ints(self._columns[2])

    @property
    def done_ms(self) -> Ints:
        """When it was done, NEVER if it was not."""
        return _ints(self._columns[3])

    @property
    def alone_ms(self) -> Ints:
        """How long it takes on its agent's part of the pool alone: of devices of each model the same part."""
        return _ints(self._columns[4])


def _ints(column: array[int]) -> Ints:
    return np.array(column, np.int64)
