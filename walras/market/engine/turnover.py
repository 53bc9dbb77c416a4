"""What leases may go within a pass, and what goes."""

from __future__ import annotations

from typing import Final, NamedTuple

from walras.market.engine.board import Board, Kinds, occupy, resize
from walras.market.engine.covering import Held, Parts
from walras.market.engine.evicting import Scratch, drop
from walras.market.engine.jit import Grid, Ints, part
from walras.market.engine.leases import GONE, Shares

# Places in `settings`.
RENEWS: Final = 0  # 1 when leases are up for renewal
DISPLACES: Final = 1  # 1 when leases may be displaced
BEGUN: Final = 2  # those that started after this may not be
PERCENT: Final = 3  # of what they are worth that must be offered
# Places in `counts`.
LOGGED: Final = 0
DENIED: Final = 1
IN_VAIN: Final = 2  # searches for several devices
OPENED: Final = 3  # whether something may be found now that was not before
# Columns of the log.
LEASE: Final = 0
WIN: Final = 1  # the number of the win that takes its place
GIVEN: Final = 2  # 1 when it was up for renewal and given up, 0 when it is displaced


class Turnover(NamedTuple):
    """What may go in a pass and what has gone."""

    held: Held
    renewals: Held  # the same, told in the order of renewal
    shares: Shares
    first: Ints  # by lease, its first share, plus 1
    parts: Parts
    search: Scratch
    settings: Ints
    counts: Ints
    log: Grid
    given: Grid  # by device, milli and memory of leases that were given up
    rests: Ints  # by device won, how much of the log it rests on: without what was given up it would not fit
    floors: Grid  # by kind, and the rest, as `walras.market.engine.displacing` has them
    lowest: Ints
    denied: Grid
    denials: Ints


@part
def go(count: int, win: int, given: bool, board: Board, turnover: Turnover) -> None:
    """The first so many victims of the search leave, for that win."""
    shares, held, log, counts = turnover.shares, turnover.held, turnover.log, turnover.counts
    board.node_at[:] = 0
    for at in range(count):
        lease = turnover.search.victims[at]
        drop(lease, -1, turnover.first, shares, held, board.devices)
        held.state[lease] = GONE
        share = turnover.first[lease]
        while share:
            device = shares.device[share - 1]
            resize(device, board.later, False, board)
            resize(device, board.now, True, board)
            if given:
                turnover.given[device, 0] += shares.milli[share - 1]
                turnover.given[device, 1] += shares.memory[share - 1]
            share = shares.next[share - 1]
        log[counts[LOGGED], LEASE], log[counts[LOGGED], WIN] = lease, win
        log[counts[LOGGED], GIVEN] = given
        counts[LOGGED] += 1


@part
def settle(kind: int, kinds: Kinds, board: Board, turnover: Turnover) -> None:
    """Take the kind's share of the devices that the search picked, once drains are over."""
    for nth in range(kinds.devices[kind]):
        board.chosen[nth] = turnover.search.picked[nth]
    occupy(kind, False, kinds, board)


@part
def support(start: int, count: int, board: Board, turnover: Turnover) -> None:
    """Note for the devices of the last win whether it would fit there if nothing had been given up."""
    devices, given = board.devices, turnover.given
    for nth in range(count):
        device = board.chosen[nth]
        size, memory = devices.class_milli, devices.class_memory
        left = size[devices.kind[device]] - devices.later_milli[device] - given[device, 0]
        short = memory[devices.kind[device]] - devices.later_memory[device] - given[device, 1] < 0
        rests = (given[device, 0] > 0 or given[device, 1] > 0) and (left < 0 or short)
        turnover.rests[start + nth] = turnover.counts[LOGGED] if rests else 0
