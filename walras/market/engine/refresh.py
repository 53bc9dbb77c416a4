"""Which options stand for their bids, and which are to enter the order."""

from __future__ import annotations

import numpy as np

from walras.market.engine.board import Kinds
from walras.market.engine.greedy import Options, following
from walras.market.engine.jit import NONE, Ints, kernel


@kernel
def choose_leads(
    heads: Ints, lead: Ints, listed: Ints, gone: Ints, floor: int, posted: int, options: Options, kinds: Kinds
) -> None:
    """The first package by surplus of each bid with several; one that no longer is leaves the order."""
    for head in heads:
        first = following(head, NONE, floor, posted, options, kinds) + 1
        old = lead[head]
        if old != first:
            if old != 0 and listed[old - 1] != 0:
                listed[old - 1], gone[old - 1] = 0, 1
            lead[head] = first


@kernel
def entering(
    live: Ints, listed: Ints, lead: Ints, floor: int, options: Options, kinds: Kinds
) -> tuple[Ints, Ints]:
    """Live options that are not in the order and belong there; and, of those in it, who offers too little."""
    enter, leave = np.empty(live.size, np.int64), np.empty(live.size, np.int64)
    entered = left = 0
    for row in range(live.size):
        if live[row] == 0:
            continue
        offers = options.price[row] >= floor
        if listed[row] != 0:
            if not offers:
                leave[left] = row
                left += 1
        elif offers and kinds.possible[options.kind[row]] != 0:
            stands = options.several[row] == 0 or lead[options.head[row]] == row + 1
            enter[entered] = row
            entered += stands
    return enter[:entered], leave[:left]
