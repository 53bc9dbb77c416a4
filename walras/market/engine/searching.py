"""The price that would have won: found by deciding again with another one, as long as there is time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from walras.market.engine.amounts import PRICE_MAX
from walras.market.engine.jit import NONE

# Bids looked at again in one clearing, all searches together: some tenths of a second.
EFFORT_MAX: Final = 2_000_000
TRIES_MAX: Final = 4

Wins = Callable[[int, int, bool], bool]  # option, price, whether its agent could pay anything


@dataclass(frozen=True, slots=True)
class Found:
    """A price with which that option wins; or whether one would that the agent cannot pay."""

    option: int
    price_micros: int | None
    unaffordable: bool = False


class Search:
    """Searches of one decision. wins: decides again; effort: what that takes; levels: prices per effective
    size at which something may change, or None to try every price."""

    def __init__(self, wins: Wins, effort: int, levels: Iterable[int] | None) -> None:
        self._wins, self._effort = wins, effort
        self._levels = None if levels is None else set(levels)
        self._spent = 0

    @property
    def over(self) -> bool:
        """Whether there is no time for another."""
        return self._spent > EFFORT_MAX

    def find(self, option: int, ratio: tuple[int, int], least: int, affordable: int) -> Found:
        """The lowest price found for an option, from `least` to what its agent can pay for the term.

        ratio: milli-GPU asked for over effective size.
        """
        tried = self._prices(ratio, least, min(affordable, PRICE_MAX))
        # Prices that win can have gaps between them, so that the highest need not.
        highest = range(len(tried) - 1, max(-1, len(tried) - 1 - TRIES_MAX), -1)
        high = next((at for at in highest if self._again(option, tried[at], False)), NONE)
        if high == NONE:
            return Found(option, None, self._again(option, PRICE_MAX, True))
        low = 0
        while low < high:
            middle = (low + high) // 2
            if self._again(option, tried[middle], False):
                high = middle
            else:
                low = middle + 1
        return Found(option, tried[high])

    def _prices(self, ratio: tuple[int, int], least: int, most: int) -> Sequence[int]:
        """What to try, ascending; the last is the most, if it is no less than the least."""
        if self._levels is None or most < least:
            return range(least, most + 1)
        numerator, denominator = ratio
        every = (-(-(level + more) * denominator // numerator) for level in self._levels for more in (0, 1))
        return sorted({price for price in every if least <= price < most} | {most})

    def _again(self, option: int, price: int, funded: bool) -> bool:
        self._spent += self._effort
        return self._wins(option, price, funded)
