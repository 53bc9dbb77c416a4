"""Distributions that are the same on every machine: tables of quantiles, in correctly rounded decimals.

What the C library makes of a logarithm differs in the last digit between machines; `decimal` does not.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from random import Random

BITS = 12
_SIZE = 1 << BITS
_CONTEXT = Context(prec=28, rounding=ROUND_HALF_EVEN)
_MILLION = Decimal(1_000_000)


@cache
def _exponential() -> tuple[int, ...]:
    """-ln(1 - u) in millionths, at the middle of each of equally likely steps of u; scaled to a mean of 1."""
    raw = [-_CONTEXT.ln((Decimal(_SIZE - step) - Decimal("0.5")) / _SIZE) for step in range(_SIZE)]
    mean = sum(raw, Decimal(0)) / _SIZE
    return tuple(int((each / mean * _MILLION).to_integral_value()) for each in raw)


@cache
def _log_uniform(low: int, high: int) -> tuple[int, ...]:
    ratio = _CONTEXT.ln(Decimal(high) / Decimal(low))
    return tuple(
        int((low * _CONTEXT.exp(ratio * (Decimal(step) + Decimal("0.5")) / _SIZE)).to_integral_value())
        for step in range(_SIZE)
    )


def exponential(chance: Random, mean: int) -> int:
    """Of an exponential distribution with that mean, such as the time to the next of Poisson arrivals."""
    return mean * _exponential()[chance.getrandbits(BITS)] // 1_000_000


def log_uniform(chance: Random, low: int, high: int) -> int:
    """Between two positive bounds, each order of magnitude as likely as another."""
    assert 0 < low <= high
    return _log_uniform(low, high)[chance.getrandbits(BITS)]


def log_uniform_mean(low: int, high: int) -> int:
    """What `log_uniform` is on average, rounded."""
    table = _log_uniform(low, high)
    return (sum(table) + _SIZE // 2) // _SIZE
