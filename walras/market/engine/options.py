"""Options as kernels read them: packages of bids, by surplus within a bid, by density among bids."""

from __future__ import annotations

from typing import NamedTuple

from walras.market.engine.board import Kinds
from walras.market.engine.jit import NONE, Ints, part
from walras.market.engine.sorting import before


class Options(NamedTuple):
    """Columns by option, which is a package of a bid. `head` is the bid's first option, `next` goes round."""

    kind: Ints
    agent: Ints
    price: Ints
    cost: Ints  # of the whole term at its own price
    density: Ints
    term: Ints
    rank: Ints  # the latency class first, then the older
    told: Ints
    head: Ints
    next: Ints
    nth: Ints  # package of its bid
    several: Ints  # 1 when the bid has other packages


@part
def surplus(option: int, posted: int, options: Options, kinds: Kinds) -> int:
    """What a package is worth over the posted price."""
    kind = options.kind[option]
    return int((options.price[option] - posted) * kinds.devices[kind] * kinds.milli[kind])


@part
def following(head: int, option: int, floor: int, posted: int, options: Options, kinds: Kinds) -> int:
    """The bid's next package by surplus after `option`, or its first for NONE, of those that are possible and
    offer the floor."""
    least = surplus(option, posted, options, kinds) if option != NONE else 0
    best, most, each = NONE, 0, head
    while True:
        worth = surplus(each, posted, options, kinds)
        offered = options.price[each] >= floor and kinds.possible[options.kind[each]] == 1
        after = option == NONE or worth < least
        if option != NONE and worth == least:
            after = options.nth[each] > options.nth[option]
        better = best == NONE or worth > most
        if best != NONE and worth == most:
            better = options.nth[each] < options.nth[best]
        if after and better and offered:
            best, most = each, worth
        each = options.next[each]
        if each == head:
            return best


@part
def push(heap: Ints, size: int, option: int, options: Options) -> None:
    """Into a binary heap of options by order; the caller counts."""
    at = size
    while at > 0:
        above = (at - 1) // 2
        if not before(option, heap[above], options.density, options.rank, options.told):
            break
        heap[at] = heap[above]
        at = above
    heap[at] = option


@part
def pop(heap: Ints, size: int, options: Options) -> int:
    """The first of the heap by order; the caller counts."""
    top, last = heap[0], heap[size - 1]
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size - 1:
            break
        right = below + 1
        if right < size - 1 and before(heap[right], heap[below], options.density, options.rank, options.told):
            below = right
        if not before(heap[below], last, options.density, options.rank, options.told):
            break
        heap[at] = heap[below]
        at = below
    heap[at] = last
    return int(top)


@part
def any_left(option: int, full: Ints, options: Options) -> bool:
    """Whether another package of the bid is of a kind for which there may be room."""
    other, left = options.next[option], False
    while other != option:
        left |= full[options.kind[other]] == 0
        other = options.next[other]
    return left
