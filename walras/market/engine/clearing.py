"""A tick: who wins what, where, at which price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from walras.market.engine.board import Board, Kinds
from walras.market.engine.book import LATER, Book
from walras.market.engine.greedy import Options, Scratch, Won, best_lost, run
from walras.market.engine.improve import improve
from walras.market.engine.jit import Ints
from walras.market.engine.leases import ACTIVE, RESERVED, Leases
from walras.market.engine.ranked import Ranking


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a clearing decides. `won.options` are rows of the book; `pays` is by winner, a GPU-hour."""

    won: Won
    price_micros: int
    pays: Ints


def clear(book: Book, posted_micros: int, *, improve_steps: int = 0) -> Cleared:
    """Sell what is free by density, at one price: the best density that lost, at least the reserve.

    Changes nothing in the book but the order that it keeps; `posted_micros` only chooses between packages.
    improve_steps: of looking for a better packing, see `improve`, where nothing drains.
    """
    order = book.order(posted_micros)
    options, kinds, board = book.options(), book.catalogue.columns(), book.board()
    won = serve(order, book, options, kinds, board, posted_micros)
    if improve_steps and not board.split:
        won = improve(order, won, options, kinds, book.devices, book.reserve_micros, improve_steps)
    lost = best_lost(order, book.multiple, won, options, book.reserve_micros)
    price = max(book.reserve_micros, lost)
    return Cleared(won, price, np.minimum(options.price[won.options], price))


def accept(book: Book, leases: Leases, cleared: Cleared, now_ms: int, restart: Ints | None = None) -> Ints:
    """Make leases of what was won and forget the bids; returns the leases' rows, winner by winner.

    restart: what being displaced costs each winner, 0 if not given.
    """
    won, options, kinds = cleared.won, book.options(), book.catalogue.columns()
    rows, wanted = won.options, np.diff(won.start)
    kind = np.repeat(options.kind[rows], wanted)
    added = leases.add(
        agent=options.agent[rows],
        latency=(options.rank[rows] < LATER).astype(np.int64),
        price=options.price[rows],
        restart=np.zeros(rows.size, np.int64) if restart is None else restart,
        start_ms=np.full(rows.size, now_ms, np.int64),
        state=np.where(won.now == 1, ACTIVE, RESERVED),
        begin=won.start,
        device=won.devices,
        milli=kinds.milli[kind],
        memory=kinds.memory[kind, book.devices.kind[won.devices]],
    )
    book.remove_bids(options.head[rows])
    return added


def serve(
    order: Ranking, book: Book, options: Options, kinds: Kinds, board: Board, posted_micros: int
) -> Won:
    """One pass over the order."""
    size = order.long.rows.size + order.short.rows.size
    wanted = int((kinds.devices * kinds.live).sum())
    free = int(board.now.devices[:, 1].clip(0).sum() + board.later.devices[:, 1].clip(0).sum())
    room = min(wanted, free // int(kinds.milli.min(initial=1000)) + 1)
    won = Won(
        np.empty(size, np.int64),
        np.zeros(size + 1, np.int64),
        np.empty(room, np.int64),
        np.empty(size, np.int64),
        book.funds.copy(),
        np.zeros(options.kind.size, np.int64),
    )
    scratch = Scratch(
        np.empty(book.multiple.size + 1, np.int64),
        np.zeros(kinds.milli.size, np.int64),
        np.empty(kinds.milli.size, np.int64),
    )
    limits = np.array([book.reserve_micros, posted_micros], np.int64)
    count = run(order, options, kinds, board, won, scratch, limits)
    start = won.start[: count + 1]
    return Won(won.options[:count], start, won.devices[: start[-1]], won.now[:count], won.purse, won.heads)
