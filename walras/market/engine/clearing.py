"""A tick: who wins what, where, at which price, which leases go on and which must go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from walras.core.money import charge, price_within
from walras.market.engine.board import Board
from walras.market.engine.book import Book
from walras.market.engine.greedy import Scratch, Won, best_lost, run
from walras.market.engine.improve import improve
from walras.market.engine.jit import NONE, Ints
from walras.market.engine.leases import ACTIVE, RESERVED, Leases
from walras.market.engine.ranked import Ranking
from walras.market.engine.round import NOTHING, Due, Gone, unworthy
from walras.market.engine.sorting import LATER
from walras.market.engine.terms import Terms
from walras.market.engine.turnover import Turnover


@dataclass(frozen=True, slots=True)
class Cleared:
    """What a clearing decides. `won.options` are rows of the book; `pays` is by winner, a GPU-hour, beside
    its compensations to the holders whose leases it displaces; `gone` and `renewed` are rows of leases."""

    won: Won
    price_micros: int
    pays: Ints
    compensations: Ints
    renewed: Ints
    gone: Gone


def clear(
    book: Book,
    posted_micros: int,
    leases: Leases | None = None,
    terms: Terms | None = None,
    now_ms: int = 0,
    *,
    improve_steps: int = 0,
) -> Cleared:
    """Sell by density what is free and what may be had of the leases; at one price: the best density that
    lost, at least the reserve.

    Without leases and terms nothing is renewed or displaced. Changes nothing in the book but the order that
    it keeps; `posted_micros` chooses between packages, and is put aside for renewals. improve_steps: of
    looking for a better packing, see `improve`, where nothing drains and no lease may go.
    """
    order = book.order(posted_micros)
    if leases is not None and terms is not None:
        due = Due(book, leases, terms, posted_micros, now_ms)
        if due.rows.size or due.displaces:
            return _turn_over(order, book, leases, due, posted_micros)
    board = book.board()
    won = serve(order, book, board, posted_micros, book.funds.copy(), NOTHING)
    options, kinds = book.options(), book.catalogue.columns()
    if improve_steps and not board.split:
        won = improve(order, won, options, kinds, book.devices, book.reserve_micros, improve_steps)
    price = max(book.reserve_micros, best_lost(order, book.multiple, won, options, book.reserve_micros))
    pays, none = np.minimum(options.price[won.options], price), np.zeros(won.options.size, np.int64)
    return Cleared(won, price, pays, none, _NO_ROWS, Gone(_NO_ROWS, _NO_ROWS, _NO_ROWS, _NO_ROWS, _NO_ROWS))


_NO_ROWS = np.empty(0, np.int64)


def _turn_over(order: Ranking, book: Book, leases: Leases, due: Due, posted_micros: int) -> Cleared:
    """Everything: again without giving up what is not worth it, or renewing what cannot be paid."""
    options, kinds = book.options(), book.catalogue.columns()
    for _ in range(2 * due.rows.size + 1):
        turnover, board, purse = due.begin()
        won = serve(order, book, board, posted_micros, purse, turnover)
        if (bad := unworthy(won, turnover, options, kinds)).size:
            due.keep(bad)
            continue
        gone = due.gone(turnover)
        lost = best_lost(order, book.multiple, won, options, book.reserve_micros)
        price = max([book.reserve_micros, int(lost), *leases.densities(gone.logged).tolist()])
        compensations = due.compensations(won, gone, options)
        short = due.overdrawn(won, price, compensations, book)
        if short == NONE:
            pays = _pays(won, compensations, price, book)
            return Cleared(won, price, pays, compensations, due.renewed(), gone)
        due.end(short)
    raise AssertionError("every round keeps or ends one more lease that is up for renewal")


def _pays(won: Won, compensations: Ints, price: int, book: Book) -> Ints:
    """What winners pay: the price, and no more than they bid with what they pay to those who go."""
    options, kinds = book.options(), book.catalogue.columns()
    offered = options.price[won.options]
    pays = np.minimum(offered, price)
    for at in np.flatnonzero(compensations).tolist():
        row = int(won.options[at])
        kind, term = options.kind[row], int(options.term[row])
        milli = int(kinds.devices[kind] * kinds.milli[kind])
        left = charge(int(offered[at]), milli, term) - int(compensations[at])
        pays[at] = min(int(pays[at]), price_within(max(0, left), milli * term))
    return pays


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
        end_ms=now_ms + options.term[rows],
        term_ms=options.term[rows],
        state=np.where(won.now == 1, ACTIVE, RESERVED),
        begin=won.start,
        device=won.devices,
        milli=kinds.milli[kind],
        memory=kinds.memory[kind, book.devices.kind[won.devices]],
    )
    book.remove_bids(options.head[rows])
    return added


def serve(
    order: Ranking, book: Book, board: Board, posted_micros: int, purse: Ints, turnover: Turnover
) -> Won:
    """One pass over the order."""
    options, kinds = book.options(), book.catalogue.columns()
    size = order.long.rows.size + order.short.rows.size
    won = Won(
        np.empty(size, np.int64),
        np.zeros(size + 1, np.int64),
        np.empty(turnover.rests.size or room_for(board, book), np.int64),
        np.empty(size, np.int64),
        purse,
        np.zeros(options.kind.size, np.int64),
    )
    groups = kinds.milli.size
    scratch = Scratch(
        np.empty(book.multiple.size + 1, np.int64),
        np.zeros(groups, np.int64),
        np.empty(groups, np.int64),
        np.zeros(2 * groups, np.int64),
    )
    limits = np.array([book.reserve_micros, posted_micros], np.int64)
    count = run(order, options, kinds, board, won, scratch, limits, turnover)
    start = won.start[: count + 1]
    return Won(won.options[:count], start, won.devices[: start[-1]], won.now[:count], won.purse, won.heads)


def room_for(board: Board, book: Book) -> int:
    """How many shares can be won at most, where no lease goes."""
    kinds = book.catalogue.columns()
    wanted = int((kinds.devices * kinds.live).sum())
    free = int(board.now.devices[:, 1].clip(0).sum() + board.later.devices[:, 1].clip(0).sum())
    return min(wanted, free // int(kinds.milli.min(initial=1000)) + 1)
