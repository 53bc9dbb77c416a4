"""Better packings than density order finds: take some devices' winners out, put the best of all back, keep
what is worth no less. Ruin and recreate (Schrimpf et al., Journal of Computational Physics 2000).

A greedy order loses most where few large bids meet few devices; among very many bids it loses next to
nothing. So the search is over a window of bids near the margin, for a number of steps that is given, with
random numbers of its own: the same input gives the same packing. What it finds is not monotone: a winner that
offers more may lose its place to a better packing, so critical payments do not go with it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.board import Devices, Kinds
from walras.market.engine.greedy import WON, Won
from walras.market.engine.jit import LIMIT, NONE, Grid, Ints, kernel, part
from walras.market.engine.options import Options
from walras.market.engine.ranked import Ranking, first_of, upcoming

WINDOW: Final = 512  # bids: the least dense winners, and the densest losers, half each
PLACES: Final = 256  # devices
RUINED: Final = 8  # devices at once, at most
LOSS: Final = 150  # a packing may be worth less by one part in so many at first


class Window(NamedTuple):
    """What a search may change. `state` has by bid the option that won, or NONE, and its devices."""

    heads: Ints
    agents: Ints
    devices: Ints
    room: Grid  # by device: milli and memory that the window's bids may have
    state: Grid
    spare: Ints  # what each agent has left
    value: Ints  # one number: the worth of the winners an hour, in micros x milli


@kernel
def improve(
    order: Ranking, won: Won, options: Options, kinds: Kinds, devices: Devices, floor: int, steps: int
) -> Won:
    """The winners after so many steps; those outside the window stay as they are.

    Only for a board on which nothing drains: every winner starts now.
    """
    window = open_window(order, won, options, kinds, devices)
    kept, best, seed = copy(window), copy(window), np.array([88172645463325252])
    for step in range(steps if window.devices.size else 0):
        ruin(window, options, kinds, devices, seed)
        rebuild(window, options, kinds, devices, floor, seed)
        # Something worse is gone on from while there is time, by a margin that shrinks to nothing.
        margin = kept.value[0] // LOSS * (steps - step) // steps
        if window.value[0] >= kept.value[0] - margin:
            assign(kept, window)
            if window.value[0] > best.value[0]:
                assign(best, window)
        else:
            assign(window, kept)
    assign(window, best)
    return close_window(max(0, won.options.size - WINDOW // 2), window, won, options, kinds)


@kernel
def copy(window: Window) -> Window:
    """A window of its own, as this one is."""
    return Window(
        window.heads,
        window.agents,
        window.devices,
        window.room.copy(),
        window.state.copy(),
        window.spare.copy(),
        window.value.copy(),
    )


@part
def assign(target: Window, source: Window) -> None:
    """Make one as the other is."""
    for device in source.devices:
        target.room[device, 0], target.room[device, 1] = source.room[device, 0], source.room[device, 1]
    for agent in source.agents:
        target.spare[agent] = source.spare[agent]
    for bid in range(source.heads.size):
        for nth in range(source.state.shape[1]):
            target.state[bid, nth] = source.state[bid, nth]
    target.value[0] = source.value[0]


@kernel
def open_window(order: Ranking, won: Won, options: Options, kinds: Kinds, devices: Devices) -> Window:
    """The bids at the margin, the devices that they are on, and as many more with something free."""
    first = max(0, won.options.size - WINDOW // 2)
    losers = np.empty(WINDOW - (won.options.size - first), np.int64)
    count = densest_losers(losers, np.zeros(2 * kinds.milli.size, np.int64), order, won, options)
    heads = np.concatenate((options.head[won.options[first:]], losers[:count]))
    room = np.empty((devices.kind.size, 2), np.int64)
    for device in range(devices.kind.size):
        kind = devices.kind[device]
        room[device, 0] = devices.class_milli[kind] - devices.later_milli[device]
        room[device, 1] = devices.class_memory[kind] - devices.later_memory[device]
    widest = kinds.devices.max() if kinds.devices.size else 0
    state, places = np.full((heads.size, widest + 1), NONE, np.int64), np.zeros(room.shape[0], np.int64)
    value = 0
    for nth in range(won.options.size):
        option = won.options[nth]
        kind = options.kind[option]
        for at in range(won.start[nth], won.start[nth + 1]):
            device = won.devices[at]
            room[device, 0] -= kinds.milli[kind]
            room[device, 1] -= kinds.memory[kind, devices.kind[device]]
            if nth >= first:
                state[nth - first, at - won.start[nth] + 1] = device
                places[device] = 1
        if nth >= first:
            state[nth - first, 0] = option
            value += worth(option, options, kinds)
    more = PLACES - places.sum()
    for device in range(room.shape[0]):
        if more > 0 and places[device] == 0 and room[device, 0] > 0:
            places[device] = 1
            more -= 1
    agents = np.unique(options.agent[heads])
    return Window(heads, agents, np.flatnonzero(places), room, state, won.purse.copy(), np.array([value]))


@part
def densest_losers(losers: Ints, closed: Ints, order: Ranking, won: Won, options: Options) -> int:
    """Fill `losers` with the first options of bids that lost, the densest first; returns how many."""
    count = long = short = 0
    while count < losers.size:
        long, short = upcoming(order.long, long, closed), upcoming(order.short, short, closed)
        source = first_of(order, long, short, options.density, options.rank, options.told)
        if source == NONE:
            break
        row = order.long.rows[long] if source == 0 else order.short.rows[short]
        long, short = long + (source == 0), short + (source == 1)
        losers[count] = options.head[row]
        count += won.heads[options.head[row]] != WON
    return count


@part
def worth(option: int, options: Options, kinds: Kinds) -> int:
    """What an option is worth an hour, in micros x milli."""
    kind = options.kind[option]
    return int(options.price[option] * kinds.devices[kind] * kinds.milli[kind])


@part
def draw(seed: Ints, below: int) -> int:
    """A number from 0 to below - 1 (Marsaglia, "Xorshift RNGs", 2003)."""
    number = seed[0]
    number ^= number << 13
    number ^= (number >> 7) & 0x01FFFFFFFFFFFFFF
    number ^= number << 17
    seed[0] = number
    return int((number & 0x7FFFFFFF) % below)


@part
def move(bid: int, sign: int, window: Window, options: Options, kinds: Kinds, devices: Devices) -> None:
    """Take a winner out (1) or put it in (-1)."""
    option = window.state[bid, 0]
    kind = options.kind[option]
    for nth in range(kinds.devices[kind]):
        device = window.state[bid, nth + 1]
        window.room[device, 0] += sign * kinds.milli[kind]
        window.room[device, 1] += sign * kinds.memory[kind, devices.kind[device]]
    window.spare[options.agent[option]] += sign * options.cost[option]
    window.value[0] -= sign * worth(option, options, kinds)


@part
def ruin(window: Window, options: Options, kinds: Kinds, devices: Devices, seed: Ints) -> None:
    """Take out the winners of some devices."""
    for _ in range(1 + draw(seed, RUINED)):
        place = window.devices[draw(seed, window.devices.size)]
        for bid in range(window.heads.size):
            option = window.state[bid, 0]
            if option == NONE:
                continue
            there = False
            for nth in range(kinds.devices[options.kind[option]]):
                there |= window.state[bid, nth + 1] == place
            if there:
                move(bid, 1, window, options, kinds, devices)
                window.state[bid, 0] = NONE


@kernel
def rebuild(window: Window, options: Options, kinds: Kinds, devices: Devices, floor: int, seed: Ints) -> None:
    """Put bids in that are out, the best first by worth or by density, and by some chance."""
    measure, count = draw(seed, 2), 0
    chosen, keys = np.empty(window.heads.size, np.int64), np.empty(window.heads.size, np.float64)
    bids = np.empty(window.heads.size, np.int64)
    for bid in range(window.heads.size):
        if window.state[bid, 0] == NONE:
            option = any_package(window.heads[bid], options, seed)
            kind = options.kind[option]
            if options.price[option] >= floor and kinds.possible[kind]:
                key = worth(option, options, kinds) if measure == 0 else options.density[option]
                bids[count], chosen[count] = bid, option
                keys[count] = -key * (80 + draw(seed, 41))
                count += 1
    for at in np.argsort(keys[:count]):
        bid, option = bids[at], chosen[at]
        affordable = options.cost[option] <= window.spare[options.agent[option]]
        if affordable and fit(bid, options.kind[option], window, kinds, devices):
            window.state[bid, 0] = option
            move(bid, -1, window, options, kinds, devices)


@part
def any_package(head: int, options: Options, seed: Ints) -> int:
    """One of a bid's packages by chance."""
    option = head
    if options.several[head]:
        for _ in range(draw(seed, 4)):
            option = options.next[option]
    return int(option)


