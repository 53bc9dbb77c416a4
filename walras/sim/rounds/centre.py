"""The middle of what an optimum leaves open: where an interior-point solver ends, as the published policies use one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

_HALVINGS: Final = 60
_NO_SLACK: Final = 1e-9


def centre(
    least: Sequence[float], sizes: Sequence[float], capacity: float, *, conic: bool = False
) -> list[float]:
    """The analytic centre of {x: least <= x <= 1, sum of sizes x <= capacity}; `least` where nothing is left open.

    It maximises the sum of the logarithms of all slacks, with that of x >= 0, which solvers are given too. conic: the
    lower bounds stand for least / x <= 1 as second-order cones, whose barrier is 2 log(x - least) - log x.
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
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def _sum(sizes: Sequence[float], parts: Sequence[float]) -> float:
    return math.fsum(size * part for size, part in zip(sizes, parts, strict=True))
