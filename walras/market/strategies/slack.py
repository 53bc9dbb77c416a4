"""Slack: what can wait bids more the shorter it is; what can wait no longer bids most of all."""

from __future__ import annotations

from dataclasses import dataclass

from walras.core.money import HOUR_MS
from walras.market.strategies.strategy import Facts, capped


@dataclass(frozen=True, slots=True)
class Slack:
    """A strategy for work that knows how long it still takes; no agent's policy can name it so far.

    Slack is the time until the deadline beyond what the work takes. While there is more of it than a margin,
    the bid is below half the value, and higher the less work is left: so where all bid alike, short work goes
    first, which makes the mean time to completion small. With less it is above half, and rises towards the
    value with what is missing. Past the deadline it bids on. Without a deadline there is always slack.

    margin_ms, margin_percent: the margin, in time and of the work that is left. unit_ms: the work with which
    half of half is bid, and the missing slack with which three quarters are.
    """

    margin_ms: int = 600_000
    margin_percent: int = 10
    unit_ms: int = HOUR_MS

    def price(self, facts: Facts) -> int:
        half = facts.value_micros // 2
        if facts.deadline_ms is not None:
            slack_ms = facts.deadline_ms - facts.now_ms - facts.work_ms
            missing_ms = self.margin_ms + facts.work_ms * self.margin_percent // 100 - slack_ms
            if missing_ms >= 0:
                above = (facts.value_micros - half) * missing_ms // (missing_ms + self.unit_ms)
                return capped(half + above, facts)
        return capped(half * self.unit_ms // (self.unit_ms + facts.work_ms), facts)
