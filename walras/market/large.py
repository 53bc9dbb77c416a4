"""Large snapshots go to the compiled engine, when it knows all that is in them."""

from __future__ import annotations

from typing import Final

from walras.core.errors import Invalid
from walras.market.types import Outcome, Snapshot

# Bids x devices. Above it the plain auction takes a tenth of a second and more; the engine decides in a tenth
# of that, but loading it takes a second, once.
LARGE: Final = 20_000


def is_large(snapshot: Snapshot) -> bool:
    """Whether the engine would be faster."""
    return len(snapshot.bids) * len(snapshot.devices) >= LARGE


def decided(snapshot: Snapshot, bid_id: str | None = None) -> Outcome | None:
    """What the engine decides for all bids, or for one on its arrival, by the auction's rules; None for a
    snapshot that is small, has something that the engine does not know, or is out of its bounds."""
    if not is_large(snapshot):
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
