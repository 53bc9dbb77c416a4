"""Leases that are up for renewal and go because a denser bid takes their place, and what opens up then."""

from __future__ import annotations

from walras.market.engine.board import Board, Kinds
from walras.market.engine.covering import Claim
from walras.market.engine.displacing import lower, reconsider
from walras.market.engine.evicting import displace
from walras.market.engine.jit import LIMIT, NONE, Ints, part, step
from walras.market.engine.leases import RENEWING
from walras.market.engine.options import Options
from walras.market.engine.turnover import DISPLACES, LEASE, LOGGED, OPENED, Turnover, go, settle


@step
def give_up(option: int, win: int, options: Options, kinds: Kinds, board: Board, turnover: Turnover) -> int:
    """Place an option where leases are up for renewal that are less dense, at the least loss; 1 if it was."""
    kind = options.kind[option]
    claim = Claim(
        kind, options.agent[option], options.price[option], options.term[option], options.density[option],
        0, 1, LIMIT // 2,
    )  # fmt: skip
    search, held = turnover.search, turnover.renewals
    count = displace(
        kinds, board.devices, turnover.shares, held, turnover.first, claim, turnover.parts, search
    )
    if count == NONE:
        return 0
    go(count, win, True, board, turnover)
    settle(kind, kinds, board, turnover)
    return 1


@step
def reopen(logged: int, full: Ints, closed: Ints, kinds: Kinds, board: Board, turnover: Turnover) -> None:
    """After leases went, in the log from `logged` on: open the kinds for which there may be room now."""
    shares = turnover.shares
    for at in range(logged, turnover.counts[LOGGED]):
        share = turnover.first[turnover.log[at, LEASE]]
        while share:
            reopen_on(shares.device[share - 1], full, closed, kinds, board, turnover)
            share = shares.next[share - 1]
    if turnover.settings[DISPLACES]:
        reconsider(logged, closed, kinds, board, turnover)


@part
def reopen_on(device: int, full: Ints, closed: Ints, kinds: Kinds, board: Board, turnover: Turnover) -> None:
    """Open the kinds that would fit on a device if no lease there were renewed, and forget the floors that it
    may have lowered. Elsewhere there is no more room than before."""
    devices, shares = board.devices, turnover.shares
    device_class = devices.kind[device]
    milli = devices.class_milli[device_class] - devices.later_milli[device]
    memory = devices.class_memory[device_class] - devices.later_memory[device]
    share = shares.on_device[device]
    while share:
        if turnover.held.state[shares.lease[share - 1]] == RENEWING:
            milli += shares.milli[share - 1]
            memory += shares.memory[share - 1]
        share = shares.after[share - 1]
    for kind in range(full.size):
        fits = kinds.milli[kind] <= milli and kinds.memory[kind, device_class] <= memory
        if fits and full[kind] != 0:
            full[kind] = closed[2 * kind] = closed[2 * kind + 1] = 0
            turnover.counts[OPENED] = 1
        if turnover.settings[DISPLACES]:
            lower(device, kind, closed, kinds, board, turnover)
