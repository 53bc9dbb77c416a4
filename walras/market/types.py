"""What the market is told and what it answers. All amounts are integers; all messages are frozen.

Prices are micro-credits per GPU-hour of a whole device. Times are milliseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from walras.core.money import charge
from walras.devices.classes import place_of
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import MigGeometry
from walras.devices.topology import Affinity, Place

JobClass = Literal["latency", "standard", "batch"]
LeaseState = Literal["reserved", "active", "draining"]
DisplacementReason = Literal["outbid", "price", "funds", "priority", "share", "resold", "gang"]
Payments = Literal["uniform", "critical"]


class Reason(StrEnum):
    """Why a bid was refused."""

    OUTBID = "Outbid"  # a higher price would have won
    NO_CAPACITY = (
        "NoCapacity"  # no price wins now: what it needs is under leases that may not be displaced yet
    )
    BELOW_RESERVE = "BelowReserve"  # under the least price at which the pool sells
    INSUFFICIENT_FUNDS = "InsufficientFunds"  # the agent cannot pay its own price for the term
    TOO_LARGE = "TooLarge"  # more than the pool's eligible devices have when they are all empty
    NO_DEVICE = "NoDevice"  # no device of the pool is eligible
    OVER_SHARE = "OverShare"  # more than its agent's part, where agents have parts
    EXPIRED = "Expired"  # the deadline is over
    INVALID = "Invalid"  # no devices, no share or no term


class Constraint(StrEnum):
    """What was tightest when a bid was refused."""

    MILLI_GPU = "milliGPU"
    MEMORY = "memory"
    DEVICES = "devices"
    FUNDS = "funds"
    PRICE = "price"
    SHARE = "share"
    DEADLINE = "deadline"
    TOPOLOGY = "topology"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of one device; `mig` when it is an instance of a device in MIG mode."""

    device: str
    milli: int
    memory_mib: int
    mig: MigInstance | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device on offer; `id` is unique within the pool, `index` is its number on its node.

    `speed_milli` is work per time, 1000 for the pool's unit of price: what a GPU-hour costs goes by it. `mig`
    is what the device can be cut into while no share of it is sold otherwise, None when it cannot.
    """

    id: str
    node: str
    model: str
    index: int
    memory_mib: int
    milli: int = 1000
    attributes: Mapping[str, str | int | bool] = field(default_factory=dict)
    speed_milli: int = 1000
    mig: MigGeometry | None = None

    @property
    def place(self) -> Place:
        """Where it is, by what its attributes tell."""
        return place_of(self.node, self.attributes)


@dataclass(frozen=True, slots=True)
class Package:
    """One shape that would satisfy a bid: the same share of `devices` distinct devices, all or nothing.

    `memory_mib` 0 means the share's part of each device's memory. `price_micros` is the most it pays per
    GPU-hour of a whole device. `eligible` names the devices that its selector takes; None takes every device
    of the pool. With `devices_min` it takes as many as there are, from that many up to `devices`; 0 is all or
    nothing. `affinity` says where the devices have to be. With a `mig_profile` each is an instance of it, on
    devices that have it, and `milli_gpu` is what one is sold as.
    """

    devices: int
    milli_gpu: int
    memory_mib: int
    term_ms: int
    price_micros: int
    eligible: frozenset[str] | None = None
    devices_min: int = 0
    affinity: Affinity = Affinity.ANY
    mig_profile: str = ""

    @property
    def fewest(self) -> int:
        """With how many devices it is content."""
        return self.devices_min or self.devices

    @property
    def total_milli(self) -> int:
        return self.devices * self.milli_gpu


@dataclass(frozen=True, slots=True)
class Bid:
    """A pending demand: any one of its packages (XOR).

    `funds_micros` is what its agent can still pay (the available balance). It belongs to the agent, not to
    the bid: all bids and leases of one agent in a snapshot name the same amount and share it. `priority` is
    for mechanisms that go by it, higher first. From `decays_ms` on prices fall in a line, to nothing at the
    deadline.
    """

    id: str
    agent: str
    job_class: JobClass
    packages: tuple[Package, ...]
    restart_cost_micros: int
    submitted_ms: int
    funds_micros: int
    deadline_ms: int | None = None
    priority: int = 0
    decays_ms: int | None = None

    def worth_micros(self, price_micros: int, now_ms: int) -> int:
        """What is left at that time of a price that the bid names, rounded down."""
        left_ms, span_ms = self._fading(now_ms)
        return price_micros * left_ms // span_ms

    def price_for(self, worth_micros: int, now_ms: int) -> int:
        """The least price to name that has so much left at that time, before the deadline."""
        left_ms, span_ms = self._fading(now_ms)
        assert left_ms > 0, "nothing is left of any price"
        return -(-worth_micros * span_ms // left_ms)

    def _fading(self, now_ms: int) -> tuple[int, int]:
        """How much of the time in which it decays is left, and how long that is; equal while it does not."""
        if self.decays_ms is None or self.deadline_ms is None or now_ms <= self.decays_ms:
            return 1, 1
        return max(0, self.deadline_ms - now_ms), max(1, self.deadline_ms - self.decays_ms)


@dataclass(frozen=True, slots=True)
class Lease:
    """Capacity that is taken, with the facts of the bid that won it.

    reserved: waits for capacity that is draining; active: runs; draining: its holder is warned and it ends
    at `drains_at_ms`. `price_micros` is locked until `end_ms`, `max_price_micros` is what the bid would pay.
    `funds_micros` is as in Bid: what the agent can pay beyond what is held already. For `resale_micros` a
    GPU-hour, if its holder names that, whoever pays it has the rest of the term.
    """

    id: str
    bid: str
    agent: str
    job_class: JobClass
    shares: tuple[Share, ...]
    price_micros: int
    max_price_micros: int
    restart_cost_micros: int
    term_ms: int
    start_ms: int
    end_ms: int
    funds_micros: int
    state: LeaseState = "active"
    drains_at_ms: int | None = None
    priority: int = 0
    resale_micros: int | None = None

    @property
    def total_milli(self) -> int:
        return sum(share.milli for share in self.shares)


@dataclass(frozen=True, slots=True)
class Rules:
    """A pool's rules. A bid must be worth (100 + epsilon_percent)% of what it displaces.

    payments: winners pay one price, the best that lost (uniform), or each the least with which it would have
    won (critical).
    """

    reserve_micros: int = 100_000
    epsilon_percent: int = 10
    quantum_ms: int = 5_000
    notice_ms: int = 2_000
    tick_ms: int = 1_000
    mechanism: str = "auction"
    payments: Payments = "uniform"


@dataclass(frozen=True, slots=True)
class Escrow:
    """Room that is kept for a bid that needs more of it at once than comes free at once.

    Its package `package` starts on `shares` at `starts_ms` at the latest, unless it is outbid: leases there
    that are worth less are not renewed, and until then the room goes only to leases that end before.
    """

    bid: str
    package: int
    shares: tuple[Share, ...]
    starts_ms: int


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What mechanisms other than the auction may know of an agent, whether it has demand now or not.

    guaranteed_milli: what it may always have, for those that guarantee a part; None is by weight.
    spend_micros_per_hour: what it spends, for proportional shares; None is its funds over an hour.
    started_ms, work_milli_ms, ideal_ms: when its work began, how much is left, and how long the whole takes
    on a part of the pool of its own, for finish-time fairness; None is estimated from its bids and leases.
    """

    weight: int = 1
    guaranteed_milli: int | None = None
    spend_micros_per_hour: int | None = None
    started_ms: int | None = None
    work_milli_ms: int | None = None
    ideal_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a mechanism carries from one clearing to the next; empty for one that needs nothing.

    mechanism: who wrote it, as another could not read it; at_ms: when; amounts: by agent, in its own units.
    """

    mechanism: str = ""
    at_ms: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One pool at one moment. `price_micros` is that of the last clearing, or the posted one for a bid that
    is decided on its arrival, beside which `bids` has those that escrows are for.

    agents: facts by agent; one that is not named has the defaults. memory: that of the last clearing.
    explain: the bids whose winning price is looked for if they lose, which costs some clearings each; None is
    all of them. escrows: those of the last clearing.
    """

    now_ms: int
    rules: Rules
    devices: tuple[Device, ...]
    leases: tuple[Lease, ...]
    bids: tuple[Bid, ...]
    price_micros: int
    explain: frozenset[str] | None = None
    agents: Mapping[str, AgentFacts] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    escrows: tuple[Escrow, ...] = ()


