"""The middle of what a linear program leaves open, which is where an interior-point solver ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_STEPS: Final = 200
_TOLERANCE: Final = 1e-9


def centre(least: Sequence[float], weights: Sequence[float], capacity: float) -> list[float]:
    """The analytic centre of {x: least <= x <= 1, sum of weights x <= capacity}; `least` where there is no slack.

    It maximises the sum of the logarithms of all slacks. Each x then depends on one multiplier alone, the inverse of
    the slack of the capacity, which is found by bisection.
    """
    slack = capacity - sum(weight * low for weight, low in zip(weights, least, strict=True))
    if slack <= _TOLERANCE * capacity:
        return list(least)
    low, high = 0.0, slack
    for _ in range(_STEPS):
        guess = (low + high) / 2
        left = capacity - sum(weight * x for weight, x in zip(weights, _at(least, weights, guess), strict=True))
        low, high = (guess, high) if left > guess else (low, guess)
    return _at(least, weights, high)


def _at(least: Sequence[float], weights: Sequence[float], left: float) -> list[float]:
    """Each x where so much capacity is left: the root of 1/(x - least) - 1/(1 - x) = weight / left."""
    found = []
    for low, weight in zip(least, weights, strict=True):
        room = 1 - low
        if room <= _TOLERANCE:
            found.append(1.0)
            continue
        # With y = x - low and k = weight / left: k y^2 - (k room + 2) y + room = 0, the smaller root.
        k = weight / left
        b = k * room + 2
        found.append(low + 2 * room / (b + math.sqrt(b * b - 4 * k * room)))
    return found
