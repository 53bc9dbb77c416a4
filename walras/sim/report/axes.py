"""Scales of a plot: round ticks, linear or logarithmic, and how numbers are written at them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

DECADES_FOR_LOG = 2.0


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is drawn; what is beyond the ends is drawn at them."""
        part = (
            (_log10(value) - _log10(self.low)) / (_log10(self.high) - _log10(self.low))
            if self.log
            else ((value - self.low) / (self.high - self.low))
        )
        return self.start + max(0.0, min(1.0, part)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends: 1, 2 or 5 times a power of ten, or the powers themselves."""
        if self.log:
            found = [10.0**power for power in range(-4, 10)]
            return [each for each in found if self.low <= each <= self.high]
        step = _step(self.high - self.low)
        first = -(-self.low // step)
        ticks = [(first + number) * step for number in range(12)]
        return [tick for tick in ticks if tick <= self.high * (1 + 1e-9)]


def linear(values: Sequence[float], start: float, end: float) -> Scale:
    """From 0, or less where there is less, to a round number above the highest and not below 0."""
    high, low = (max(0.0, *values), min(0.0, *values)) if values else (1.0, 0.0)
    step = _step((high - low) or 1.0)
    top = -(-high // step) * step
    return Scale(low, top if top > low else low + 1.0, start, end)


def spanning(values: Sequence[float], start: float, end: float) -> Scale:
    """From the lowest to the highest as they are; logarithmic where they span two decades."""
    positive = [value for value in values if value > 0]
    if positive and _log10(max(positive)) - _log10(sorted(positive)[len(positive) // 50]) >= DECADES_FOR_LOG:
        low = 10.0 ** (_log10(sorted(positive)[len(positive) // 50]) // 1)
        return Scale(low, max(positive), start, end, log=True)
    high = max(values, default=1.0)
    return Scale(min(0.0, *values) if values else 0.0, high if high > 0 else 1.0, start, end)


def number(value: float) -> str:
    """As short as it can be read: 0.05, 1.5, 200, 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"


def _step(span: float) -> float:
    """A round step that fits four to ten times into a span."""
    power = float(10.0 ** (_log10(span) // 1))
    for factor in (0.1, 0.2, 0.5, 1.0):
        if span / (factor * power) <= 6:
            return factor * power
    return 2.0 * power


def _log10(value: float) -> float:
    return log10(max(value, 1e-12))