@dataclass(frozen=True, slots=True)
class Award:
    """A bid won the package of that index, on these shares, at a price that is locked for the term.

    starts_now False: capacity is draining; the lease is reserved and starts when `placement.startable` says
    so. `max_price_micros` is what it would pay: its lease is worth that. Beside `cost_micros` the winner pays
    `compensations_micros` to the holders whose leases it displaces or buys.
    """

    bid: str
    package: int
    shares: tuple[Share, ...]
    price_micros: int
    max_price_micros: int
    term_ms: int
    starts_now: bool
    displaces: tuple[str, ...] = ()
    compensations_micros: int = 0

    @property
    def total_milli(self) -> int:
        return sum(share.milli for share in self.shares)

    @property
    def cost_micros(self) -> int:
        """What to hold for the whole term."""
        return charge(self.price_micros, self.total_milli, self.term_ms)

    def lease(self, id: str, bid: Bid, now_ms: int) -> Lease:
        """The lease that the bid won, as of now."""
        return Lease(
            id=id,
            bid=bid.id,
            agent=bid.agent,
            job_class=bid.job_class,
            shares=self.shares,
            price_micros=self.price_micros,
            max_price_micros=self.max_price_micros,
            restart_cost_micros=bid.restart_cost_micros,
            term_ms=self.term_ms,
            start_ms=now_ms,
            end_ms=now_ms + self.term_ms,
            funds_micros=bid.funds_micros,
            state="active" if self.starts_now else "reserved",
            priority=bid.priority,
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a bid was refused and what would change that.

    clearing_price_micros: the pool's price of this clearing. winning_price_micros: a price with which package
    `package` wins this very clearing (the clearing was run again with it), or None when none was found that
    the agent can pay; of very many bids not all are searched for. position: place in the order of the
    pending bids from 1, or 0 when it has none.
    """

    reason: Reason
    constraint: Constraint
    clearing_price_micros: int
    winning_price_micros: int | None
    position: int
    message: str
    package: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    bid: str
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Renewal:
    """A lease goes on at this price until `end_ms`: a term after its old end, or after now if later."""

    lease: str
    price_micros: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Displacement:
    """A lease must end at `drains_at_ms`.

    by: the bid that takes its place and pays `compensation_micros` to its holder, for a restart (outbid) or
    as the holder asked (resold); None when it was not renewed, because the price rose above what it pays
    (price), its agent cannot pay the next term (funds), its room is kept for a gang (gang), or the place is
    another agent's by the mechanism's idea of fair (share).
    """

    lease: str
    by: str | None
    drains_at_ms: int
    reason: DisplacementReason
    compensation_micros: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every bid of the snapshot is in one of awards and refusals (express: only the one asked for).

    memory and escrows go into the snapshot of the next clearing.
    """

    awards: tuple[Award, ...]
    refusals: tuple[Refusal, ...]
    renewals: tuple[Renewal, ...]
    displacements: tuple[Displacement, ...]
    price_micros: int
    memory: Memory = field(default_factory=Memory)
    escrows: tuple[Escrow, ...] = ()
