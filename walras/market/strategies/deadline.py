"""Deadline: bid low while there is time, and more as slack runs out; the value when none is left."""

from __future__ import annotations

from walras.market.strategies.strategy import Facts, capped


class Deadline:
    """The strategy "deadline".

    Slack is the time until the deadline beyond what the work takes. The bid rises from half the posted price
    (or the value, if that is less) to the value, as the square of the slack that is used up; so it waits for
    low prices first and pays what it must last. After the deadline the work is worth nothing; without one the
    bid is the value.
    """

    def price(self, facts: Facts) -> int:
        if facts.deadline_ms is None:
            return capped(facts.value_micros, facts)
        if facts.now_ms >= facts.deadline_ms:
            return 0
        slack = facts.deadline_ms - facts.now_ms - facts.work_ms
        at_first = facts.deadline_ms - facts.submitted_ms - facts.work_ms
        if slack <= 0 or at_first <= 0:
            return capped(facts.value_micros, facts)
        used = max(0, at_first - slack)
        low = min(facts.value_micros, facts.posted_micros // 2)
        return capped(low + (facts.value_micros - low) * used**2 // at_first**2, facts)
