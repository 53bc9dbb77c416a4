"""Jobs in columns: many take little room, and each is made when it comes."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from walras.market.types import JobClass
from walras.sim.world.workload import Job, Speeds

_NUMBERS: Final = (
    "arrival_ms", "work_ms", "gpus", "gpus_min", "checkpoint_ms", "restart_ms", "value_micros", "priority",
    "milli", "term_ms",
)  # fmt: skip
_CODED: Final = ("agent", "job_class", "speeds", "deadline_ms")
_NEVER: Final = -1


class Jobs(Sequence[Job]):
    """Jobs in the order in which they were given."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._names: list[str] = []
        self._agents: list[str] = []
        self._classes: list[JobClass] = []
        self._speeds: list[Speeds] = []
        self._agent_numbers: dict[str, int] = {}
        self._class_numbers: dict[JobClass, int] = {}
        self._speeds_numbers: dict[Speeds, int] = {}
        self._columns = {name: array("q") for name in (*_NUMBERS, *_CODED)}
        for job in jobs:
            self.add(job)

    def add(self, job: Job) -> None:
        """One more."""
        columns = self._columns
        self._names.append(job.name)
        for name in _NUMBERS:
            columns[name].append(getattr(job, name))
        agent = self._agent_numbers.setdefault(job.agent, len(self._agents))
        if agent == len(self._agents):
            self._agents.append(job.agent)
        job_class = self._class_numbers.setdefault(job.job_class, len(self._classes))
        if job_class == len(self._classes):
            self._classes.append(job.job_class)
        speeds = self._speeds_numbers.setdefault(job.speeds, len(self._speeds))
        if speeds == len(self._speeds):
            self._speeds.append(job.speeds)
        columns["agent"].append(agent)
        columns["job_class"].append(job_class)
        columns["speeds"].append(speeds)
        columns["deadline_ms"].append(_NEVER if job.deadline_ms is None else job.deadline_ms)

    def in_order(self, *, by_name: bool = False) -> Jobs:
        """The same by arrival; those that come at once as they were given, or by name."""
        arrival_ms, names = self._columns["arrival_ms"], self._names
        order = sorted(range(len(names)), key=names.__getitem__) if by_name else range(len(names))
        order = sorted(order, key=arrival_ms.__getitem__)
        found = Jobs()
        found._agents, found._classes, found._speeds = self._agents, self._classes, self._speeds
        found._agent_numbers, found._class_numbers = self._agent_numbers, self._class_numbers
        found._speeds_numbers = self._speeds_numbers
        found._names = [names[at] for at in order]
        for name, column in self._columns.items():
            found._columns[name] = array("q", (column[at] for at in order))
        return found

    @property
    def agents(self) -> Sequence[str]:
        """Those that have any."""
        return self._agents

    @property
    def work_ms(self) -> int:
        """All work together."""
        return sum(self._columns["work_ms"])

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Job]:
        """As `_job` makes each, without looking up its columns one by one."""
        columns = (self._columns[name] for name in (*_NUMBERS, *_CODED))
        agents, classes, speeds = self._agents, self._classes, self._speeds
        for (
            name,
            arrival,
            work,
            gpus,
            fewest,
            saves,
            begins,
            value,
            first,
            milli,
            term,
            agent,
            kind,
            fast,
            end,
        ) in zip(self._names, *columns, strict=True):
            yield Job(
                *(name, agents[agent], arrival, work, gpus, fewest, saves, begins, value),
                *(None if end == _NEVER else end, classes[kind], first, milli, term, speeds[fast]),
            )

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Job]: ...
    def __getitem__(self, at: int | slice) -> Job | Sequence[Job]:
        if isinstance(at, slice):
            return [self._job(each) for each in range(*at.indices(len(self)))]
        return self._job(range(len(self))[at])

    def _job(self, at: int) -> Job:
        columns = self._columns
        deadline_ms = columns["deadline_ms"][at]
        return Job(
            name=self._names[at],
            agent=self._agents[columns["agent"][at]],
            job_class=self._classes[columns["job_class"][at]],
            speeds=self._speeds[columns["speeds"][at]],
            deadline_ms=None if deadline_ms == _NEVER else deadline_ms,
            **{name: columns[name][at] for name in _NUMBERS},
        )
