"""Small workloads for the simulation, in whole seconds."""

from __future__ import annotations

import numpy as np

from walras.core.money import MICROS
from walras.sim.world.training import JobRun
from walras.sim.world.workload import Agent, Job, Stream, Workload
from walras.sim.world.world import World, devices


def agent(name: str, *, worth: int = 2, **more: object) -> Agent:
    """One with more money than it needs, to whom a GPU-hour is worth so many credits."""
    rich = {"balance_micros": 1000 * MICROS, "cap_micros": 2000 * MICROS, **more}
    return Agent(name, value_micros=worth * MICROS, **rich)  # type: ignore[arg-type]


def job(name: str, owner: str, arrival_s: int, work_s: int, *, worth: int = 2, **more: object) -> Job:
    """So much work on one device, unless more is said."""
    return Job(name, owner, 1000 * arrival_s, 1000 * work_s, value_micros=worth * MICROS, **more)  # type: ignore[arg-type]


def stream(owner: str, arrivals_ms: list[int], works_ms: list[int], **more: object) -> Stream:
    return Stream(owner, np.array(arrivals_ms, np.int64), np.array(works_ms, np.int64), **more)  # type: ignore[arg-type]


def world(
    mechanism: str,
    gpus: int,
    agents: list[Agent],
    jobs: list[Job] | None = None,
    streams: list[Stream] | None = None,
    *,
    span_s: int = 600,
) -> World:
    """A world that is ready to run."""
    load = Workload(tuple(agents), tuple(jobs or ()), tuple(streams or ()), 1000 * span_s)
    return World(load, mechanism, devices(gpus))


def played(world: World) -> list[JobRun]:
    """Its jobs in order of arrival, after it has run to its end."""
    runs: list[JobRun] = []
    world.arrived = runs.append
    world.run()
    return runs
