"""The port behind which every way of dividing devices stands."""

from __future__ import annotations

from typing import Protocol

from walras.market.types import Outcome, Snapshot


class Mechanism(Protocol):
    """Pure: the same snapshot gives the same outcome. A snapshot is one pool."""

    def clear(self, snapshot: Snapshot) -> Outcome:
        """Decide all pending bids, renewals and displacements of this tick."""

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        """Decide one bid on its arrival, at the posted price. Raises NotFound when it is not pending."""
