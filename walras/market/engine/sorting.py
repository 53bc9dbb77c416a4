"""The order of bids: best density first, then the latency class, then the older, then the one told first."""

from __future__ import annotations

from typing import Final

import numpy as np

from walras.market.engine.jit import Ints, kernel, part

BITS: Final = 11
SIZE: Final = 1 << BITS
LATER: Final = 1 << 45  # ranks whoever is not of the latency class after those that are; above any time in ms


@kernel
def sort_by(order: Ints, keys: Ints, scratch: Ints) -> None:
    """Stable radix sort of the rows in `order` by their key, ascending, in place. Keys are not negative.

    Passes are made only over bits in which keys differ, and none when they are in order.
    """
    differ, sorted_already, last = 0, True, 0
    for i in range(order.size):
        key = keys[order[i]]
        differ |= key ^ keys[order[0]]
        sorted_already &= key >= last
        last = key
    if sorted_already:
        return
    source, target, flipped = order, scratch, False
    for shift in range(0, 63, BITS):
        if differ >> shift & (SIZE - 1) == 0:
            continue
        starts = np.zeros(SIZE + 1, np.int64)
        for i in range(order.size):
            starts[(keys[source[i]] >> shift & (SIZE - 1)) + 1] += 1
        for i in range(SIZE):
            starts[i + 1] += starts[i]
        for i in range(order.size):
            digit = keys[source[i]] >> shift & (SIZE - 1)
            target[starts[digit]] = source[i]
            starts[digit] += 1
        source, target, flipped = target, source, not flipped
    if flipped:
        order[:] = scratch


@kernel
def sort_rows(rows: Ints, density: Ints, rank: Ints, told: Ints) -> Ints:
    """The rows by density falling, then rank, then told."""
    order, scratch = rows.copy(), np.empty(rows.size, np.int64)
    sort_by(order, told, scratch)
    sort_by(order, rank, scratch)
    # Ascending over the reversed list and reversed again: falling, and still stable.
    order = order[::-1].copy()
    sort_by(order, density, scratch)
    return order[::-1].copy()


@part
def before(a: int, b: int, density: Ints, rank: Ints, told: Ints) -> bool:
    """Whether row a goes before row b."""
    if density[a] != density[b]:
        return bool(density[a] > density[b])
    return earlier(a, b, rank, told)


@part
def earlier(a: int, b: int, rank: Ints, told: Ints) -> bool:
    """Whether row a goes before row b of the same density."""
    if rank[a] != rank[b]:
        return bool(rank[a] < rank[b])
    return bool(told[a] < told[b])
