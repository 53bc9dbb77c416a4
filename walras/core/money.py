"""Integer money. One credit is 1,000,000 micro-credits; every amount in the program is an int of micros."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from walras.core.errors import MoneyError

MICROS: Final = 1_000_000
HOUR_MS: Final = 3_600_000
WHOLE_GPU_MILLI: Final = 1000
# Beyond this a product with milliseconds and milli-GPU would leave 64 bits, where the store keeps it.
CREDITS_MAX: Final = 1_000_000_000

_DECIMAL = re.compile(r"\+?(\d{1,10})(?:\.(\d{1,6}))?", re.ASCII)
_FINER = re.compile(r"\+?\d+(?:\.\d+)?", re.ASCII)
_PERIOD_MS: Final = {"s": 1000, "m": 60_000, "h": HOUR_MS, "d": 24 * HOUR_MS}


def parse_credits(text: str) -> int:
    """Micro-credits of a decimal string like "97.20"; at most six decimals, never negative.

    Raises MoneyError when the text is not such a number or is above CREDITS_MAX.
    """
    match = _DECIMAL.fullmatch(text.strip())
    if match is None:
        if text.strip().startswith("-"):
            raise MoneyError(f'"{text}" is negative; an amount of credits must be zero or more')
        if _FINER.fullmatch(text.strip()):
            raise MoneyError(
                f'"{text}" is not an amount of credits: at most six decimals, at most {CREDITS_MAX} credits'
            )
        raise MoneyError(f'"{text}" is not an amount of credits; write a decimal such as "2.50"')
    whole, fraction = match.group(1), match.group(2) or ""
    micros = int(whole) * MICROS + int(fraction.ljust(6, "0"))
    if micros > CREDITS_MAX * MICROS:
        raise MoneyError(f'"{text}" is more than {CREDITS_MAX} credits')
    return micros


def format_credits(micros: int) -> str:
    """Decimal string of an amount, with at least two decimals and no trailing zeros after them."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def parse_rate(text: str) -> int:
    """Micro-credits an hour of a rate like "12/h", "0.2/m" or "288/d", at most CREDITS_MAX an hour.

    Raises MoneyError.
    """
    amount, slash, period = text.strip().partition("/")
    if not slash or period not in _PERIOD_MS:
        raise MoneyError(f'"{text}" is not a rate; write credits per s, m, h or d such as "12/h"')
    rate = parse_credits(amount) * HOUR_MS // _PERIOD_MS[period]
    if rate > CREDITS_MAX * MICROS:
        raise MoneyError(f'"{text}" is more than {CREDITS_MAX} credits an hour')
    return rate


def accrued(rate_micros_per_hour: int, elapsed_ms: int) -> int:
    """Whole micros that a rate has earned after `elapsed_ms` milliseconds, rounded down.

    Callers keep the start of the period and subtract what was paid, so nothing is lost to rounding.
    """
    assert rate_micros_per_hour >= 0 and elapsed_ms >= 0
    return rate_micros_per_hour * elapsed_ms // HOUR_MS


def charge(price_micros_per_gpu_hour: int, milli_gpu: int, elapsed_ms: int) -> int:
    """Micros owed for `milli_gpu` held `elapsed_ms` at a price for a whole device, rounded down."""
    assert price_micros_per_gpu_hour >= 0 and milli_gpu >= 0 and elapsed_ms >= 0
    return price_micros_per_gpu_hour * milli_gpu * elapsed_ms // (WHOLE_GPU_MILLI * HOUR_MS)


def price_within(micros: int, milli_ms: int) -> int:
    """The inverse of `charge`: the highest price at which so many milli-GPU ms cost at most `micros`."""
    assert micros >= 0 and milli_ms > 0
    return ((micros + 1) * WHOLE_GPU_MILLI * HOUR_MS - 1) // milli_ms


def split(total: int, weights: Sequence[int]) -> list[int]:
    """`total` shared in proportion to `weights` by largest remainder (Hamilton); the parts sum to `total`.

    Ties go to the earlier weight. With no positive weight every part is 0 unless `total` is 0 too.
    """
    assert total >= 0 and all(weight >= 0 for weight in weights)
    whole = sum(weights)
    if whole == 0:
        assert total == 0, "nothing to share by"
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    assert sum(parts) == total
    return parts
