"""Fixed: the value is the bid. Right where a clearing asks no more than the best losing bid."""

from __future__ import annotations

from walras.market.strategies.strategy import Facts, capped


class Fixed:
    """The strategy "fixed"."""

    def price(self, facts: Facts) -> int:
        return capped(facts.value_micros, facts)
