"""SLO: a latency has a value, and a share is worth what it adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from walras.market.strategies.strategy import Facts, capped
from walras.market.types import JobClass

PERMILLE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Curve:
    """The worth of a latency in thousandths: all up to `good_ms`, none from `bad_ms`, a line between."""

    good_ms: int
    bad_ms: int

    def permille(self, latency_ms: int) -> int:
        """Between 0 and 1000; never rises with the latency."""
        span = max(1, self.bad_ms - self.good_ms)
        return max(0, min(PERMILLE, (self.bad_ms - latency_ms) * PERMILLE // span))


def _curves() -> dict[JobClass, Curve]:
    return {
        "latency": Curve(100, 1_000),
        "standard": Curve(1_000, 30_000),
        "batch": Curve(60_000, 3_600_000),
    }


@dataclass(frozen=True, slots=True)
class Slo:
    """The strategy "slo": the value, times what of it the share brings back by the latency curve, that of the
    facts or else the class'.

    Where latencies are fine already it bids nothing; where nobody measures them, the value.
    """

    curves: Mapping[JobClass, Curve] = field(default_factory=_curves)

    def price(self, facts: Facts) -> int:
        if facts.latency_without_ms is None or facts.latency_with_ms is None:
            return capped(facts.value_micros, facts)
        curve = self.curves[facts.job_class]
        if facts.slo_good_ms is not None and facts.slo_bad_ms is not None:
            curve = Curve(facts.slo_good_ms, facts.slo_bad_ms)
        gained = curve.permille(facts.latency_with_ms) - curve.permille(facts.latency_without_ms)
        return capped(facts.value_micros * max(0, gained) // PERMILLE, facts)
