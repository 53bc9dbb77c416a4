"""Books to test the engine with: equal devices, agents that can pay, bids of one package."""

from __future__ import annotations

import numpy as np

from walras.devices.placement import Shape
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared

WHOLE = Shape(1000, 80_000)


def pool(devices: int, *, per_node: int = 4, agents: int = 3) -> Book:
    """Equal devices, and agents that can pay for anything."""
    number = np.arange(devices)
    book = Book((WHOLE,), np.zeros(devices, np.int64), number // per_node, reserve_micros=1)
    book.set_funds(np.arange(agents), np.full(agents, 10**15))
    return book


def bid(book: Book, kind: int, price: int, *, agent: int = 0, latency: bool = False) -> int:
    """A bid for a minute; returns its row."""
    return book.add_bid(agent, kind, price, 60_000, submitted_ms=1, latency=latency)


def devices_of(cleared: Cleared, row: int) -> list[int]:
    """Where a winner goes."""
    at = cleared.won.options.tolist().index(row)
    devices: list[int] = cleared.won.devices[cleared.won.start[at] : cleared.won.start[at + 1]].tolist()
    return devices


def worth(book: Book, cleared: Cleared) -> int:
    """What the winners are worth an hour, in micros x milli."""
    options, kinds, rows = book.options(), book.catalogue.columns(), cleared.won.options
    return int((options.price * kinds.devices[options.kind] * kinds.milli[options.kind])[rows].sum())
