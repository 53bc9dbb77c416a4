"""Bids of the latency class that found no room, and the leases that they may displace within a pass.

Most of them offer too little for anything. So for each kind a floor is worked out, below which no leases
can be had, and what was looked for in vain is not looked for again until it may be found.
"""

from __future__ import annotations

from typing import Final

from walras.market.engine.amounts import TERM_MAX
from walras.market.engine.board import Board, Kinds
from walras.market.engine.covering import Claim, Held, may_go, worth
from walras.market.engine.evicting import displace, evict_from, least_part
from walras.market.engine.jit import LIMIT, NONE, Ints, part, step
from walras.market.engine.options import Options, following
from walras.market.engine.turnover import (
    BEGUN,
    DENIED,
    IN_VAIN,
    LEASE,
    LOGGED,
    OPENED,
    PERCENT,
    Turnover,
    go,
    settle,
)

# Columns of `Turnover.floors`.
FLOOR: Final = 0  # of several devices: the least that displacing costs, or NONE when that is not worked out
DEAREST: Final = 1  # what the dearest of them counts for in it
VAIN: Final = 2  # a price for which nobody can have it, or NONE
IN_VAIN_MAX: Final = 128  # searches of a pass for several devices, each of which takes up to a millisecond
# Columns of `Turnover.denied`: claims that found nothing worth so much less, each agent's in a chain from
# `denials`; links are rows + 1.
KIND: Final = 0
TERM: Final = 1
PRICE: Final = 2
AGENT: Final = 3
NEXT: Final = 4


@step
def displace_for(
    head: int, win: int, purse: Ints, limits: Ints, closed: Ints, options: Options, kinds: Kinds,
    board: Board, turnover: Turnover,
) -> int:  # fmt: skip
    """Place one of a bid's packages, in order of surplus, where leases may be displaced that are worth enough
    less, and take the cost of their restart out of the purse; returns the option, or NONE."""
    several = options.several[head] == 1
    option = following(head, NONE, limits[0], limits[1], options, kinds) if several else head
    while option != NONE:
        kind = options.kind[option]
        budget = 100 * options.price[option] * kinds.devices[kind] * kinds.milli[kind]
        if hopeless(option, budget, options, kinds, board, turnover):
            # All that follow in the order offer less.
            if not several:
                closed[2 * kind + 1] = closed[2 * kind]
        elif claim_room(option, win, budget, purse, options, kinds, board, turnover):
            return int(option)
        option = following(head, option, limits[0], limits[1], options, kinds) if several else NONE
    return NONE


@part
def hopeless(
    option: int, budget: int, options: Options, kinds: Kinds, board: Board, turnover: Turnover
) -> bool:
    """Whether nobody can displace anything with that offer."""
    kind = options.kind[option]
    if options.price[option] <= turnover.floors[kind, VAIN]:
        return True
    return bool(kinds.devices[kind] > 1 and budget < floor_of(kind, kinds, board, turnover))


@part
def claim_room(
    option: int, win: int, budget: int, purse: Ints, options: Options, kinds: Kinds, board: Board,
    turnover: Turnover,
) -> bool:  # fmt: skip
    """Whether leases went for that option."""
    kind, agent, search = options.kind[option], options.agent[option], turnover.search
    price, term = options.price[option], options.term[option]
    if options.cost[option] > purse[agent] or was_denied(kind, term, agent, price, turnover):
        return False
    claim = Claim(
        kind, agent, price, term, NONE, turnover.settings[BEGUN], turnover.settings[PERCENT], budget
    )
    held = turnover.held
    count = search_for(claim, kinds, board, turnover)
    if count == 0 and not any_may_go(claim, held):
        count = NONE
    if count == NONE:
        # For one device the search is exact: what nobody can have for that price, nobody can for less. For
        # more that is all but so, and taken to be so once much was looked for in vain.
        begun, percent = turnover.settings[BEGUN], turnover.settings[PERCENT]
        anyone = Claim(kind, NONE, price, TERM_MAX, NONE, begun, percent, budget)
        turnover.counts[IN_VAIN] += kinds.devices[kind] > 1
        final = kinds.devices[kind] == 1 or turnover.counts[IN_VAIN] > IN_VAIN_MAX
        if final and search_for(anyone, kinds, board, turnover) == NONE:
            turnover.floors[kind, VAIN] = price
        else:
            deny(kind, term, agent, price, turnover)
        return False
    restarts = 0
    for at in range(count):
        lease = search.victims[at]
        if held.agent[lease] != agent:
            restarts += held.restart[lease]
    if options.cost[option] + restarts > purse[agent]:
        return False
    purse[agent] -= restarts
    go(count, win, False, board, turnover)
    settle(kind, kinds, board, turnover)
    return True


@part
def any_may_go(claim: Claim, held: Held) -> bool:
    """Whether there is a lease that a claim might displace. Where room has come free since a bid was asked,
    the auction places it there only if there is."""
    for lease in range(held.state.size):
        if may_go(lease, held, claim) and worth(lease, held, claim) <= claim.budget:
            return True
    return False


@step
def search_for(claim: Claim, kinds: Kinds, board: Board, turnover: Turnover) -> int:
    """How many victims there are, or NONE; see `displace`."""
    held, first, parts = turnover.held, turnover.first, turnover.parts
    return displace(kinds, board.devices, turnover.shares, held, first, claim, parts, turnover.search)


