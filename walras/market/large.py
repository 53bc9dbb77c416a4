"""Large snapshots go to the compiled engine, when it knows all that is in them.

The engine decides as the plain auction does; it is faster where there is much to decide. Loading it takes a
second, compiling it for the first time on a machine a minute, and the one who asks first waits for that. A
server can not: it defers, clears plainly, and loads the engine beside its work once that is wanted.
"""

from __future__ import annotations

from typing import Final

from walras.core.errors import Invalid
from walras.market.types import Bid, Device, Lease, LeaseState, Outcome, Package, Rules, Share, Snapshot

# Bids x devices. Above it the plain auction takes a tenth of a second and more; the engine decides in a tenth
# of that, but loading it takes a second, once.
LARGE: Final = 20_000


class Loading:
    """Whether the engine may be used now, and whether it would have been. Changes no decision."""

    def __init__(self) -> None:
        self.deferred = False
        self.wanted = False


loading: Final = Loading()


def is_large(snapshot: Snapshot, least: int = LARGE) -> bool:
    """Whether the engine would be faster."""
    return len(snapshot.bids) * len(snapshot.devices) >= least


def decided(snapshot: Snapshot, bid_id: str | None = None, least: int = LARGE) -> Outcome | None:
    """What the engine decides for all bids, or for one on its arrival, by the auction's rules; None for a
    snapshot that is smaller than `least`, has something that the engine does not know, or is out of its
    bounds."""
    if not is_large(snapshot, least):
        return None
    if loading.deferred:
        loading.wanted = True
        return None
    # No command and no small clearing waits for the compiler to be loaded.
    from walras.market.engine.answers import answer, answer_one  # noqa: PLC0415
    from walras.market.engine.supports import knows  # noqa: PLC0415

    if not knows(snapshot):
        return None
    try:
        return answer(snapshot) if bid_id is None else answer_one(snapshot, bid_id)
    except Invalid:
        return None


def load() -> None:
    """Load the engine, compiled for all that it is ever given, and use it from now on."""
    from walras.market.engine.answers import answer, answer_one  # noqa: PLC0415

    sample = _sample()
    answer(sample)
    for bid in sample.bids[:6]:
        answer_one(sample, bid.id)
    loading.deferred = False


def _sample() -> Snapshot:
    """A market in which everything happens that the engine knows."""
    now_ms, price = 10**9, 10**6
    devices = tuple(Device(f"d{at}", f"n{at // 4}", "m", at, 80_000) for at in range(8))

    def lease(
        at: int, *shares: Share, worth: int = price, left_ms: int = 60_000, state: LeaseState = "active"
    ) -> Lease:
        drains_ms = now_ms + 1_000 if state == "draining" else None
        return Lease(
            *(f"l{at}", f"l{at}", f"a{at % 3}", "batch", shares, price // 2, worth, 10, 60_000),
            *(now_ms - 60_000, now_ms + left_ms, 10**9, state, drains_ms),
        )

    def bid(at: int, *packages: Package, urgent: bool = False) -> Bid:
        return Bid(f"b{at}", f"a{at % 5}", "latency" if urgent else "batch", packages, 10, now_ms - at, 10**9)

    whole, half, gang = (Package(*each, 0, 60_000, 3 * price) for each in ((1, 1000), (1, 500), (3, 1000)))
    leases = (
        lease(0, Share("d0", 500, 40_000), left_ms=10),
        lease(1, Share("d0", 500, 40_000), left_ms=10, worth=9 * price),
        lease(2, Share("d1", 1000, 80_000), Share("d2", 1000, 80_000)),
        lease(3, Share("d3", 250, 20_000), state="draining"),
        lease(4, Share("d3", 250, 20_000), state="reserved"),
        lease(5, *(Share(f"d{at}", 300, 20_000) for at in (4, 5, 6)), worth=price // 10),
    )
    kinds = ((whole,), (half,), (gang,), (whole, half), (gang, half), (half,), (whole,))
    bids = tuple(bid(at, *kind, urgent=at % 2 == 0) for at, kind in enumerate(kinds * 3))
    return Snapshot(now_ms, Rules(), devices, leases, bids, price)
