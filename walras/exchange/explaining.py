"""A refusal as its agent sees it: on the Bid, as an Event, and again only when it says something new."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from walras.core.errors import WalrasError
from walras.core.money import format_credits
from walras.exchange.book import bid_id
from walras.exchange.effects import Effects
from walras.exchange.turns import PACKAGES_A_TURN
from walras.kube.record import Object
from walras.market.types import Explanation

# Prices and places move every tick; a status that followed each would be all that the store writes.
REFRESH_MS: Final = 3_000
# A winning price takes several clearings to find; the bids take turns.
SEARCHES_A_TICK: Final = 8
QUEUED: Final = "Queued"
QUEUED_MESSAGE: Final = (
    f"other bids of this agent come first: the market looks at {PACKAGES_A_TURN} packages of each agent at a "
    "time, those that pay most; raise maxPrice or take some away"
)
QUEUED_TOLD_A_TICK: Final = 32


def shown(explanation: Explanation) -> Object:
    """An explanation as in the status of a Bid."""
    found: Object = {
        "reason": str(explanation.reason),
        "message": explanation.message,
        "constraint": str(explanation.constraint),
        "clearingPrice": format_credits(explanation.clearing_price_micros),
        "position": explanation.position,
    }
    if explanation.winning_price_micros is not None:
        found["winningPrice"] = format_credits(explanation.winning_price_micros)
    return found


class Explainer:
    """Remembers what each refused bid was last told, and when."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, Object]] = {}

    def forget(self, identity: str) -> None:
        self._told.pop(identity, None)

    def turn(self, identities: Iterable[str]) -> frozenset[str]:
        """The bids whose winning price is looked for this time: those that were told nothing for longest."""

        def told_ms(identity: str) -> int:
            return self._told.get(identity, (0, {}))[0]

        return frozenset(heapq.nsmallest(SEARCHES_A_TICK, identities, key=told_ms))

    def refuse(
        self, fx: Effects, cluster: str, bid: Object, explanation: Explanation, now_ms: int, *, searched: bool
    ) -> None:
        """Stage the explanation on the Bid, at once when its reason is new.

        One for which no winning price was looked for is only for a bid that was told nothing yet.
        """
        if not searched and bid_id(cluster, bid) in self._told:
            return
        self._show(fx, cluster, bid, shown(explanation), now_ms)

    def unreadable(self, fx: Effects, cluster: str, bid: Object, error: WalrasError, now_ms: int) -> None:
        """Stage the refusal of a bid that the market cannot even be told of."""
        self._show(fx, cluster, bid, {"reason": error.reason, "message": error.message}, now_ms)

    def queue(self, fx: Effects, waiting: Sequence[tuple[str, Object]], now_ms: int) -> None:
        """Stage, for a few of those that were told nothing yet, that other bids of their agent come first."""
        untold = (item for item in waiting if bid_id(*item) not in self._told)
        for cluster, bid in islice(untold, QUEUED_TOLD_A_TICK):
            self._show(fx, cluster, bid, {"reason": QUEUED, "message": QUEUED_MESSAGE}, now_ms)

    def _show(self, fx: Effects, cluster: str, bid: Object, shown: Object, now_ms: int) -> None:
        identity = bid_id(cluster, bid)
        told_ms, told = self._told.get(identity, (0, {}))
        is_new = told.get("reason") != shown["reason"]
        if not (is_new or now_ms - told_ms >= REFRESH_MS):
            return
        self._told[identity] = (now_ms, shown)
        if told == shown:
            return
        metadata = bid["metadata"]
        fx.set_bid(
            cluster,
            metadata["namespace"],
            metadata["name"],
            phase="Refused",
            explanation=shown,
            observedGeneration=metadata.get("generation", 1),
        )
        if is_new:
            fx.tell_bidder(cluster, bid, shown["reason"], shown["message"], warn=True)
