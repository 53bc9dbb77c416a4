"""The order of bids: best density first, then the latency class, then the older, then the one told first."""

from __future__ import annotations

import numpy as np

from walras.market.engine.jit import Ints, kernel, part

BITS = 11
SIZE = 1 << BITS


@kernel
def sort_by(order: Ints, keys: Ints, scratch: Ints) -> None:
    """Stable radix sort of the rows in `order` by their key, ascending, in place. Keys are not negative.

    Passes are only made over the bits in which keys differ: prices of a market are close to each other.
    """
    count = order.size
    if count < 2:
        return
    low = high = keys[order[0]]
    for i in range(count):
        key = keys[order[i]]
        low, high = min(low, key), max(high, key)
    span, shift = high - low, 0
    source, target = order, scratch
    flipped = False
    while span >> shift > 0:
        starts = np.zeros(SIZE + 1, np.int64)
        for i in range(count):
            starts[((keys[source[i]] - low) >> shift & (SIZE - 1)) + 1] += 1
        for i in range(SIZE):
            starts[i + 1] += starts[i]
        for i in range(count):
            digit = (keys[source[i]] - low) >> shift & (SIZE - 1)
            target[starts[digit]] = source[i]
            starts[digit] += 1
        source, target = target, source
        flipped = not flipped
        shift += BITS
    if flipped:
        for i in range(count):
            order[i] = scratch[i]


@kernel
def sort_rows(rows: Ints, density: Ints, rank: Ints, told: Ints) -> Ints:
    """The rows by density falling, then rank, then told."""
    order, scratch = rows.copy(), np.empty(rows.size, np.int64)
    sort_by(order, told, scratch)
    sort_by(order, rank, scratch)
    for i in range(order.size // 2):
        order[i], order[order.size - 1 - i] = order[order.size - 1 - i], order[i]
    # Ascending over the reversed list and reversed again: falling, and still stable.
    sort_by(order, density, scratch)
    return order[::-1].copy()


@part
def before(a: int, b: int, density: Ints, rank: Ints, told: Ints) -> bool:
    """Whether row a goes before row b."""
    if density[a] != density[b]:
        return bool(density[a] > density[b])
    if rank[a] != rank[b]:
        return bool(rank[a] < rank[b])
    return bool(told[a] < told[b])


@kernel
def merge(order: Ints, gone: Ints, fresh: Ints, density: Ints, rank: Ints, told: Ints) -> Ints:
    """`order` without the rows that are `gone`, with the sorted rows `fresh` put in where they belong."""
    merged = np.empty(order.size + fresh.size, np.int64)
    at = taken = 0
    for i in range(order.size):
        row = order[i]
        if gone[row] != 0:
            continue
        while taken < fresh.size and before(fresh[taken], row, density, rank, told):
            merged[at] = fresh[taken]
            at += 1
            taken += 1
        merged[at] = row
        at += 1
    while taken < fresh.size:
        merged[at] = fresh[taken]
        at += 1
        taken += 1
    return merged[:at]
