"""The order of bids as it is kept between ticks: a long list, and a short one of what has come since.

A tick changes few bids of many. What goes leaves a hole where it was; what comes is merged into the short
list, and that into the long one when it has grown. So a tick costs what has changed and not what there is.
"""

from __future__ import annotations

import numpy as np

from walras.market.engine.jit import NONE, Ints, part
from walras.market.engine.options import Options
from walras.market.engine.ranked import Ranked, Ranking, ranked
from walras.market.engine.sorting import LATER, earlier, sort_rows

SHORT = 8  # the short list has at most one of so many of the long one


class Order:
    """Rows of options by density. `place` is their column: where in the lists a row is, 0 when it is in none,
    above 0 in the long list, below in the short one, both counted from 1."""

    def __init__(self) -> None:
        self._long, self._short = ranked(0), ranked(0)

    @property
    def ranking(self) -> Ranking:
        """Both lists, good until the next change."""
        return Ranking(self._long, self._short)

    def leave(self, rows: Ints, place: Ints) -> None:
        """Take rows out; those in no list are no matter."""
        places = place[rows]
        self._long.tags[places[places > 0] - 1] = NONE
        self._short.tags[-places[places < 0] - 1] = NONE
        place[rows] = 0

    def enter(self, rows: Ints, place: Ints, options: Options) -> None:
        """Put in rows that are in no list."""
        most = self._long.rows.size // SHORT
        if rows.size > most:
            kept = (each.rows[each.tags != NONE] for each in self.ranking)
            self._long, self._short = _sorted(np.concatenate((*kept, rows)), options), ranked(0)
            place[self._long.rows] = np.arange(1, self._long.rows.size + 1)
            return
        self._short = _merged(self._short, _sorted(rows, options), options)
        if self._short.rows.size > most:
            self._long, self._short = _merged(self._long, self._short, options), ranked(0)
            place[self._long.rows] = np.arange(1, self._long.rows.size + 1)
        place[self._short.rows] = -np.arange(1, self._short.rows.size + 1)


def _sorted(rows: Ints, options: Options) -> Ranked:
    rows = sort_rows(rows, options.density, options.rank, options.told)
    group = 2 * options.kind[rows] + (options.rank[rows] < LATER)
    return Ranked(rows, options.density[rows], 2 * group + options.several[rows])


def _merged(a: Ranked, b: Ranked, options: Options) -> Ranked:
    target = ranked(a.rows.size + b.rows.size)
    return target.first(merge(a, b, options.rank, options.told, target))


@part
def merge(old: Ranked, fresh: Ranked, rank: Ints, told: Ints, target: Ranked) -> int:
    """Write both lists, which are in order, into one, without the holes of the old one: the fresh one was
    sorted or merged just now and has none. Returns how many rows it has."""
    at, taken, count, size = 0, 0, fresh.rows.size, old.rows.size
    for i in range(size + 1):
        if i < size and old.tags[i] == NONE:
            continue
        while taken < count and (
            i == size
            or fresh.density[taken] > old.density[i]
            or (
                fresh.density[taken] == old.density[i] and earlier(fresh.rows[taken], old.rows[i], rank, told)
            )
        ):
            write(target, at, fresh, taken)
            at, taken = at + 1, taken + 1
        if i < size:
            write(target, at, old, i)
            at += 1
    return at


@part
def write(target: Ranked, at: int, source: Ranked, place: int) -> None:
    """Copy a row."""
    target.rows[at], target.density[at] = source.rows[place], source.density[place]
    target.tags[at] = source.tags[place]
