"""Income that accrues up to a cap, and the market's revenue given back. All amounts in micros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from walras.core.errors import MoneyError
from walras.core.money import HOUR_MS, split


@dataclass(frozen=True, slots=True)
class Accrual:
    """How far income is paid: up to `paid_ms`, with `remainder` of a micro (in 1/3,600,000) carried on."""

    paid_ms: int
    remainder: int = 0


@dataclass(frozen=True, slots=True)
class Income:
    """A rate an hour, paid while the balance is below the cap. Raises MoneyError for negative values."""

    rate_micros_per_hour: int
    cap_micros: int

    def __post_init__(self) -> None:
        if self.rate_micros_per_hour < 0 or self.cap_micros < 0:
            raise MoneyError("income and wallet cap must be zero or more")

    def due(self, accrual: Accrual, now_ms: int, balance_micros: int) -> tuple[int, Accrual]:
        """What to pay now, and the accrual once it is paid.

        `balance_micros` is the account's balance with money on hold. However often this is called, what is
        paid over a time is exactly rate x time rounded down, less what the cap withheld; income that the cap
        withholds is gone. A time before `paid_ms` pays nothing.
        """
        if now_ms <= accrual.paid_ms:
            return 0, accrual
        earned = self.rate_micros_per_hour * (now_ms - accrual.paid_ms) + accrual.remainder
        amount, remainder = divmod(earned, HOUR_MS)
        room = max(0, self.cap_micros - balance_micros)
        if amount >= room:
            return room, Accrual(now_ms, remainder if amount == room else 0)
        return amount, Accrual(now_ms, remainder)

    def full_at_ms(self, accrual: Accrual, balance_micros: int, target_micros: int) -> int | None:
        """When the balance reaches `target_micros` with no spending, or None when it never does."""
        missing = target_micros - balance_micros
        if missing <= 0:
            return accrual.paid_ms
        if target_micros > self.cap_micros or self.rate_micros_per_hour == 0:
            return None
        needed = missing * HOUR_MS - accrual.remainder
        return accrual.paid_ms - (-needed // self.rate_micros_per_hour)


def rebate(
    revenue_micros: int,
    weights: Mapping[str, int],
    guaranteed_milli: Mapping[str, int] | None = None,
    capacity_milli: int = 0,
) -> dict[str, int]:
    """The revenue given back, by largest remainder, ties by name; the parts sum to it.

    An agent that is guaranteed `guaranteed_milli` of `capacity_milli` gets that part of the revenue; where
    more is guaranteed than there is, all shrink alike. The rest is shared by weight, and goes to the
    guaranteed where no weight is positive. Nothing is shared where nobody has either. Raises MoneyError for
    negative amounts, weights or guarantees.
    """
    guaranteed = guaranteed_milli or {}
    if revenue_micros < 0 or capacity_milli < 0:
        raise MoneyError("revenue and capacity must be zero or more")
    if any(amount < 0 for amount in (*weights.values(), *guaranteed.values())):
        raise MoneyError("weights and guarantees must be zero or more")
    names = sorted(weights.keys() | guaranteed.keys())
    whole = sum(weights.values())
    rest = max(0, capacity_milli - sum(guaranteed.values())) if guaranteed else 1
    # Both parts over one denominator, so that a micro is lost to rounding once only.
    if whole and rest:
        parts = [guaranteed.get(name, 0) * whole + weights.get(name, 0) * rest for name in names]
    else:
        parts = [guaranteed.get(name, 0) for name in names]
    if not any(parts):
        return {}
    return dict(zip(names, split(revenue_micros, parts), strict=True))
