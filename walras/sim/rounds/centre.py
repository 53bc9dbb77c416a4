"""The middle of what an optimum leaves open, which is where interior-point solvers end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

_EXACT: Final = 1e-12
_NO_SLACK: Final = 1e-9


def centre(
    least: Sequence[float], sizes: Sequence[float], capacity: float, *, conic: bool = False
) -> list[float]:
    """The analytic centre of {x: least <= x <= 1, sum of sizes x <= capacity}; `least` where that is all.

    It maximises the sum of the logarithms of all slacks, with that of x >= 0, which solvers are given too.
    conic: the lower bounds stand for least / x <= 1 as second-order cones, whose barrier is 2 log(x - least)
    - log x.
    """
    if capacity - _sum(sizes, least) <= _NO_SLACK * capacity:
        return list(least)

    def at(left: float) -> list[float]:
        """Each x on its own, where so much of the capacity is left."""
        return [
            _root(low, size / left, conic=conic) if low < 1 - _NO_SLACK else 1.0
            for low, size in zip(least, sizes, strict=True)
        ]

    return at(_bisect(lambda left: capacity - _sum(sizes, at(left)) - left, 0.0, capacity))


def _root(low: float, price: float, *, conic: bool) -> float:
    """Where the pull of the bounds is the price of capacity."""

    def pull(x: float) -> float:
        lower = 2 / (x - low) if conic else 1 / (x - low) + 1 / x
        return lower - 1 / (1 - x) - price

    return _bisect(pull, low, 1.0)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0, strictly between."""
    while high - low > _EXACT * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _sum(sizes: Sequence[float], parts: Sequence[float]) -> float:
    return math.fsum(size * part for size, part in zip(sizes, parts, strict=True))
