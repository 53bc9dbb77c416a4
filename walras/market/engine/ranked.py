"""Lists of options in order, as kernels walk them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from walras.market.engine.jit import NONE, Ints, part
from walras.market.engine.sorting import before


class Ranked(NamedTuple):
    """Rows in order, with what is read of each one after the other, where it would be all over the columns:
    density, and the group x 2, plus 1 for a bid of several packages, or NONE for a hole. The group is the
    kind x 2, plus 1 for the latency class."""

    rows: Ints
    density: Ints
    tags: Ints

    def first(self, count: int) -> Ranked:
        """The first so many."""
        return Ranked(self.rows[:count], self.density[:count], self.tags[:count])


class Ranking(NamedTuple):
    """Two lists that are walked as one."""

    long: Ranked
    short: Ranked


def ranked(size: int) -> Ranked:
    """Room for so many rows."""
    return Ranked(np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64))


@part
def upcoming(ranked: Ranked, at: int, closed: Ints) -> int:
    """The first place from `at` that is no hole, nor a bid of one package whose group is closed."""
    tags = ranked.tags
    while at < tags.size and (tags[at] == NONE or (tags[at] & 1 == 0 and closed[tags[at] >> 1] != 0)):
        at += 1
    return at


@part
def first_of(ranking: Ranking, long: int, short: int, density: Ints, rank: Ints, told: Ints) -> int:
    """Which list goes on at these places: 0 is the long one, 1 the short one, NONE none."""
    if short == ranking.short.rows.size:
        return NONE if long == ranking.long.rows.size else 0
    if long == ranking.long.rows.size:
        return 1
    ahead = before(ranking.short.rows[short], ranking.long.rows[long], density, rank, told)
    return 1 if ahead else 0
