"""Which options stand for their bids, and which are to enter the order."""

from __future__ import annotations

import numpy as np

from walras.market.engine.board import Kinds
from walras.market.engine.jit import LIMIT, NONE, Ints, kernel
from walras.market.engine.options import Options, following


@kernel
def choose_leads(heads: Ints, lead: Ints, limits: Ints, options: Options, kinds: Kinds) -> tuple[Ints, Ints]:
    """The first package by surplus of each bid with several, given the floor and the posted price.

    Returns the options that ceased to stand for their bids, and those that came to.
    """
    ceased, came = np.empty(heads.size, np.int64), np.empty(heads.size, np.int64)
    left = entered = 0
    for head in heads:
        first, old = following(head, NONE, limits[0], limits[1], options, kinds) + 1, lead[head]
        if old != first:
            lead[head] = first
            if old != 0:
                ceased[left] = old - 1
                left += 1
            if first != 0:
                came[entered] = first - 1
                entered += 1
    return ceased[:left], came[:entered]


@kernel
def entering(
    touched: Ints, live: Ints, place: Ints, lead: Ints, floor: int, options: Options, kinds: Kinds
) -> Ints:
    """Of the options touched, maybe more than once, those that belong in the order and are in no place yet;
    they are given one for the time being."""
    enter, entered = np.empty(touched.size, np.int64), 0
    for row in touched:
        if live[row] and place[row] == 0 and options.price[row] >= floor:
            stands = options.several[row] == 0 or lead[options.head[row]] == row + 1
            if stands and kinds.possible[options.kind[row]]:
                enter[entered] = row
                entered += 1
                place[row] = LIMIT
    return enter[:entered]


@kernel
def rate(rows: Ints, price: Ints, kind: Ints, numerator: Ints, denominator: Ints, density: Ints) -> None:
    """The densities of rows: price per effective size, rounded down."""
    for row in rows:
        density[row] = price[row] * numerator[kind[row]] // denominator[kind[row]]
