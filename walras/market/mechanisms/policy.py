"""What tells one mechanism from another: who is next, what an agent may have, whose place may be taken."""

# ruff: noqa: ARG002 (not every policy looks at all that it is told)
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from walras.devices.placement import Shape
from walras.market.types import JobClass, Lease, Reason, Share, Snapshot

CLASS_RANK: Final[dict[JobClass, int]] = {"latency": 0, "standard": 1, "batch": 2}
# Shares are compared as integers: parts of a pool in units of 1/SCALE.
SCALE: Final = 10**12


@dataclass(frozen=True, slots=True)
class Want:
    """What a package of a bid, or a lease, takes of the pool: over all its devices, for `term_ms`.

    `price_micros` is the most it pays. `since_ms` is when the bid came or the lease began.
    """

    agent: str
    milli: int
    memory_mib: int
    term_ms: int
    price_micros: int
    priority: int
    job_class: JobClass
    since_ms: int
    id: str
    renewal: bool


@dataclass(slots=True)
class Use:
    """What an agent has: milli-GPU, memory, and milli-GPU times the milliseconds it is promised for."""

    milli: int = 0
    memory_mib: int = 0
    milli_ms: int = 0

    def add(self, want: Want) -> None:
        self.milli += want.milli
        self.memory_mib += want.memory_mib
        self.milli_ms += want.milli * want.term_ms


class Policy:
    """One clearing's policy. The base has no parts and no price, and takes nobody's place.

    takes_over: whether a bid may have the place of leases that are up for renewal and come after it.
    """

    takes_over = False
    price_micros = 0

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.milli = sum(device.milli for device in snapshot.devices)
        self.memory_mib = sum(device.memory_mib for device in snapshot.devices)
        named = [*snapshot.agents, *(bid.agent for bid in snapshot.bids)]
        self.agents = sorted({*named, *(lease.agent for lease in snapshot.leases)})
        self._use: dict[str, Use] = {agent: Use() for agent in self.agents}

    def order(self, want: Want) -> tuple[int, ...]:
        """An agent's own order: what it calls urgent first, then what it has, then what came first."""
        return (-want.priority, CLASS_RANK[want.job_class], not want.renewal, want.since_ms)

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        """The agent's place, lowest first, as if it had `ahead` too; it does not go down as it gets more."""
        return ()

    def refuses(self, want: Want, shares: Sequence[Share] = ()) -> Reason | None:
        """Why the agent may not have this, whatever is free; None when it may. A renewal names its shares."""
        return None

    def winning_price(self, want: Want, reason: Reason) -> int | None:
        """A price with which a refused bid wins if there is room; None when no price does that."""
        return None

    def took(self, want: Want, shares: Sequence[Share], *, fixed: bool = False) -> None:
        """Note that the agent has this; `fixed` when it is a lease that nobody decides about now."""
        self._use[want.agent].add(want)

    def room(self, agent: str, device: str, free: Shape) -> Shape:
        """How much of what is free on a device the agent may use."""
        return free

    def preempts(self, want: Want, lease: Lease) -> bool:
        """Whether a bid may end that running lease before its term is over."""
        return False

    def eviction_cost(self, lease: Lease) -> int:
        """What to keep low when leases have to go."""
        return lease.total_milli

    def use(self, agent: str, ahead: Iterable[Want] = ()) -> Use:
        """What an agent has, with `ahead`."""
        now = self._use[agent]
        total = Use(now.milli, now.memory_mib, now.milli_ms)
        for want in ahead:
            total.add(want)
        return total

    def weight(self, agent: str) -> int:
        """At least 1."""
        facts = self.snapshot.agents.get(agent)
        return max(1, facts.weight) if facts else 1
