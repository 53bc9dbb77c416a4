"""A run as series for plots: over time, over the load that arrived, and as distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from walras.core.money import MICROS
from walras.sim.study import Series
from walras.sim.world.figures import Figures, percentile
from walras.sim.world.workload import Ints

MINUTE_MS = 60_000
POINTS = 100


def series(figures: Figures) -> dict[str, Series]:
    """By short name; those that the workload has."""
    found = {"allocation": _allocation(figures), "load": _over_load(figures)}
    if len(figures.jct_ms):
        found["jct"] = _distribution("Job completion time", figures.jct_ms)
    if figures.world.services:
        latencies = [
            latency for each in figures.world.services for latency in figures.latencies_ms(each).tolist()
        ]
        if latencies:
            found["latency"] = _distribution("Request latency", latencies)
    if len(figures.waits_ms):
        found["wait"] = _distribution("Wait for the first lease", figures.waits_ms)
    if any(sample.price_micros for sample in figures.recorder.samples):
        found["price"] = _price(figures)
    return {**found, "shares": _shares(figures), "waits": _waits(figures)}


def _minutes(figures: Figures) -> list[float]:
    return [sample.at_ms / MINUTE_MS for sample in figures.recorder.samples]


def _allocated(figures: Figures) -> list[float]:
    return [
        100 * sum(sample.held.values()) / max(1, sample.pool_milli) for sample in figures.recorder.samples
    ]


def _allocation(figures: Figures) -> Series:
    columns = {"time": _minutes(figures), "allocated": _allocated(figures)}
    return Series("Allocation", columns, x_unit="min", y_unit="% of the pool")


def _over_load(figures: Figures) -> Series:
    """What is allocated when so much work has come, in percent of all that the pool can do in the span."""
    workload, samples = figures.world.workload, figures.recorder.samples
    at, work = figures.tally.arrivals
    at = np.concatenate((at, *(stream.arrivals_ms for stream in workload.streams)))
    work = np.concatenate((work, *(stream.works_ms for stream in workload.streams)))
    order = np.argsort(at, kind="stable")
    times, sums = at[order], np.concatenate(([0], np.cumsum(work[order])))
    whole = max(1, figures.world.pool_milli * workload.span_ms)
    loads, allocated = [], []
    for sample, percent in zip(samples, _allocated(figures), strict=True):
        if sample.at_ms <= workload.span_ms:
            loads.append(100_000 * int(sums[np.searchsorted(times, sample.at_ms, "right")]) / whole)
            allocated.append(percent)
    columns = {"arrived": loads, "allocated": allocated}
    return Series(
        "Allocation over arrived load", columns, x_unit="% of the pool's time", y_unit="% of the pool"
    )


def _price(figures: Figures) -> Series:
    prices = [sample.price_micros / MICROS for sample in figures.recorder.samples]
    return Series("Price", {"time": _minutes(figures), "price": prices}, x_unit="min", y_unit="credits/GPU-h")


def _shares(figures: Figures) -> Series:
    columns: dict[str, Sequence[float]] = {"time": _minutes(figures)}
    for agent in figures.world.workload.agents:
        columns[agent.name] = [
            100 * sample.held.get(agent.name, 0) / max(1, sample.pool_milli)
            for sample in figures.recorder.samples
        ]
    return Series("Share of each agent", columns, x_unit="min", y_unit="% of the pool")


def _waits(figures: Figures) -> Series:
    percents = list(range(0, 101, 5))
    columns: dict[str, Sequence[float]] = {"percentile": percents}
    for agent, waits in figures.waits_by_agent.items():
        columns[agent] = [percentile(waits, percent) / 1000 for percent in percents]
    return Series("Who waited how long", columns, x_unit="% of its bids", y_unit="s, at most")


def _distribution(title: str, values_ms: Sequence[int] | Ints) -> Series:
    """How many percent are not above which time, at so many points."""
    ranked = np.sort(np.array(values_ms, np.int64))
    percents = np.arange(1, POINTS + 1)
    at = np.maximum(0, -(-len(ranked) * percents // POINTS) - 1)
    columns = {"time": (ranked[at] / 1000).tolist(), "done": [float(percent) for percent in percents]}
    return Series(title, columns, x_unit="s", y_unit="% of all")
