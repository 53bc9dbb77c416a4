"""The port behind which every strategy stands, and what a strategy is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from walras.core.money import price_within
from walras.market.types import JobClass

# The dual variable of pacing in millionths, so that nothing depends on floating point.
MU_ONE = 1_000_000


@dataclass(frozen=True, slots=True)
class PacingState:
    """Where an agent's pacing stands: its multiplier `mu` in millionths, as of `at_ms`."""

    mu: int = 0
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What a strategy knows when it names a price for one share. Prices are micros per whole GPU-hour.

    value_micros: what the share is worth to the agent; no strategy bids more. posted_micros: the price of the
    last clearing, at least the reserve. available_micros: what the agent can still promise. submitted_ms:
    when the work came. work_ms: how long it still takes on this share. latency_*_ms: of requests, as it is
    without this share and as it would be with it; None where nobody measures. slo_*_ms: up to which latency
    all of the value is there and from which on none; None is the class' own.
    """

    now_ms: int
    value_micros: int
    milli: int
    term_ms: int
    available_micros: int
    posted_micros: int = 0
    job_class: JobClass = "standard"
    submitted_ms: int = 0
    deadline_ms: int | None = None
    work_ms: int = 0
    latency_without_ms: int | None = None
    latency_with_ms: int | None = None
    slo_good_ms: int | None = None
    slo_bad_ms: int | None = None
    pacing: PacingState = PacingState()


class Strategy(Protocol):
    """Pure: the same facts give the same price."""

    def price(self, facts: Facts) -> int:
        """The most to pay, in micros per whole GPU-hour: never above the value or what is affordable."""


def affordable(facts: Facts) -> int:
    """The highest price at which the funds cover the whole term of the share."""
    return price_within(max(0, facts.available_micros), max(1, facts.milli * facts.term_ms))


def capped(price_micros: int, facts: Facts) -> int:
    """A price held within zero, the value and the funds."""
    return max(0, min(price_micros, facts.value_micros, affordable(facts)))
