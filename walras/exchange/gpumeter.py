"""What each lease did with its devices, by readings of the cards, as far as these tell. Pure.

A whole card's use is its lease's. Under MPS and time slices the driver tells memory and compute of every
process; energy is parted by who computed. Of instances it tells memory alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from walras.cost.usage import GpuUse
from walras.devices.arrangement import Technique
from walras.runtimes.gpus.cards import Reading, Use

# What CUDA takes for itself in every process, which is not what a program asked for.
CONTEXT_MIB: Final = 640


@dataclass(frozen=True, slots=True)
class Occupant:
    """A lease on a card, with the processes of its pods; `instance` is the driver's number of one."""

    lease: str
    device: str
    technique: Technique
    pids: Collection[int] = ()
    instance: int | None = None
    memory_mib: int = 0


class GpuMeter:
    """Sums by lease and device since last taken. A reading counts for the time since the one before."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int | None]] = {}
        self._sums: dict[tuple[str, str], GpuUse] = {}

    def read(self, uuid: str, reading: Reading, occupants: Sequence[Occupant], at_ms: int) -> None:
        """Take in a reading of a card and who was on it."""
        since_ms, had_mj = self._last.get(uuid, (at_ms, reading.energy_mj))
        self._last[uuid] = at_ms, reading.energy_mj
        span_ms = max(0, at_ms - since_ms)
        told = reading.energy_mj is not None and had_mj is not None
        spent_mj = max(0, (reading.energy_mj or 0) - (had_mj or 0)) if told else 0
        busy: list[int] = [_busy_percent(each, reading) for each in occupants]
        computed = sum(busy)
        for each, percent in zip(occupants, busy, strict=True):
            energy = 0
            if each.technique is Technique.EXCLUSIVE:
                energy = spent_mj
            elif each.technique is not Technique.MIG and computed:
                energy = spent_mj * percent // computed
            self._add(each, percent * span_ms // 100, _memory_mib(each, reading) * span_ms, energy)

    def _add(self, who: Occupant, busy_ms: int, memory_mib_ms: int, energy_mj: int) -> None:
        had = self._sums.get((who.lease, who.device), GpuUse())
        self._sums[who.lease, who.device] = GpuUse(
            had.busy_ms + busy_ms, had.memory_mib_ms + memory_mib_ms, had.energy_mj + energy_mj
        )

    def take(self, lease: str, device: str) -> GpuUse:
        """What the lease did with the device since this was last asked."""
        return self._sums.pop((lease, device), GpuUse())


def overdrawn(reading: Reading, occupants: Sequence[Occupant]) -> list[tuple[Occupant, tuple[Use, ...]]]:
    """Who uses more of a shared card's memory than its part, with its processes there.

    Cards and instances are nobody else's, so what is used of them is their holder's affair.
    """
    found = []
    for who in occupants:
        if who.technique in (Technique.MPS, Technique.TIMESLICE):
            uses = tuple(_of(who, reading))
            if sum(use.memory_mib for use in uses) > who.memory_mib + CONTEXT_MIB * len(uses):
                found.append((who, uses))
    return found


def _of(who: Occupant, reading: Reading) -> list[Use]:
    if who.technique is Technique.MIG:
        return [use for use in reading.uses if use.instance == who.instance]
    return [use for use in reading.uses if use.pid in who.pids]


def _busy_percent(who: Occupant, reading: Reading) -> int:
    if who.technique is Technique.EXCLUSIVE:
        return reading.utilisation_percent or 0
    if who.technique is Technique.MIG:
        return 0
    return min(100, sum(use.sm_percent or 0 for use in _of(who, reading)))


def _memory_mib(who: Occupant, reading: Reading) -> int:
    if who.technique is Technique.EXCLUSIVE:
        return reading.memory_used_mib
    return sum(use.memory_mib for use in _of(who, reading))
