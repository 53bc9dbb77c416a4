"""The slow time scale: the posted price follows demand, and the reserve price follows how full the pool is.

A price that jumps with every clearing invites bids that are timed for it; so what a bid pays on its arrival
moves by excess demand, as an auctioneer calls prices (Walras' tatonnement), at most 5% a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from walras.core.money import charge
from walras.market.ground import Ground, at_speed
from walras.market.types import Bid, Package, Snapshot

MINUTE_MS: Final = 60_000
# ln 1.05 in millionths: however short the ticks, a minute of them compounds to 5% at most.
STEP_PPM: Final = 48_790
# Below this a step of 5% a minute is no whole micro.
PRICE_MIN_MICROS: Final = 1_000
# The reserve begins to rise where so much of the pool is under lease.
FULL_PERCENT: Final = 80


@dataclass(frozen=True, slots=True)
class Slow:
    """Prices per GPU-hour at speed 1000, and since when they stand."""

    posted_micros: int
    reserve_micros: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Load:
    """A pool at one moment: what it has, what of that is under lease, and what is wanted beyond what it has
    at the posted price. `reserve_micros` is that of the pool's rules."""

    now_ms: int
    reserve_micros: int
    milli: int
    leased_milli: int
    excess_milli: int


def step(slow: Slow, snapshot: Snapshot, *, reserve_micros: int, reserve_max_micros: int) -> Slow:
    """The prices after a clearing of that snapshot; `slow` are those before it.

    The reserve lies between `reserve_micros` and `reserve_max_micros`, in proportion to how much more than
    FULL_PERCENT of the pool is under lease; the posted price is never below it.
    """
    load = Load(
        snapshot.now_ms,
        snapshot.rules.reserve_micros,
        sum(device.milli for device in snapshot.devices),
        sum(lease.total_milli for lease in snapshot.leases if lease.state != "reserved"),
        excess_milli(snapshot, slow.posted_micros),
    )
    return step_by(slow, load, reserve_micros=reserve_micros, reserve_max_micros=reserve_max_micros)


def step_by(slow: Slow, load: Load, *, reserve_micros: int, reserve_max_micros: int) -> Slow:
    """The same of a pool of which that is known."""
    elapsed_ms = max(0, load.now_ms - slow.at_ms)
    posted = _moved(load, slow.posted_micros, elapsed_ms)
    target = _reserve(load, reserve_micros, max(reserve_micros, reserve_max_micros))
    most = _most(slow.reserve_micros, elapsed_ms)
    reserve = max(slow.reserve_micros - most, min(slow.reserve_micros + most, target))
    reserve = max(reserve_micros, reserve)
    # What is too little for a whole micro yet adds up, unless the reserve has moved for that time.
    unmoved = (posted, reserve) == (slow.posted_micros, slow.reserve_micros)
    waits = unmoved and load.excess_milli != 0 and elapsed_ms < MINUTE_MS
    return Slow(max(posted, reserve), reserve, slow.at_ms if waits else load.now_ms)


def excess_milli(snapshot: Snapshot, price_micros: int) -> int:
    """Milli-GPU wanted at that price beyond what the pool has, negative when less is wanted."""
    ground = Ground(snapshot.devices)

    def wants(package: Package, bid: Bid) -> bool:
        eligible = ground.devices.keys() if package.eligible is None else package.eligible
        price = at_speed(price_micros, min(map(ground.speed, eligible), default=0))
        cost = charge(price, package.total_milli, package.term_ms)
        return bid.worth_micros(package.price_micros, snapshot.now_ms) >= price and cost <= bid.funds_micros

    wanted = 0
    for lease in snapshot.leases:
        speed = max(ground.speed(share.device) for share in lease.shares)
        if lease.state != "draining" and lease.max_price_micros >= at_speed(price_micros, speed):
            wanted += lease.total_milli
    for bid in snapshot.bids:
        wanted += max((each.total_milli for each in bid.packages if wants(each, bid)), default=0)
    return wanted - sum(device.milli for device in snapshot.devices)


def moved(snapshot: Snapshot, price_micros: int, excess_milli: int, elapsed_ms: int) -> int:
    """The price after that time of so much excess demand: in proportion to it, at most 5% a minute."""
    milli = sum(device.milli for device in snapshot.devices)
    load = Load(snapshot.now_ms, snapshot.rules.reserve_micros, milli, 0, excess_milli)
    return _moved(load, price_micros, elapsed_ms)


def _moved(load: Load, price_micros: int, elapsed_ms: int) -> int:
    milli = max(1, load.milli)
    excess = max(-milli, min(milli, load.excess_milli))
    change = _most(price_micros, elapsed_ms) * abs(excess) // milli
    floor = max(load.reserve_micros, PRICE_MIN_MICROS)
    return max(floor, price_micros + change if excess > 0 else price_micros - change)


def _most(price_micros: int, elapsed_ms: int) -> int:
    """By how much a price may move in that time."""
    return price_micros * STEP_PPM * min(MINUTE_MS, elapsed_ms) // (1_000_000 * MINUTE_MS)


def _reserve(load: Load, least: int, most: int) -> int:
    """The reserve of a pool that is as full as this one for long."""
    above = max(0, min(100, 100 * load.leased_milli // max(1, load.milli)) - FULL_PERCENT)
    return least + (most - least) * above // (100 - FULL_PERCENT)
