"""Posted price: first come at a price that everybody sees, and that moves with excess demand."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.pricing import Priced
from walras.market.mechanisms.remembering import elapsed_ms
from walras.market.slow import MINUTE_MS, PRICE_MIN_MICROS, excess_milli, moved
from walras.market.types import Memory, Outcome, Snapshot

NAME: Final = "posted"


class PostedPrice:
    """The mechanism "posted": who pays the price gets what is free, in order of arrival.

    After a clearing the price moves by excess demand (what is wanted at it, over the pool's size, less 1), at
    most 5% a minute, never below the reserve. Leases are renewed at the price of the day. Memory: since when
    the price stands; the price itself is the snapshot's. Work-conserving among those that pay the price.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        price = _price(snapshot)
        excess, elapsed = excess_milli(snapshot, price), elapsed_ms(snapshot, NAME)
        after = moved(snapshot, price, excess, elapsed)
        # What is too little for a whole micro yet adds up.
        waits = excess and after == price and 0 < elapsed < MINUTE_MS
        memory = snapshot.memory if waits else Memory(NAME, snapshot.now_ms)
        return replace(fill(snapshot, Priced(snapshot, price), memory), price_micros=after)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, Priced(snapshot, _price(snapshot)), bid_id)


def _price(snapshot: Snapshot) -> int:
    return max(snapshot.price_micros, snapshot.rules.reserve_micros, PRICE_MIN_MICROS)