@part
def fit(bid: int, kind: int, window: Window, kinds: Kinds, devices: Devices) -> bool:
    """Choose distinct devices with room, each left with the least; writes them to the bid's state."""
    milli, wanted = kinds.milli[kind], kinds.devices[kind]
    for nth in range(wanted):
        best, least = NONE, LIMIT
        for device in window.devices:
            left = window.room[device, 0] - milli
            left_memory = window.room[device, 1] - kinds.memory[kind, devices.kind[device]]
            if left < 0 or left_memory < 0 or (left << 20) + left_memory >= least:
                continue
            twice = False
            for earlier in range(nth):
                twice |= window.state[bid, earlier + 1] == device
            if not twice:
                best, least = device, (left << 20) + left_memory
        if best == NONE:
            return False
        window.state[bid, nth + 1] = best
    return True


@kernel
def close_window(first: int, window: Window, won: Won, options: Options, kinds: Kinds) -> Won:
    """The winners outside the window as they were, then those in it by density."""
    inside = np.flatnonzero(window.state[:, 0] != NONE)
    inside = inside[np.argsort(-options.density[window.state[inside, 0]], kind="mergesort")]
    rows = np.concatenate((won.options[:first], window.state[inside, 0]))
    start = np.zeros(rows.size + 1, np.int64)
    start[1:] = np.cumsum(kinds.devices[options.kind[rows]])
    devices = np.empty(start[-1], np.int64)
    devices[: start[first]] = won.devices[: start[first]]
    for at in range(inside.size):
        for nth in range(start[first + at + 1] - start[first + at]):
            devices[start[first + at] + nth] = window.state[inside[at], nth + 1]
    heads = np.zeros(won.heads.size, np.int64)
    heads[options.head[rows]] = 1
    return Won(rows, start, devices, np.ones(rows.size, np.int64), window.spare, heads)
