"""A tick: who wins what, where, at which price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from walras.market.engine.board import Board, Kinds
from walras.market.engine.book import Book
from walras.market.engine.greedy import Options, Won, best_lost, run
from walras.market.engine.jit import Ints


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a clearing decides. `won.options` are rows of the book; `pays` is by winner, a GPU-hour."""

    won: Won
    price_micros: int
    pays: Ints


def clear(book: Book, posted_micros: int) -> Cleared:
    """Sell what is free by density, at one price: the best density that lost, at least the reserve.

    Changes nothing in the book but the order that it keeps; `posted_micros` only chooses between packages.
    """
    order = book.order(posted_micros)
    options, kinds = book.options(), book.catalogue.columns()
    won = serve(order, book, options, kinds, book.board(), posted_micros)
    lost = best_lost(order, book.multiple, won, options, book.reserve_micros)
    price = max(book.reserve_micros, lost)
    return Cleared(won, price, np.minimum(options.price[won.options], price))


def serve(order: Ints, book: Book, options: Options, kinds: Kinds, board: Board, posted_micros: int) -> Won:
    """One pass over the order."""
    wanted = (
        int(kinds.devices[options.kind[order]].sum()) + int(kinds.devices.max(initial=0)) * book.multiple.size
    )
    free = int(board.now.devices[:, 1].clip(0).sum() + board.later.devices[:, 1].clip(0).sum())
    room = min(wanted, free // int(kinds.milli.min(initial=1000)) + 1)
    won = Won(
        np.empty(order.size, np.int64),
        np.zeros(order.size + 1, np.int64),
        np.empty(room, np.int64),
        np.empty(order.size, np.int64),
        book.funds.copy(),
        np.zeros(options.kind.size, np.int64),
    )
    heap, full = np.empty(book.multiple.size + 1, np.int64), np.zeros(kinds.milli.size, np.int64)
    limits = np.array([book.reserve_micros, posted_micros], np.int64)
    count = run(order, heap, full, options, kinds, board, won, limits)
    start = won.start[: count + 1]
    return Won(won.options[:count], start, won.devices[: start[-1]], won.now[:count], won.purse, won.heads)
