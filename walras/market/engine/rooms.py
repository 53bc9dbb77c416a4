"""Free room by what it is: devices of one class with the same free milli-GPU and memory share a cell.

All devices of a cell suit a shape equally well, so a shape is held against cells, of which there are few,
and not against devices. Cells are listed by their free milli-GPU, tightest first. The devices of a cell are a
skew heap (Sleator and Tarjan, 1986) of device numbers: the lowest is taken first, which also keeps what is
free together, as numbers go by node.

Rooms are few arrays with many columns: a device's numbers are then on one cache line, and kernels hand each
other few arrays, for each of which numba counts references.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.amounts import MILLI_MAX
from walras.market.engine.fragmentation import fragmented
from walras.market.engine.jit import NONE, Grid, Ints, kernel, mixed, part

# Columns of a device and of a cell.
CLASS: Final = 0
MILLI: Final = 1  # free
MEMORY: Final = 2
CELL: Final = 3  # of the device, NONE when it has nothing free
LEFT: Final = 4  # of the heap
RIGHT: Final = 5
ABOVE: Final = 6
BEFORE: Final = 3  # the cell's fragmentation
COUNT: Final = 4
ROOT: Final = 5
PRIOR: Final = 6  # in its level: the cells of equal free milli-GPU
AFTER: Final = 7
NEXT: Final = 8  # in its chain of the hash table, or in the list of unused cells
WIDTH: Final = 9

# Places in `levels`: by free milli-GPU the first cell, then 32 levels a word which have cells, then the first
# of the cells that are used no more, then the first that never was.
BITS: Final = MILLI_MAX + 1
UNUSED: Final = BITS + MILLI_MAX // 32 + 1
FRESH: Final = UNUSED + 1

CHAINS_MAX: Final = 1 << 13  # of the hash table; there are rarely so many cells

# Which of 32 bits is the only one set, by a de Bruijn sequence (Leiserson, Prokop and Randall, 1998).
_DE_BRUIJN: Final = 0x077CB531
_BIT = np.array([(_DE_BRUIJN << bit & 0xFFFFFFFF) >> 27 for bit in range(32)]).argsort()


class Rooms(NamedTuple):
    """Devices, cells, the hash table of cells and the index of them by level."""

    devices: Grid
    cells: Grid
    chains: Ints
    levels: Ints


@kernel
def build(kind: Ints, milli: Ints, memory: Ints, demand: Grid, grows: bool) -> Rooms:
    """Rooms of devices of these classes with so much free."""
    count, size = kind.size, 1
    # Where room only shrinks there are never more cells than devices with room now.
    open_devices = count if grows else int((milli > 0).sum())
    while size < min(2 * open_devices + 2, CHAINS_MAX):
        size *= 2
    devices = np.empty((count, 7), np.int64)
    devices[:, CLASS], devices[:, MILLI], devices[:, MEMORY] = kind, milli, memory
    # Most cells are never used: what is not written takes no memory.
    cells = np.empty((open_devices + 1, WIDTH), np.int64)
    levels = np.full(FRESH + 1, NONE, np.int64)
    levels[BITS:UNUSED] = levels[FRESH] = 0
    rooms = Rooms(devices, cells, np.full(size, NONE, np.int64), levels)
    # From the last to the first, so that each becomes its heap's root and the one before it its only child.
    for device in range(count - 1, -1, -1):
        insert(device, rooms, demand)
    return rooms


@part
def chain(kind: int, milli: int, memory: int, rooms: Rooms) -> int:
    """Where in the hash table a room's cell is."""
    return mixed((kind << 30) | (milli << 20) | memory) & (rooms.chains.size - 1)


@part
def cell_of(kind: int, milli: int, memory: int, rooms: Rooms, demand: Grid) -> int:
    """The cell of such a room, made when there is none."""
    cells, levels = rooms.cells, rooms.levels
    at = chain(kind, milli, memory, rooms)
    cell = rooms.chains[at]
    while cell != NONE:
        same = cells[cell, MILLI] == milli and cells[cell, MEMORY] == memory
        if same and cells[cell, CLASS] == kind:
            return int(cell)
        cell = cells[cell, NEXT]
    cell = levels[UNUSED]
    if cell == NONE:
        cell = levels[FRESH]
        levels[FRESH] = cell + 1
    else:
        levels[UNUSED] = cells[cell, NEXT]
    cells[cell, CLASS], cells[cell, MILLI], cells[cell, MEMORY] = kind, milli, memory
    cells[cell, BEFORE] = fragmented(milli, memory, demand)
    cells[cell, COUNT], cells[cell, ROOT] = 0, NONE
    cells[cell, NEXT] = rooms.chains[at]
    rooms.chains[at] = cell
    after = levels[milli]
    cells[cell, PRIOR], cells[cell, AFTER] = NONE, after
    levels[milli] = cell
    if after != NONE:
        cells[after, PRIOR] = cell
    levels[BITS + (milli >> 5)] |= 1 << (milli & 31)
    return int(cell)


