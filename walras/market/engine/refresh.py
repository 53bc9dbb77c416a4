"""Which options stand for their bids, and which are to enter the order."""

from __future__ import annotations

import numpy as np

from walras.market.engine.board import Kinds
from walras.market.engine.greedy import Options, following
from walras.market.engine.jit import NONE, Ints, kernel


@kernel
def choose_leads(
    heads: Ints, lead: Ints, listed: Ints, gone: Ints, limits: Ints, options: Options, kinds: Kinds
) -> Ints:
    """The first package by surplus of each bid with several, given the floor and the posted price.

    Returns the options that came to stand for their bids or ceased to, which leave the order.
    """
    changed, count = np.empty(2 * heads.size, np.int64), 0
    for head in heads:
        first, old = following(head, NONE, limits[0], limits[1], options, kinds) + 1, lead[head]
        if old != first:
            for option in (old - 1, first - 1):
                if option != NONE:
                    changed[count] = option
                    count += 1
            if old != 0 and listed[old - 1] != 0:
                listed[old - 1], gone[old - 1] = 0, 1
            lead[head] = first
    return changed[:count]


@kernel
def entering(
    touched: Ints, live: Ints, listed: Ints, lead: Ints, floor: int, options: Options, kinds: Kinds
) -> Ints:
    """Of the options touched, maybe more than once, those that belong in the order and are not in it; lists
    them."""
    enter, entered = np.empty(touched.size, np.int64), 0
    for row in touched:
        if live[row] and not listed[row] and options.price[row] >= floor:
            stands = options.several[row] == 0 or lead[options.head[row]] == row + 1
            if stands and kinds.possible[options.kind[row]]:
                enter[entered] = row
                entered += 1
                listed[row] = 1
    return enter[:entered]


@kernel
def rate(rows: Ints, price: Ints, kind: Ints, numerator: Ints, denominator: Ints, density: Ints) -> None:
    """The densities of rows: price per effective size, rounded down."""
    for row in rows:
        density[row] = price[row] * numerator[kind[row]] // denominator[kind[row]]
