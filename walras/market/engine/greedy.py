"""One pass: bids in order of density, each placed or not, and the price that those who lost make."""

from __future__ import annotations

from typing import NamedTuple

from walras.market.engine.board import Board, Kinds, place
from walras.market.engine.jit import NONE, Ints, part
from walras.market.engine.ranked import Ranked, Ranking, first_of, upcoming
from walras.market.engine.sorting import before


class Options(NamedTuple):
    """Columns by option, which is a package of a bid. `head` is the bid's first option, `next` goes round."""

    kind: Ints
    agent: Ints
    price: Ints
    cost: Ints  # of the whole term at its own price
    density: Ints
    rank: Ints  # the latency class first, then the older
    told: Ints
    head: Ints
    next: Ints
    nth: Ints  # package of its bid
    several: Ints  # 1 when the bid has other packages


class Won(NamedTuple):
    """What a pass writes: the options that won, where the devices of each begin, and which start now."""

    options: Ints
    start: Ints
    devices: Ints
    now: Ints
    purse: Ints  # what each agent has left
    heads: Ints  # by option: 1 for the first option of a bid that won


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


class Scratch(NamedTuple):
    """What a pass writes beside its result: room for one option of each bid with several, and by kind whether
    there is no room any more, 0 at first, and how many options are undecided."""

    heap: Ints
    full: Ints
    undecided: Ints


@part
def run(
    order: Ranking, options: Options, kinds: Kinds, board: Board, won: Won, scratch: Scratch, limits: Ints
) -> int:
    """Decide the bids in `order`, which has each bid's first package by surplus; returns how many won.

    limits are the floor and the posted price.
    """
    heap, full = scratch.heap, scratch.full
    floor, posted, waiting, count, kinds_left = limits[0], limits[1], 0, 0, 0
    long = short = 0
    for kind in range(kinds.live.size):
        scratch.undecided[kind] = kinds.live[kind]
        kinds_left += kinds.live[kind] > 0 and kinds.possible[kind] > 0
    # When no kind that is still asked for has room, nobody else wins.
    while kinds_left > 0:
        long, short = upcoming(order.long, long, full), upcoming(order.short, short, full)
        source = first_of(order, long, short, options.density, options.rank, options.told)
        option = order.short.rows[short] if source == 1 else heap[0]
        if source == 0:
            option = order.long.rows[long]
        if waiting > 0 and (
            source == NONE or before(heap[0], option, options.density, options.rank, options.told)
        ):
            option = pop(heap, waiting, options)
            waiting -= 1
        elif source == NONE:
            break
        else:
            long, short = long + (source == 0), short + (source == 1)
        kind, agent = options.kind[option], options.agent[option]
        placed = 0
        if full[kind] == 0 and options.cost[option] <= won.purse[agent]:
            placed = place(kind, kinds, board)
            full[kind] = placed == 0
            kinds_left -= placed == 0
        scratch.undecided[kind] -= 1
        kinds_left -= full[kind] == 0 and scratch.undecided[kind] == 0
        if placed > 0:
            won.purse[agent] -= options.cost[option]
            won.heads[options.head[option]] = 1
            won.options[count], won.now[count] = option, placed == 2
            start = won.start[count]
            for nth in range(kinds.devices[kind]):
                won.devices[start + nth] = board.chosen[nth]
            count += 1
            won.start[count] = start + kinds.devices[kind]
        elif options.several[option] and any_left(option, full, options):
            other = following(options.head[option], option, floor, posted, options, kinds)
            if other != NONE:
                push(heap, waiting, other, options)
                waiting += 1
    return count


@part
def best_lost(order: Ranking, multiple: Ints, won: Won, options: Options, floor: int) -> int:
    """The best density that lost, of packages that could still be paid; 0 when there is none.

    `multiple` has the first option of each bid with several packages.
    """
    best = max(best_single(order.long, won, options), best_single(order.short, won, options))
    for head in multiple:
        if won.heads[head]:
            continue
        each = head
        while True:
            paid = options.cost[each] <= won.purse[options.agent[each]]
            if paid and options.price[each] >= floor and options.density[each] > best:
                best = options.density[each]
            each = options.next[each]
            if each == head:
                break
    return int(best)


@part
def best_single(ranked: Ranked, won: Won, options: Options) -> int:
    """Of bids with one package in a list. Its density falls, so the first that lost says all."""
    for at in range(ranked.rows.size):
        if ranked.tags[at] != NONE and ranked.tags[at] & 1 == 0:
            option = ranked.rows[at]
            if won.heads[option] == 0 and options.cost[option] <= won.purse[options.agent[option]]:
                return int(ranked.density[at])
    return 0