@part
def forget(cell: int, rooms: Rooms) -> None:
    """Give back a cell that has become empty."""
    cells, levels, milli = rooms.cells, rooms.levels, rooms.cells[cell, MILLI]
    following, prior, after = cells[cell, NEXT], cells[cell, PRIOR], cells[cell, AFTER]
    at = chain(cells[cell, CLASS], milli, cells[cell, MEMORY], rooms)
    if rooms.chains[at] == cell:
        rooms.chains[at] = following
    else:
        ahead = rooms.chains[at]
        while cells[ahead, NEXT] != cell:
            ahead = cells[ahead, NEXT]
        cells[ahead, NEXT] = following
    cells[cell, NEXT] = levels[UNUSED]
    levels[UNUSED] = cell
    if after != NONE:
        cells[after, PRIOR] = prior
    if prior != NONE:
        cells[prior, AFTER] = after
    else:
        levels[milli] = after
        if after == NONE:
            levels[BITS + (milli >> 5)] &= ~(1 << (milli & 31))


@part
def level_from(milli: int, rooms: Rooms) -> int:
    """The least free milli-GPU, from `milli` up, that any device has; NONE when there is none."""
    levels, word = rooms.levels, BITS + (milli >> 5)
    bits = levels[word] >> (milli & 31) << (milli & 31)
    while bits == 0:
        word += 1
        if word == UNUSED:
            return NONE
        bits = levels[word]
    lowest = bits & -bits
    return int((word - BITS << 5) + _BIT[(lowest * _DE_BRUIJN & 0xFFFFFFFF) >> 27])


@part
def meld(a: int, b: int, devices: Grid) -> int:
    """The root of two heaps made one; each may be NONE."""
    if min(a, b) == NONE:
        root = b if a == NONE else a
        if root != NONE:
            devices[root, ABOVE] = NONE
        return root
    if b < a:
        a, b = b, a
    root = a
    while True:
        under = devices[a, RIGHT]
        devices[a, RIGHT] = devices[a, LEFT]
        if under == NONE:
            devices[a, LEFT], devices[b, ABOVE] = b, a
            break
        if b < under:
            under, b = b, under
        devices[a, LEFT], devices[under, ABOVE] = under, a
        a = under
    devices[root, ABOVE] = NONE
    return root


@part
def insert(device: int, rooms: Rooms, demand: Grid) -> None:
    """Put a device, whose room is known, into its cell; one with nothing free into none."""
    devices = rooms.devices
    devices[device, CELL] = devices[device, LEFT] = devices[device, RIGHT] = devices[device, ABOVE] = NONE
    milli, memory = devices[device, MILLI], devices[device, MEMORY]
    if milli > 0 and memory >= 0:
        cell = cell_of(devices[device, CLASS], milli, memory, rooms, demand)
        devices[device, CELL] = cell
        rooms.cells[cell, ROOT] = meld(rooms.cells[cell, ROOT], device, devices)
        rooms.cells[cell, COUNT] += 1


@part
def remove(device: int, rooms: Rooms) -> None:
    """Take a device out of its cell."""
    devices = rooms.devices
    cell, above = devices[device, CELL], devices[device, ABOVE]
    if cell == NONE:
        return
    below = meld(devices[device, LEFT], devices[device, RIGHT], devices)
    if above == NONE:
        rooms.cells[cell, ROOT] = below
    else:
        side = LEFT if devices[above, LEFT] == device else RIGHT
        devices[above, side] = below
        if below != NONE:
            devices[below, ABOVE] = above
    devices[device, CELL] = NONE
    rooms.cells[cell, COUNT] -= 1
    if rooms.cells[cell, COUNT] == 0:
        forget(cell, rooms)
