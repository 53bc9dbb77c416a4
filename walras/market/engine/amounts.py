"""The engine's numbers: what fits 64 bits, and exact money over columns.

Bounds, which `Book` checks before anything is stored (each raises Invalid):

| what | most | so that |
|---|---|---|
| price | 2^36 micros a GPU-hour (68,719 credits) | price x 10^6, in a density, is below 2^56 |
| devices of a package | 1,024 | with shares of 1,000 a package has at most 2^20 milli |
| value an hour: price x milli of a package or lease | 2^53 | times 512 percent it is below 2^62 |
| device | 1,000 milli, under 2^20 MiB | a place's score has 31 + 10 + 20 bits |
| term | 2^36 ms (two years) | milli x milliseconds is below 2^56 |
| classes of devices | 62 | a set of them is one integer |
"""

from __future__ import annotations

from typing import Final

import numpy as np

from walras.core.errors import Invalid
from walras.core.money import HOUR_MS, WHOLE_GPU_MILLI
from walras.market.engine.jit import LIMIT, Ints, kernel

PRICE_MAX: Final = 1 << 36
DEVICES_MAX: Final = 1 << 10
VALUE_MAX: Final = 1 << 53
MILLI_MAX: Final = 1000
MEMORY_MAX: Final = (1 << 20) - 1
TERM_MAX: Final = 1 << 36
CLASSES_MAX: Final = 62
PERCENT_MAX: Final = 512
UNIT: Final = WHOLE_GPU_MILLI * HOUR_MS  # of milli x milliseconds in a GPU-hour


def require(column: Ints, least: int, most: int, what: str) -> None:
    """Raises Invalid unless all of the column is between the two."""
    if column.size and (int(column.min()) < least or int(column.max()) > most):
        raise Invalid(f"{what} must be between {least} and {most} here")


def charges(prices: Ints, amounts: Ints) -> Ints:
    """`core.money.charge` over columns: price x (milli x ms) // UNIT, exactly; amounts below 2^56.

    With amount = a UNIT + b and price = q UNIT + r it is price a + q b + r b // UNIT, of which no term leaves
    64 bits: r b is below 2^64 as UNIT is below 2^32. Beyond 2^62 it is LIMIT, more than any agent has.
    """
    whole, rest = np.divmod(amounts, UNIT)
    high, low = np.divmod(prices, UNIT)
    product = low.astype(np.uint64) * rest.astype(np.uint64)
    exact = prices * whole + high * rest + (product // np.uint64(UNIT)).astype(np.int64)
    huge = prices.astype(np.float64) * amounts.astype(np.float64) / UNIT >= LIMIT
    return np.where(huge, LIMIT, exact)


@kernel
def hourly(cost_micros: int, term_ms: int) -> int:
    """100 x a cost that comes once, spread over a term: hundredths of micro x milli an hour, rounded up.

    In two steps, each within 2^56; what is worth more than any package is cut off.
    """
    whole, rest = cost_micros // term_ms, cost_micros % term_ms
    if whole >= 3_000_000:
        return LIMIT // 4
    high, left = rest * 360_000 // term_ms, rest * 360_000 % term_ms
    return whole * 360_000_000_000 + high * 1_000_000 + -(-(left * 1_000_000) // term_ms)