@part
def floor_of(kind: int, kinds: Kinds, board: Board, turnover: Turnover) -> int:
    """What displacing costs at least for a kind, whoever asks: the sum of its cheapest devices' least parts.

    Within a pass it rises as room is taken, and may fall only where a lease has gone.
    """
    floors, lowest = turnover.floors, turnover.lowest
    if floors[kind, FLOOR] == NONE:
        wanted, have = kinds.devices[kind], 0
        for device in range(board.devices.kind.size):
            percent = turnover.settings[PERCENT]
            least = least_part(device, kind, percent, kinds, board.devices, turnover.shares)
            if have == wanted and least >= lowest[have - 1]:
                continue
            have = min(have + 1, wanted)
            at = have - 1
            while at > 0 and lowest[at - 1] > least:
                lowest[at] = lowest[at - 1]
                at -= 1
            lowest[at] = least
        total = LIMIT if have < wanted else 0
        for at in range(wanted if total == 0 else 0):
            total = min(total + min(lowest[at], LIMIT // 2), LIMIT // 2)
        floors[kind, FLOOR] = total
        floors[kind, DEAREST] = lowest[wanted - 1] if have == wanted else LIMIT
    return int(floors[kind, FLOOR])


@part
def lower(device: int, kind: int, closed: Ints, kinds: Kinds, board: Board, turnover: Turnover) -> None:
    """Forget a floor if a device on which a lease has gone would count in it now."""
    if kinds.devices[kind] > 1 and turnover.floors[kind, FLOOR] != NONE:
        percent = turnover.settings[PERCENT]
        least = least_part(device, kind, percent, kinds, board.devices, turnover.shares)
        if least < turnover.floors[kind, DEAREST]:
            turnover.floors[kind, FLOOR] = NONE
            closed[2 * kind + 1], turnover.counts[OPENED] = 0, 1


@part
def was_denied(kind: int, term: int, agent: int, price: int, turnover: Turnover) -> bool:
    """Whether the agent looked in vain with as much or more for the same."""
    denied, at = turnover.denied, turnover.denials[agent]
    while at:
        if denied[at - 1, KIND] == kind and denied[at - 1, TERM] == term:
            return bool(price <= denied[at - 1, PRICE])
        at = denied[at - 1, NEXT]
    return False


@part
def deny(kind: int, term: int, agent: int, price: int, turnover: Turnover) -> None:
    """Note that an agent looked in vain."""
    denied, counts, at = turnover.denied, turnover.counts, turnover.denials[agent]
    while at and (denied[at - 1, KIND] != kind or denied[at - 1, TERM] != term):
        at = denied[at - 1, NEXT]
    if at == 0:
        at = counts[DENIED] + 1
        counts[DENIED] = at
        denied[at - 1, KIND], denied[at - 1, TERM], denied[at - 1, AGENT] = kind, term, agent
        denied[at - 1, NEXT] = turnover.denials[agent]
        turnover.denials[agent] = at
    denied[at - 1, PRICE] = price


@part
def reconsider(logged: int, closed: Ints, kinds: Kinds, board: Board, turnover: Turnover) -> None:
    """Forget what may not hold after the leases in the log from `logged` on have gone."""
    denied, counts, count = turnover.denied, turnover.counts, turnover.counts[DENIED]
    for kind in range(kinds.milli.size):
        vain = turnover.floors[kind, VAIN]
        single = kinds.devices[kind] == 1
        if single and vain != NONE and opened(kind, TERM_MAX, vain, NONE, logged, kinds, board, turnover):
            turnover.floors[kind, VAIN] = NONE
            closed[2 * kind + 1], counts[OPENED] = 0, 1
    for row in range(count):
        turnover.denials[denied[row, AGENT]] = 0
    counts[DENIED] = 0
    for row in range(count):
        kind, term, price, agent = (
            denied[row, KIND],
            denied[row, TERM],
            denied[row, PRICE],
            denied[row, AGENT],
        )
        # For several devices the search is not exact, so that it may find something elsewhere too.
        holds = kinds.devices[kind] > 1 and counts[IN_VAIN] > IN_VAIN_MAX
        if kinds.devices[kind] == 1:
            holds = not opened(kind, term, price, agent, logged, kinds, board, turnover)
        if holds:
            deny(kind, term, agent, price, turnover)
        else:
            closed[2 * kind + 1], counts[OPENED] = 0, 1


@part
def opened(
    kind: int, term: int, price: int, agent: int, logged: int, kinds: Kinds, board: Board, turnover: Turnover
) -> bool:
    """Whether a claim for one device can be met where leases have gone."""
    budget = 100 * price * kinds.milli[kind]
    claim = Claim(
        kind, agent, price, term, NONE, turnover.settings[BEGUN], turnover.settings[PERCENT], budget
    )
    devices, shares, held = board.devices, turnover.shares, turnover.held
    for at in range(logged, turnover.counts[LOGGED]):
        share = turnover.first[turnover.log[at, LEASE]]
        while share:
            device = shares.device[share - 1]
            if kinds.memory[kind, devices.kind[device]] != LIMIT:
                parts, search = turnover.parts, turnover.search
                cost = evict_from(device, budget, kinds, devices, shares, held, claim, parts, search)
                if cost <= budget:
                    return True
            share = shares.next[share - 1]
    return False
