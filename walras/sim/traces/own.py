"""A trace of one's own: CSV with a line for each job or request, as docs/reference/traces.md says."""

from __future__ import annotations

import csv
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from walras.core.errors import Invalid, MoneyError
from walras.core.money import parse_credits
from walras.devices.classes import SPEED_MAX
from walras.sim.traces.source import Source, wrong
from walras.sim.world.jobs import Jobs
from walras.sim.world.workload import SLO_MS, Job, Speeds, Stream

REQUIRED: Final = ("arrival_ms", "agent", "kind", "work_ms")
OPTIONAL: Final = (
    "gpus", "gpus_min", "milli", "checkpoint_ms", "restart_ms", "deadline_ms", "priority", "price", "slo_ms",
    "speeds",
)  # fmt: skip
KINDS: Final = ("job", "request")


@dataclass(slots=True)
class _Requests:
    slo_ms: int
    milli: int
    arrivals_ms: array[int] = field(default_factory=lambda: array("q"))
    works_ms: array[int] = field(default_factory=lambda: array("q"))


def source(path: Path) -> Source:
    """Reads it a line at a time. Raises Invalid with the line, OSError."""
    jobs = Jobs()
    requests: dict[str, _Requests] = {}
    prices: defaultdict[str, int] = defaultdict(int)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        _check_header(path, reader.fieldnames or ())
        for row in reader:
            line = _Line(path, reader.line_num, row)
            agent, price = line.text("agent"), line.credits("price")
            prices[agent] = max(prices[agent], price)
            if line.text("kind") == "job":
                jobs.add(_job(line, agent, price, len(jobs)))
            elif line.text("kind") == "request":
                known = requests.setdefault(
                    agent, _Requests(line.number("slo_ms", SLO_MS, 1), line.number("milli", 1000, 1, 1000))
                )
                known.arrivals_ms.append(line.number("arrival_ms"))
                known.works_ms.append(line.number("work_ms", None, 1))
            else:
                raise line.wrong(f'kind is one of {", ".join(KINDS)}, not "{line.text("kind")}"')
    if not jobs and not requests:
        raise Invalid(f"{path}: the trace is empty")
    streams = tuple(_stream(agent, each) for agent, each in sorted(requests.items()))
    jobs = jobs.in_order()
    last = [job.arrival_ms for job in jobs[-1:]] + [int(stream.arrivals_ms.max()) for stream in streams]
    known_prices = tuple(sorted((agent, price) for agent, price in prices.items() if price))
    return Source(max(last) + 1, jobs, streams, relative=False, prices=known_prices)


def _check_header(path: Path, names: object) -> None:
    assert isinstance(names, (list, tuple))
    if missing := [name for name in REQUIRED if name not in names]:
        raise wrong(path, 1, f"the first line names the columns and lacks {', '.join(missing)}")
    if unknown := [str(name) for name in names if name not in (*REQUIRED, *OPTIONAL)]:
        raise wrong(path, 1, f"there is no column {', '.join(unknown)}; there are {', '.join(OPTIONAL)}")


def _job(line: _Line, agent: str, price: int, made: int) -> Job:
    gpus = line.number("gpus", 1, 1)
    arrival_ms, deadline_ms = line.number("arrival_ms"), line.number("deadline_ms", 0)
    if deadline_ms and deadline_ms <= arrival_ms:
        raise line.wrong("deadline_ms is not after arrival_ms; both count from the beginning of the trace")
    return Job(
        name=f"job-{made}",
        agent=agent,
        arrival_ms=arrival_ms,
        work_ms=line.number("work_ms", None, 1),
        gpus=gpus,
        gpus_min=line.number("gpus_min", gpus, 1, gpus),
        milli=line.number("milli", 1000, 1, 1000),
        checkpoint_ms=line.number("checkpoint_ms", 0),
        restart_ms=line.number("restart_ms", 0),
        deadline_ms=deadline_ms or None,
        priority=line.number("priority", 0),
        value_micros=price,
        speeds=line.speeds(),
    )


def _stream(agent: str, requests: _Requests) -> Stream:
    come, works = np.array(requests.arrivals_ms, np.int64), np.array(requests.works_ms, np.int64)
    order = np.argsort(come, kind="stable")
    return Stream(agent, come[order], works[order], requests.slo_ms, requests.milli)


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    at: int
    row: Mapping[str | None, str | list[str] | None]

    def text(self, name: str) -> str:
        found = self.row.get(name)
        if None in self.row or not isinstance(found, str) or not found:
            raise self.wrong(f"{name} is missing, or the line has not as many values as there are columns")
        return found

    def number(self, name: str, default: int | None = None, least: int = 0, most: int = 2**53) -> int:
        """A whole number within bounds; of an empty column the default, unless that is None."""
        found = self.row.get(name)
        if not found and default is not None:
            return default
        text = self.text(name)
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise self.wrong(f'{name} is a whole number from {least} to {most}, not "{text[:40]}"')
        return int(text)

    def speeds(self) -> Speeds:
        """By model as in "V100=1000 P100=660"; () of an empty column."""
        text = self.row.get("speeds")
        if not isinstance(text, str) or not text:
            return ()
        found: dict[str, int] = {}
        for part in text.split():
            model, _, speed = part.partition("=")
            good = model and model not in found and speed.isascii() and speed.isdigit() and len(speed) < 10
            if not good or not 1 <= int(speed) <= SPEED_MAX:
                raise self.wrong(
                    f"speeds are models with 1 to {SPEED_MAX} each, 1000 for what does work_ms in its time, "
                    f'as in "V100=1000 P100=660", not "{text[:80]}"'
                )
            found[model] = int(speed)
        return tuple(found.items())

    def credits(self, name: str) -> int:
        found = self.row.get(name)
        try:
            return parse_credits(found) if isinstance(found, str) and found else 0
        except MoneyError as error:
            raise self.wrong(error.message) from None

    def wrong(self, what: str) -> Invalid:
        return wrong(self.path, self.at, what)
