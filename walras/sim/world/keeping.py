"""A large pool as the compiled engine keeps it between turns, told of what changed since the last one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from walras.core.errors import Invalid
from walras.market.types import Bid, Device, Escrow, Outcome, Rules
from walras.sim.world.bank import Bank
from walras.sim.world.leases import Leases

if TYPE_CHECKING:
    from walras.market.engine.standing import Standing, Turn

# From so many devices on: what is smaller is decided before the engine is loaded.
LARGE: Final = 1_000
MECHANISMS: Final = ("auction", "fifo")

Find = Callable[[str], Bid | None]


class Keeping:
    """The engine's own copy of one pool's bids and leases. Its owner names the bids that change in `touched`.

    Every method raises Invalid for what the engine does not know: from then on the pool is decided plainly.
    """

    def __init__(self, standing: Standing, bank: Bank, find: Find, leases: Leases) -> None:
        """find: a pending bid by its name, None for one that is gone."""
        self._standing, self._bank, self._find, self._leases = standing, bank, find, leases
        self.touched: dict[str, None] = {}
        self._log = leases.log()
        self._log.update(dict.fromkeys(holding.lease.id for holding in leases))

    def clear(self, now_ms: int, price_micros: int, escrows: tuple[Escrow, ...]) -> Turn:
        """Everything, as `walras.market.mechanism.Mechanism.clear`."""
        self._update()
        return self._standing.clear(now_ms, price_micros, escrows)

    def express(self, bid_id: str, now_ms: int, price_micros: int, escrows: tuple[Escrow, ...]) -> Outcome:
        """One bid on its arrival."""
        self._update()
        return self._standing.express(bid_id, now_ms, price_micros, escrows)

    def excess_milli(self, price_micros: int) -> int:
        """Milli-GPU wanted at that price beyond what the pool has."""
        self._update()
        return self._standing.excess_milli(price_micros)

    def changes_ms(self, now_ms: int) -> int:
        """When a clearing would decide otherwise at the earliest, if nothing happens until then."""
        self._update()
        return self._standing.changes_ms(now_ms)

    def leave(self) -> None:
        """It is no longer kept."""
        self._leases.unlog(self._log)

    def _update(self) -> None:
        self._standing.told.pay(self._bank.available(name) for name in self._bank.weights)
        bids = {name: self._find(name) for name in self.touched}
        leases = self._leases.as_they_are(self._log)
        self.touched.clear()
        self._log.clear()
        self._standing.told.tell(bids, leases)


def keep(
    mechanism: str, devices: tuple[Device, ...], rules: Rules, bank: Bank, find: Find, leases: Leases
) -> Keeping | None:
    """The pool in the engine's hands; None if it does not know such pools."""
    if mechanism not in MECHANISMS:
        return None
    # Loading it takes a second, which small pools do not spend.
    from walras.market.engine.standing import Standing  # noqa: PLC0415

    try:
        standing = Standing(devices, rules, list(bank.weights), priced=mechanism == "auction")
    except Invalid:
        return None
    return Keeping(standing, bank, find, leases)
