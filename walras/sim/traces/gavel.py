"""Traces of training jobs as Gavel and Shockwave write them, and their throughput tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from walras.core.errors import Invalid, NotFound

Mode = Literal["static", "accordion", "gns"]
Profile = tuple[str, str, int | None, int]  # worker type, model, batch size, GPUs

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
_JOB_TYPE: Final = re.compile(r"(?P<model>[A-Za-z0-9-]+)(?: \(batch size (?P<batch>[1-9][0-9]*)\))?")
_PROFILE: Final = re.compile(r"\('(?P<kind>[^']+)', (?P<gpus>[1-9][0-9]*)\)")
_ALONE: Final = "null"


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One training job: `steps` at its first batch size, on `gpus` at once, from `arrival_s` on.

    mode: how it changes its batch size. weight: its priority. duration_s: how long the trace says that it
    takes alone, None where it does not say. batch_size is None for models that have only one.
    """

    number: int
    model: str
    batch_size: int | None
    steps: int
    gpus: int
    arrival_s: float
    mode: Mode = "static"
    weight: float = 1.0
    duration_s: float | None = None


def read_trace(path: Path) -> Iterator[TraceJob]:
    """The jobs of a trace in the order of arrival, a line at a time.

    Gavel writes 7 columns, Shockwave 12, with tabs between. Raises NotFound when there is no such file,
    Invalid with file and line when a line is not as it should be.
    """
    last_s = 0.0
    for number, line in enumerate(_lines(path)):
        try:
            job = _job(number, line.rstrip("\n").split("\t"))
            if job.arrival_s < last_s:
                raise Invalid(
                    f"arrives at {job.arrival_s:g} s, before the job above it; sort the trace by arrival"
                )
        except Invalid as fault:
            raise Invalid(f"{path}:{number + 1}: {fault.message}") from fault
        last_s = job.arrival_s
        yield job


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            yield from lines
    except OSError as fault:
        raise NotFound(f"cannot read the trace {path}: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise Invalid(f"{path}: is not UTF-8 text; a trace is lines with tabs") from fault


def _job(number: int, columns: list[str]) -> TraceJob:
    match columns:
        case [kind, _, _, _, steps, arrival, gpus]:
            model, batch_size = parse_job_type(kind)
            return TraceJob(
                number,
                model,
                batch_size,
                _count("total steps", steps),
                _count("scale factor", gpus),
                _seconds("arrival", arrival),
            )
        case [kind, _, _, _, _, steps, gpus, mode, weight, _, duration, arrival]:
            model, batch_size = parse_job_type(kind)
            if mode not in MODES:
                raise Invalid(f'mode "{mode}" is none of {", ".join(MODES)}')
            return TraceJob(
                number,
                model,
                batch_size,
                _count("total steps", steps),
                _count("scale factor", gpus),
                _seconds("arrival", arrival),
                mode,
                _seconds("priority weight", weight),
                _seconds("duration", duration),
            )
    raise Invalid(f"has {len(columns)} columns with tabs between; Gavel's traces have 7, Shockwave's 12")


def parse_job_type(text: str) -> tuple[str, int | None]:
    """Model and batch size of "ResNet-18 (batch size 32)"; no batch size where the model has only one."""
    match = _JOB_TYPE.fullmatch(text)
    if match is None:
        raise Invalid(f'job type "{text}" is not of the form "MODEL (batch size N)"')
    return match["model"], int(match["batch"]) if match["batch"] else None


def _count(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise Invalid(f'{name} "{text}" is not a whole number above 0')


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and value >= 0:
        return value
    raise Invalid(f'{name} "{text}" is not a number from 0 on')


class Throughputs:
    """How fast models train alone on their GPUs, in steps a second. Rates of jobs that share are left out."""

    def __init__(self, rates: Mapping[Profile, float]) -> None:
        """rates: by worker type ("v100"), model, batch size and number of GPUs."""
        self._rates = dict(rates)

    def has(self, worker: str, model: str, batch_size: int | None, gpus: int) -> bool:
        """Whether it was measured, and runs at all."""
        return self._rates.get((worker, model, batch_size, gpus), 0) > 0

    def steps_per_s(self, worker: str, model: str, batch_size: int | None, gpus: int) -> float:
        """Above 0. Raises NotFound for what was not measured."""
        if not self.has(worker, model, batch_size, gpus):
            size = "" if batch_size is None else f" (batch size {batch_size})"
            raise NotFound(f'the throughput table has no "{model}{size}" on {gpus} {worker}')
        return self._rates[worker, model, batch_size, gpus]


def read_throughputs(path: Path) -> Throughputs:
    """The table of Gavel's *_throughputs.json. Raises NotFound or Invalid, with file and place in it."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as fault:
        raise NotFound(f"cannot read the throughputs {path}: {fault.strerror}") from fault
    except json.JSONDecodeError as fault:
        raise Invalid(f"{path}:{fault.lineno}: {fault.msg}; the throughputs are one JSON document") from fault
    except UnicodeDecodeError as fault:
        raise Invalid(f"{path}: is not UTF-8 text; the throughputs are one JSON document") from fault
    rates: dict[Profile, float] = {}
    for worker, profiles in _entries(document, f"{path}"):
        for name, profile in _entries(profiles, f"{path}: {worker}"):
            match = _PROFILE.fullmatch(name)
            rate = profile.get(_ALONE) if isinstance(profile, dict) else None
            if match is None or not isinstance(rate, int | float) or isinstance(rate, bool):
                raise Invalid(
                    f'{path}: {worker}: "{name}" is not of the form "(\'MODEL (batch size N)\', GPUS)" '
                    f'with its rate alone, in steps a second, as "{_ALONE}"'
                )
            model, batch_size = parse_job_type(match["kind"])
            rates[worker, model, batch_size, int(match["gpus"])] = float(rate)
    return Throughputs(rates)


def _entries(value: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise Invalid(f"{where}: is not a JSON object")
    return list(value.items())
