"""How well a place suits a shape: the growth of fragmentation (Weng et al., USENIX ATC 2023), then best fit.

The same measure as `walras.devices.placement.fragmentation`, read from a table of how many of the shapes in
demand do not fit a room of so much free milli-GPU and memory.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from walras.market.engine.jit import LIMIT, Grid, Ints, kernel, part

WEIGHT_MAX: Final = 1 << 20  # of all shapes in demand together, so that a score has room for a growth
MEMORIES_MAX: Final = 255  # distinct sizes that are told apart; others count as the next larger one
LEFT_BITS: Final = 10
MEMORY_BITS: Final = 20


@kernel
def tabulate(milli: Ints, memory: Ints, wanted: Ints, milli_max: int) -> Grid:
    """By free milli-GPU a row of how many shapes do not fit, by the number of memory sizes that do.

    The last row has those sizes, ascending, and LIMIT after them. Shapes are (milli, memory), each wanted so
    many times.
    """
    memories = np.unique(memory[wanted > 0])
    if memories.size > MEMORIES_MAX:
        memories = memories[:: memories.size // MEMORIES_MAX + 1]
    total = wanted.sum()
    table = np.zeros((milli_max + 2, memories.size + 1), np.int64)
    for shape in range(wanted.size):
        if wanted[shape] > 0:
            weight = wanted[shape]
            if total > WEIGHT_MAX:
                weight = max(1, weight * WEIGHT_MAX // total)
            table[milli[shape], np.searchsorted(memories, memory[shape], "right")] += weight
    for i in range(milli_max + 1):
        for j in range(memories.size + 1):
            above = table[i - 1, j] if i else 0
            before = table[i, j - 1] if j else 0
            both = table[i - 1, j - 1] if i and j else 0
            table[i, j] += above + before - both
    table[: milli_max + 1] = table[milli_max, memories.size] - table[: milli_max + 1]
    table[milli_max + 1, : memories.size] = memories
    table[milli_max + 1, memories.size] = LIMIT
    return table


@part
def fragmented(milli: int, memory: int, demand: Grid) -> int:
    """Free milli-GPU x shapes in demand that cannot use it."""
    last = demand.shape[0] - 1
    low, high = 0, demand.shape[1] - 1
    while low < high:
        middle = (low + high) >> 1
        if demand[last, middle] <= memory:
            low = middle + 1
        else:
            high = middle
    return int(milli * demand[milli, low])


@part
def score(milli: int, memory: int, before: int, demand: Grid) -> int:
    """Ranks what would be left of a room whose fragmentation is `before`: less is better.

    Growth of fragmentation, then milli left, then memory left, as one integer.
    """
    growth = fragmented(milli, memory, demand) - before
    return (((growth << LEFT_BITS) + milli) << MEMORY_BITS) + memory
