"""What the exchange knows of a lease: a row of its own, of which the GPULease object is the projection."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from walras.core.clock import rfc3339
from walras.core.money import charge, format_credits
from walras.core.quantity import format_mib
from walras.kube.record import Object
from walras.market import types as market

LEASES: Final = "gpuleases.walras.dev"
LEASE_LABEL: Final = "walras.dev/lease"
BID_LABEL: Final = "walras.dev/bid"

Phase = Literal["Reserved", "Active", "Draining", "Ended"]
_STATES: Final[dict[str, Literal["reserved", "active", "draining"]]] = {
    "Reserved": "reserved",
    "Active": "active",
    "Draining": "draining",
}


class Term(msgspec.Struct, frozen=True):
    """A term that a lease goes on for when the present one is over, with money on hold for it."""

    hold: str
    price_micros: int
    start_ms: int


class Holding(msgspec.Struct, kw_only=True):
    """A lease and its money. Times are epoch milliseconds, prices micro-credits a whole GPU-hour.

    price_micros, hold and captured_micros are of the present term; end_ms is the end of the last.
    """

    id: str
    agent: str
    namespace: str
    name: str
    node: str
    bid: str
    job_class: market.JobClass
    pool: str
    shares: tuple[market.Share, ...]
    price_micros: int
    # What the share is worth to the holder, by the package of its bid that won; locked for a term.
    worth_micros: int
    restart_cost_micros: int
    term_ms: int
    enforcement: str
    phase: Phase
    start_ms: int
    end_ms: int
    hold: str
    # The present term began here; what was captured of its hold so far.
    term_start_ms: int
    captured_micros: int = 0
    # Over all terms of the lease.
    charged_micros: int = 0
    metered_ms: int = 0
    metered_until_ms: int = 0
    # Time of the present term that was not served (the server was down) and is not charged.
    gap_ms: int = 0
    drains_at_ms: int = 0
    reason: str = ""
    message: str = ""
    pod: str = ""
    terms: int = 1
    following: tuple[Term, ...] = ()
    priority: int = 0
    # For which the holder gives up the rest of the term; None: for nothing.
    resale_micros: int | None = None
    package: int = 0
    # Of the cards of its shares, in their order: the same numbers may be other cards' after a restart.
    uuids: tuple[str, ...] = ()

    @property
    def milli(self) -> int:
        """Thousandths of a device over all shares."""
        return sum(share.milli for share in self.shares)

    @property
    def holds(self) -> tuple[str, ...]:
        """All money that is set aside for it."""
        return (self.hold, *(term.hold for term in self.following))

    @property
    def term_end_ms(self) -> int:
        """The end of the present term."""
        return self.following[0].start_ms if self.following else self.end_ms

    def cost_of_term(self) -> int:
        """What the present term costs when it is served whole."""
        return charge(self.price_micros, self.milli, self.term_end_ms - self.term_start_ms)

    def next_term(self) -> None:
        """Go on to the following term, whatever of it is over already unserved."""
        term, *rest = self.following
        self.hold, self.price_micros, self.term_start_ms = term.hold, term.price_micros, term.start_ms
        self.captured_micros, self.gap_ms = 0, max(0, self.metered_until_ms - term.start_ms)
        self.metered_until_ms = max(self.metered_until_ms, term.start_ms)
        self.following = tuple(rest)

    def due(self, now_ms: int) -> int:
        """Micros of the present term that are owed at `now_ms` and not yet captured."""
        served = max(0, min(now_ms, self.term_end_ms) - self.term_start_ms - self.gap_ms)
        return charge(self.price_micros, self.milli, served) - self.captured_micros

    def as_market(self, funds_micros: int) -> market.Lease:
        return market.Lease(
            id=self.id,
            bid=f"{self.agent}/{self.namespace}/{self.bid}",
            agent=self.agent,
            job_class=self.job_class,
            shares=self.shares,
            price_micros=self.price_micros,
            max_price_micros=self.worth_micros,
            restart_cost_micros=self.restart_cost_micros,
            term_ms=self.term_ms,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            funds_micros=funds_micros,
            state=_STATES[self.phase],
            drains_at_ms=self.drains_at_ms or None,
            priority=self.priority,
            resale_micros=self.resale_micros,
        )

    def spec(self) -> Object:
        """The `spec` of its GPULease."""
        return {
            "bid": self.bid,
            "class": self.job_class,
            "price": format_credits(self.price_micros),
            "start": rfc3339(self.start_ms),
            "end": rfc3339(self.end_ms),
            "devices": [
                {
                    "pool": self.pool,
                    "device": share.device,
                    "milliGPU": share.milli,
                    "memory": format_mib(share.memory_mib),
                    **({"mig": str(share.mig)} if share.mig else {}),
                    "enforcement": self.enforcement,
                }
                for share in self.shares
            ],
        }

    def status(self) -> Object:
        """The `status` of its GPULease."""
        status: Object = {
            "phase": self.phase,
            "meteredSeconds": self.metered_ms // 1000,
            "charged": format_credits(self.charged_micros),
        }
        if self.phase in ("Active", "Draining"):
            status["node"] = self.node
        if self.phase == "Draining":
            status["drainsAt"] = rfc3339(self.drains_at_ms)
        for key, value in (("reason", self.reason), ("message", self.message), ("pod", self.pod)):
            if value:
                status[key] = value
        return status
