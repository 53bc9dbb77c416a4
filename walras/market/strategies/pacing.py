"""Adaptive pacing (Balseiro and Gur, Management Science 2019): shade bids so that a budget lasts its horizon.

The bid is value / (1 + mu). After each period mu moves against the gap between what was to be spent and what
was: up after overspending, down after underspending, within [0, MU_MAX].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from walras.core.money import HOUR_MS
from walras.market.strategies.strategy import MU_ONE, Facts, PacingState, capped

# At most a hundredth of the value is left of a bid.
MU_MAX: Final = 99 * MU_ONE


@dataclass(frozen=True, slots=True)
class Pacing:
    """The strategy "pacing".

    gain_ms: spending twice the target for so long raises mu by 1. horizon_ms: over which a balance is spent.
    cushion_ms: so much of the income stays in the balance, to cover terms with.
    """

    gain_ms: int = 300_000
    horizon_ms: int = 24 * HOUR_MS
    cushion_ms: int = HOUR_MS

    def price(self, facts: Facts) -> int:
        return capped(facts.value_micros * MU_ONE // (MU_ONE + facts.pacing.mu), facts)

    def target(self, income_micros_per_hour: int, balance_micros: int) -> int:
        """What to spend, in micros an hour: the income, and what the balance has beyond its cushion."""
        cushion = income_micros_per_hour * self.cushion_ms // HOUR_MS
        return max(0, income_micros_per_hour + (balance_micros - cushion) * HOUR_MS // self.horizon_ms)

    def observe(
        self, state: PacingState, now_ms: int, spent_micros: int, target_micros_per_hour: int
    ) -> PacingState:
        """The state after a period that ends now, in which so much was spent."""
        elapsed_ms = max(0, now_ms - state.at_ms)
        over = spent_micros * HOUR_MS - target_micros_per_hour * elapsed_ms
        unit = max(1, target_micros_per_hour) * self.gain_ms
        step = abs(over) * MU_ONE // unit
        mu = state.mu + step if over > 0 else state.mu - step
        return PacingState(max(0, min(MU_MAX, mu)), now_ms)
