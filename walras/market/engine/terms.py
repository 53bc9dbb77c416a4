"""The rules by which leases go on, go, or are displaced, at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from walras.core.errors import Invalid
from walras.market.engine.amounts import PERCENT_MAX


@dataclass(frozen=True, slots=True)
class Terms:
    """As in `walras.market.types.Rules`. Raises Invalid for a margin that is out of bounds."""

    quantum_ms: int
    epsilon_percent: int
    notice_ms: int = 0
    tick_ms: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon_percent <= PERCENT_MAX - 100:
            raise Invalid(f"a margin of {self.epsilon_percent}% is out of bounds")

    @property
    def percent(self) -> int:
        """What must be offered of what is displaced."""
        return 100 + self.epsilon_percent

    def begun_by(self, now_ms: int) -> int:
        """Leases that started later may not be displaced yet."""
        return now_ms - self.quantum_ms

    def horizon(self, now_ms: int) -> int:
        """Leases that end by then are up for renewal."""
        return now_ms + self.notice_ms + self.tick_ms
