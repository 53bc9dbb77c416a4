"""One pass: bids in order of density, each placed or not, and the price that those who lost make."""

from __future__ import annotations

from typing import Final, NamedTuple

from walras.market.engine.board import Board, Kinds, place
from walras.market.engine.displacing import displace_for
from walras.market.engine.jit import NONE, Ints, part
from walras.market.engine.options import Options, any_left, following, pop, push
from walras.market.engine.ranked import Ranked, Ranking, first_of, upcoming
from walras.market.engine.renewing import give_up, reopen
from walras.market.engine.sorting import LATER, before
from walras.market.engine.turnover import DISPLACES, LOGGED, OPENED, RENEWS, Turnover, support

WON: Final = 1
WAITING: Final = 2  # for its next package, in the heap


class Won(NamedTuple):
    """What a pass writes: the options that won, where the devices of each begin, and which start now."""

    options: Ints
    start: Ints
    devices: Ints
    now: Ints
    purse: Ints  # what each agent has left
    heads: Ints  # by option: 1 for the first option of a bid that won


class Scratch(NamedTuple):
    """What a pass writes beside its result: room for one option of each bid with several; by kind from which
    density on there may be room, and how many options are undecided; by group (see `Ranked`) whether it is
    closed."""

    heap: Ints
    full: Ints
    undecided: Ints
    closed: Ints


@part
def run(  # noqa: PLR0912, PLR0915 - the loop that everything is for; its parts share too much to be apart
    order: Ranking, options: Options, kinds: Kinds, board: Board, won: Won, scratch: Scratch, limits: Ints,
    turnover: Turnover,
) -> int:  # fmt: skip
    """Decide the bids in `order`, which has each bid's first package by surplus; returns how many won.

    limits are the floor and the posted price. Once a lease has had to go, those that lost are asked again, as
    it may leave something over.
    """
    heap, full, closed = scratch.heap, scratch.full, scratch.closed
    renews, displaces = turnover.settings[RENEWS], turnover.settings[DISPLACES]
    evicts, again = renews + displaces > 0, False
    waiting = count = kinds_left = long = short = 0
    for kind in range(kinds.live.size):
        scratch.undecided[kind] = kinds.live[kind]
        kinds_left += kinds.live[kind] > 0 and kinds.possible[kind] > 0
    # When no kind that is still asked for has room, and nothing may go, nobody else wins.
    while kinds_left > 0 or evicts:
        long, short = upcoming(order.long, long, closed), upcoming(order.short, short, closed)
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
            if again and won.heads[options.head[option]] != 0:
                continue
        kind, agent, density = options.kind[option], options.agent[option], options.density[option]
        placed, logged = 0, turnover.counts[LOGGED]
        ajar = full[kind] == 0 or (evicts and density >= full[kind])
        if ajar and options.cost[option] <= won.purse[agent]:
            placed = place(kind, kinds, board)
            if placed == 0 and renews:
                placed = give_up(option, count, options, kinds, board, turnover)
            if placed == 0:
                full[kind], closed[2 * kind] = density + 1, 1
                closed[2 * kind + 1] = displaces == 0
                kinds_left -= 1
        scratch.undecided[kind] -= 1
        kinds_left -= full[kind] == 0 and scratch.undecided[kind] == 0
        head, other = options.head[option], NONE
        won.heads[head] = 0
        if placed == 0 and options.several[option] and (evicts or any_left(option, full, options)):
            other = following(head, option, limits[0], limits[1], options, kinds)
        if other != NONE:
            push(heap, waiting, other, options)
            waiting += 1
            won.heads[head] = WAITING
        elif placed == 0 and displaces and options.rank[option] < LATER:
            found = displace_for(head, count, won.purse, limits, closed, options, kinds, board, turnover)
            if found != NONE:
                option, kind, placed = found, options.kind[found], 1
        if placed > 0:
            won.purse[agent] -= options.cost[option]
            won.heads[head] = WON
            won.options[count], won.now[count] = option, placed == 2
            start = won.start[count]
            for nth in range(kinds.devices[kind]):
                won.devices[start + nth] = board.chosen[nth]
            count += 1
            won.start[count] = start + kinds.devices[kind]
            if turnover.counts[LOGGED] > 0:
                support(start, kinds.devices[kind], board, turnover)
            if turnover.counts[LOGGED] > logged:
                reopen(logged, full, closed, kinds, board, turnover)
                if turnover.counts[OPENED]:
                    again, long, short, turnover.counts[OPENED] = True, 0, 0, 0
    return count


@part
def best_lost(order: Ranking, multiple: Ints, won: Won, options: Options, floor: int) -> int:
    """The best density that lost, of packages that could still be paid; 0 when there is none.

    `multiple` has the first option of each bid with several packages.
    """
    best = max(best_single(order.long, won, options), best_single(order.short, won, options))
    for head in multiple:
        if won.heads[head] == WON:
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
            if won.heads[option] != WON and options.cost[option] <= won.purse[options.agent[option]]:
                return int(ranked.density[at])
    return 0
