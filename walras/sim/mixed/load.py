"""Training on unlike GPUs as one load: jobs of Microsoft's Philly, as fast on each as Gavel measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from walras.core.errors import NotFound
from walras.core.money import HOUR_MS, MICROS
from walras.market.types import Device
from walras.sim.traces.gavel import read_throughputs
from walras.sim.traces.measured import UNIT, Measured, measured
from walras.sim.traces.source import scaled
from walras.sim.world.fleet import mixed
from walras.sim.world.jobs import Jobs
from walras.sim.world.study import workload
from walras.sim.world.workload import Workload

THROUGHPUTS: Final = "gavel/simulation_throughputs.json"
# Virtual clusters by number of jobs; the other two of the eight have nine and eighteen jobs.
CLUSTERS: Final = ("0e4a51", "103959", "11cb48", "2869ce", "6214e9", "6c71a0")
# What takes longer alone on V100 would be most of the work of a few days.
LONGEST_MS: Final = 24 * HOUR_MS
# The same to all, so that GPU time says what was gained.
WORTH: Final = 2 * MICROS


@dataclass(frozen=True, slots=True)
class Hall:
    """The pool, as fast in the operator's figures as all the jobs are on average, and the jobs for it."""

    devices: tuple[Device, ...]
    jobs: Measured


def read(data: Path, models: Mapping[str, int]) -> Hall:
    """The jobs of all clusters, an agent each.

    Raises NotFound where a file is missing, Invalid for what is none.
    """
    traces = {name: data / f"gavel/{name}.trace" for name in CLUSTERS}
    for path in (data / THROUGHPUTS, *traces.values()):
        if not path.is_file():
            raise NotFound(
                f"{path} is not there; it is published in scheduler/ of stanford-futuredata/gavel on GitHub"
            )
    rates = read_throughputs(data / THROUGHPUTS)
    jobs = measured(traces, rates, models, lambda trace, _: trace, LONGEST_MS)
    return Hall(mixed(models, jobs.speeds), jobs)


def drawn(hall: Hall, span_ms: int, load: float, seed: int) -> Workload:
    """Jobs drawn from all, each at its time of the trace folded into the span, until they make that load: 1
    is all that the pool can do in the span at its own speeds."""
    chance = Random(f"{seed}:mixed")  # noqa: S311 - to be the same again is what it is for
    folded = Jobs(
        replace(job, arrival_ms=job.arrival_ms % span_ms, value_micros=WORTH) for job in hall.jobs.source.jobs
    ).in_order()
    whole = sum(device.speed_milli for device in hall.devices)
    source = replace(hall.jobs.source, span_ms=span_ms, jobs=folded, relative=True)
    found = scaled(source, 1, load * whole / UNIT, chance)
    return workload(found, len(hall.devices), seed)
