"""What one side did, from what was measured, and the arithmetic for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all do not exceed (nearest rank); 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Audit:
    """Micro-credits for the same leases as ledger, meters and cost reports say them."""

    ledger_micros: int
    meters_micros: int
    cost_micros: dict[str, int]
    books_balance: bool

    @property
    def agrees(self) -> bool:
        every = {self.ledger_micros, self.meters_micros, *self.cost_micros.values()}
        return self.books_balance and len(every) == 1


@dataclass(frozen=True, slots=True)
class Figures:
    """One side. Latencies are from arrival to answer; an unanswered query counts with the time it waited."""

    query_p50_ms: float
    query_p99_ms: float
    queries: int
    unanswered: int
    train_tokens: int
    train_loss: float
    documents_embedded: int
    gpu_utilisation: float  # CPU used by leases over the CPU of all devices
    gpu_leased: float  # device time under lease over all device time
    displacements: int
    seconds: float
    other_cores: float  # what programs that are not the demo's took of its cores
    spend: dict[str, float] = field(default_factory=dict)  # credits by agent
    audit: Audit | None = None

    def as_object(self) -> dict[str, Any]:
        found = asdict(self)
        audit = found.pop("audit")
        if self.audit is not None:
            found["audit"] = {**audit, "agrees": self.audit.agrees}
        return found


@dataclass(frozen=True, slots=True)
class Meters:
    """Totals since a server began; the difference of two is what happened between."""

    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    loss: float = 0.0
    documents: int = 0
    displacements: int = 0
    busy_s: float = 0.0  # of the demo's cores, by whatever program
    own_s: float = 0.0  # of that, by server and driver
    spent_micros: dict[str, int] = field(default_factory=dict)


def figures(
    before: Meters, after: Meters, latencies_ms: Sequence[float], unanswered: int, seconds: float,
    devices: int, cpu_per_device: float, audit: Audit | None,
) -> Figures:  # fmt: skip
    """`cpu_per_device` in cores."""
    device_seconds = seconds * devices
    return Figures(
        query_p50_ms=round(percentile(latencies_ms, 50), 1),
        query_p99_ms=round(percentile(latencies_ms, 99), 1),
        queries=len(latencies_ms),
        unanswered=unanswered,
        train_tokens=after.tokens - before.tokens,
        train_loss=round(after.loss, 3),
        documents_embedded=after.documents - before.documents,
        gpu_utilisation=round(
            (after.cpu_seconds - before.cpu_seconds) / (device_seconds * cpu_per_device), 4
        ),
        gpu_leased=round((after.gpu_seconds - before.gpu_seconds) / device_seconds, 4),
        displacements=after.displacements - before.displacements,
        seconds=round(seconds, 2),
        other_cores=round(max(0.0, _others(after) - _others(before)) / seconds, 2),
        spend={
            agent: round((micros - before.spent_micros.get(agent, 0)) / 1e6, 6)
            for agent, micros in sorted(after.spent_micros.items())
        },
        audit=audit,
    )


def _others(meters: Meters) -> float:
    return meters.busy_s - meters.own_s - meters.cpu_seconds
