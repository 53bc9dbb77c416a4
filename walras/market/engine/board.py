"""What is taken on each device, now and once all drains are over, and where a shape would go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from walras.market.engine.fragmentation import score
from walras.market.engine.jit import LIMIT, NONE, Grid, Ints, kernel, mixed, part
from walras.market.engine.rooms import (
    AFTER,
    BEFORE,
    CELL,
    CLASS,
    COUNT,
    MEMORY,
    MILLI,
    ROOT,
    Rooms,
    build,
    insert,
    level_from,
    remove,
)

SCORES = 1 << 13  # remembered, a power of two
TRIED = 16


class Devices(NamedTuple):
    """Columns by device, by class and by node (`node_devices` from `node_start`). `now` and `later` are what
    is taken, as in `walras.market.placement.Board`."""

    kind: Ints  # its class
    now_milli: Ints
    now_memory: Ints
    later_milli: Ints
    later_memory: Ints
    class_milli: Ints
    class_memory: Ints
    node: Ints
    node_start: Ints
    node_devices: Ints


class Kinds(NamedTuple):
    """What packages ask for, by kind: how many devices, milli on each, memory on each by class.

    Memory is LIMIT where the kind may not go or does not fit the empty device. together: the devices should
    be of one node if any node has the room.
    """

    devices: Ints
    milli: Ints
    memory: Grid
    together: Ints
    possible: Ints  # 1 when the empty pool could hold it
    live: Ints  # how many options ask for it


class Board(NamedTuple):
    """Devices with room to start now, and with room once drains are over: the same Rooms if nothing drains.

    scores is a cache of `fragmentation.score`; node_at is, by kind, the first node that may still have room
    for it together; chosen are the devices of the last choice.
    """

    devices: Devices
    now: Rooms
    later: Rooms
    split: bool
    demand: Grid
    scores: Grid
    node_at: Ints
    chosen: Ints


@kernel
def prepare(devices: Devices, demand: Grid, kinds: Kinds, turnover: bool) -> Board:
    """A board of its own, which a pass may change; with `turnover` leases may go, so that room grows."""
    own = Devices(
        devices.kind,
        devices.now_milli.copy(),
        devices.now_memory.copy(),
        devices.later_milli.copy(),
        devices.later_memory.copy(),
        devices.class_milli,
        devices.class_memory,
        devices.node,
        devices.node_start,
        devices.node_devices,
    )
    milli, memory = devices.class_milli[devices.kind], devices.class_memory[devices.kind]
    later_milli, later_memory = milli - own.later_milli, memory - own.later_memory
    milli -= np.maximum(own.now_milli, own.later_milli)
    memory -= np.maximum(own.now_memory, own.later_memory)
    later = now = build(devices.kind, milli, memory, demand, turnover)
    split = turnover or bool(np.any(milli != later_milli) or np.any(memory != later_memory))
    if split:
        later = build(devices.kind, later_milli, later_memory, demand, turnover)
    return Board(
        own,
        now,
        later,
        split,
        demand,
        np.full((SCORES, 2), NONE, np.int64),
        np.zeros(kinds.milli.size, np.int64),
        np.empty(max(1, kinds.devices.max()) if kinds.devices.size else 1, np.int64),
    )


@part
def suits(cell: int, kind: int, need: int, left: int, rooms: Rooms, board: Board) -> int:
    """The score of a cell for a kind that wants `need` milli of it and leaves so much memory."""
    cells, scores = rooms.cells, board.scores
    milli = cells[cell, MILLI]
    key = (((kind << 6) | cells[cell, CLASS]) << 30) | (milli << 20) | cells[cell, MEMORY]
    at = mixed(key) & (SCORES - 1)
    if scores[at, 0] != key:
        scores[at, 0], scores[at, 1] = key, score(milli - need, left, cells[cell, BEFORE], board.demand)
    return int(scores[at, 1])


@part
def best_cell(kind: int, kinds: Kinds, rooms: Rooms, board: Board) -> int:
    """The cell with the best score, on equal scores that with the lowest device; NONE when none fits.

    Looked at are the TRIED tightest (and the rest of the last one's level), so that work is bounded.
    """
    need, memory, cells = kinds.milli[kind], kinds.memory, rooms.cells
    best, least, lowest, tried = NONE, LIMIT, 0, 0
    level = level_from(need, rooms)
    while level != NONE and tried < TRIED:
        cell = rooms.levels[level]
        while cell != NONE:
            left = cells[cell, MEMORY] - memory[kind, cells[cell, CLASS]]
            if left >= 0:
                tried += 1
                found, root = suits(cell, kind, need, left, rooms, board), cells[cell, ROOT]
                if found < least or (found == least and root < lowest):
                    best, least, lowest = cell, found, root
            cell = cells[cell, AFTER]
        level = level_from(level + 1, rooms)
    return best


@part
def enough(kind: int, kinds: Kinds, rooms: Rooms) -> bool:
    """Whether as many devices as the kind wants have room for it."""
    missing, memory, cells = kinds.devices[kind], kinds.memory, rooms.cells
    level = level_from(kinds.milli[kind], rooms)
    while level != NONE:
        cell = rooms.levels[level]
        while cell != NONE:
            if cells[cell, MEMORY] >= memory[kind, cells[cell, CLASS]]:
                missing -= cells[cell, COUNT]
                if missing <= 0:
                    return True
            cell = cells[cell, AFTER]
        level = level_from(level + 1, rooms)
    return False


@part
def node_fits(kind: int, node: int, kinds: Kinds, rooms: Rooms, devices: Devices) -> bool:
    """Whether one node has the room for all of it."""
    missing = kinds.devices[kind]
    for at in range(devices.node_start[node], devices.node_start[node + 1]):
        device = devices.node_devices[at]
        memory = kinds.memory[kind, devices.kind[device]]
        missing -= (
            rooms.devices[device, MILLI] >= kinds.milli[kind] and rooms.devices[device, MEMORY] >= memory
        )
    return bool(missing <= 0)


@part
def choose_together(kind: int, kinds: Kinds, rooms: Rooms, board: Board) -> bool:
    """Devices of the first node that has the room, the best of it. Fills `chosen` and takes them out.

    Within a pass room only shrinks, so a node that had none is not looked at again for that kind.
    """
    devices, need = board.devices, kinds.milli[kind]
    node, nodes = board.node_at[kind], devices.node_start.size - 1
    while node < nodes and not node_fits(kind, node, kinds, rooms, devices):
        node += 1
    board.node_at[kind] = node
    if node == nodes:
        return False
    for nth in range(kinds.devices[kind]):
        best, least = NONE, LIMIT
        for at in range(devices.node_start[node], devices.node_start[node + 1]):
            device = devices.node_devices[at]
            cell = rooms.devices[device, CELL]
            left = rooms.devices[device, MEMORY] - kinds.memory[kind, devices.kind[device]]
            if cell != NONE and rooms.devices[device, MILLI] >= need and left >= 0:
                found = suits(cell, kind, need, left, rooms, board)
                if found < least:
                    best, least = device, found
        board.chosen[nth] = best
        remove(best, rooms)
    return True


@part
def choose(kind: int, now: bool, kinds: Kinds, rooms: Rooms, board: Board) -> bool:
    """As many distinct devices as the kind wants, the best. Fills `chosen` and takes them out of `rooms`."""
    wanted = kinds.devices[kind]
    if wanted > 1:
        if now and kinds.together[kind] and choose_together(kind, kinds, rooms, board):
            return True
        if not enough(kind, kinds, rooms):
            return False
    for nth in range(wanted):
        cell = best_cell(kind, kinds, rooms, board)
        if cell == NONE:
            return False
        device = rooms.cells[cell, ROOT]
        board.chosen[nth] = device
        remove(device, rooms)
    return True


@part
def occupy(kind: int, now: bool, kinds: Kinds, board: Board) -> None:
    """Take the kind's share of each chosen device, at once or once drains are over."""
    devices, milli = board.devices, kinds.milli[kind]
    for nth in range(kinds.devices[kind]):
        device = board.chosen[nth]
        memory = kinds.memory[kind, devices.kind[device]]
        devices.later_milli[device] += milli
        devices.later_memory[device] += memory
        if now:
            devices.now_milli[device] += milli
            devices.now_memory[device] += memory
        if board.split:
            resize(device, board.later, False, board)
        resize(device, board.now, True, board)


@part
def resize(device: int, rooms: Rooms, now: bool, board: Board) -> None:
    """Put a device where it belongs after what is taken on it has changed."""
    devices, kind = board.devices, board.devices.kind[device]
    milli, memory = devices.later_milli[device], devices.later_memory[device]
    if now:
        milli = max(milli, devices.now_milli[device])
        memory = max(memory, devices.now_memory[device])
    remove(device, rooms)
    rooms.devices[device, MILLI] = devices.class_milli[kind] - milli
    rooms.devices[device, MEMORY] = devices.class_memory[kind] - memory
    insert(device, rooms, board.demand)


@part
def place(kind: int, kinds: Kinds, board: Board) -> int:
    """2 when placed to start now, 1 when placed once drains are over, 0 when there is no room."""
    if choose(kind, True, kinds, board.now, board):
        occupy(kind, True, kinds, board)
        return 2
    if board.split and choose(kind, False, kinds, board.later, board):
        occupy(kind, False, kinds, board)
        return 1
    return 0
