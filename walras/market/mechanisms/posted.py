"""Posted price: first come at a price that everybody sees, and that moves with excess demand."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from walras.core.money import charge
from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.pricing import Priced
from walras.market.mechanisms.remembering import elapsed_ms
from walras.market.types import Memory, Outcome, Snapshot

NAME: Final = "posted"
MINUTE_MS: Final = 60_000
# ln 1.05 in millionths: however short the ticks, a minute of them compounds to 5% at most.
STEP_PPM: Final = 48_790
# Below this a step of 5% a minute is no whole micro.
PRICE_MIN_MICROS: Final = 1_000


class PostedPrice:
    """The mechanism "posted": who pays the price gets what is free, in order of arrival.

    After a clearing the price moves by excess demand (what is wanted at it, over the pool's size, less 1), at
    most 5% a minute, never below the reserve. Leases are renewed at the price of the day. Memory: since when
    the price stands; the price itself is the snapshot's. Work-conserving among those that pay the price.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        price = _price(snapshot)
        excess = _excess_milli(snapshot, price)
        moved = _moved(snapshot, price, excess)
        # What is too little for a whole micro yet adds up.
        waits = excess and moved == price and 0 < elapsed_ms(snapshot, NAME) < MINUTE_MS
        memory = snapshot.memory if waits else Memory(NAME, snapshot.now_ms)
        return replace(fill(snapshot, Priced(snapshot, price), memory), price_micros=moved)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, Priced(snapshot, _price(snapshot)), bid_id)


def _price(snapshot: Snapshot) -> int:
    return max(snapshot.price_micros, snapshot.rules.reserve_micros, PRICE_MIN_MICROS)


def _excess_milli(snapshot: Snapshot, price: int) -> int:
    """Milli-GPU wanted at that price beyond what the pool has, negative when less is wanted."""
    wanted = sum(
        lease.total_milli
        for lease in snapshot.leases
        if lease.state != "draining" and lease.max_price_micros >= price
    )
    for bid in snapshot.bids:
        wanted += max(
            (
                package.total_milli
                for package in bid.packages
                if package.price_micros >= price
                and charge(price, package.total_milli, package.term_ms) <= bid.funds_micros
            ),
            default=0,
        )
    return wanted - sum(device.milli for device in snapshot.devices)


def _moved(snapshot: Snapshot, price: int, excess_milli: int) -> int:
    milli = sum(device.milli for device in snapshot.devices)
    excess = max(-milli, min(milli, excess_milli))
    elapsed = min(MINUTE_MS, elapsed_ms(snapshot, NAME))
    step = price * STEP_PPM * abs(excess) * elapsed // (1_000_000 * MINUTE_MS * max(1, milli))
    floor = max(snapshot.rules.reserve_micros, PRICE_MIN_MICROS)
    return max(floor, price + step if excess > 0 else price - step)
