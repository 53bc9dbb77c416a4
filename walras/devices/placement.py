"""Where to put a share: least growth of fragmentation, best fit on ties; and how much a share strands.

Fragmentation is that of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): what is free on a device
but of no use to the shapes in demand. A shape is (milli-GPU, memory MiB) on one device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Shape(NamedTuple):
    """A share of one device, or what is free on it."""

    milli: int
    memory_mib: int

    def fits(self, room: Shape) -> bool:
        return self.milli <= room.milli and self.memory_mib <= room.memory_mib

    def __add__(self, other: object) -> Shape:
        assert isinstance(other, Shape)
        return Shape(self.milli + other.milli, self.memory_mib + other.memory_mib)

    def __sub__(self, other: object) -> Shape:
        assert isinstance(other, Shape)
        return Shape(self.milli - other.milli, self.memory_mib - other.memory_mib)


EMPTY = Shape(0, 0)
Demand = Mapping[Shape, int]  # how many of each shape are wanted or in use


def fragmentation(room: Shape, demand: Demand) -> int:
    """Free milli-GPU that the shapes in demand cannot use, summed over them (F of Weng et al.)."""
    return sum(room.milli * count for shape, count in demand.items() if not shape.fits(room))


def place(
    needs: Mapping[str, Shape], rooms: Mapping[str, Shape], devices: int, demand: Demand
) -> tuple[str, ...] | None:
    """`devices` distinct devices, each with room for what is needed there, or None when there are not enough.

    `needs` has the eligible devices. Chosen are those whose fragmentation grows least, then those left with
    the least milli-GPU and memory, then by name.
    """
    scored = []
    known: dict[tuple[Shape, Shape], tuple[int, int, int]] = {}  # many devices are alike
    for device, need in needs.items():
        room = rooms[device]
        if need.fits(room):
            score = known.get((room, need))
            if score is None:
                left = room - need
                growth = fragmentation(left, demand) - fragmentation(room, demand)
                score = known[room, need] = (growth, left.milli, left.memory_mib)
            scored.append((score, device))
    if len(scored) < devices:
        return None
    if devices == 1:
        return (min(scored)[1],)
    return tuple(device for _, device in sorted(scored)[:devices])


def dominant_milli(shape: Shape, capacity: Shape) -> int:
    """What a shape takes up of a device by compute or memory, whichever is more, in milli of it."""
    assert capacity.milli > 0
    if capacity.memory_mib == 0:
        return shape.milli
    return max(shape.milli, -(-shape.memory_mib * capacity.milli // capacity.memory_mib))


class Fill:
    """How full a device of one capacity gets with the sizes in demand, to price what a share strands.

    A share of 810 milli strands 190 where nobody wants 190 or less: a device that holds it gets 810 of 1000
    full, so its effective size is 810 x 1000 / 810. Where somebody wants 190, it strands nothing.
    """

    def __init__(self, capacity: Shape, demand: Iterable[Shape]) -> None:
        self.capacity = capacity
        sizes = {dominant_milli(shape, capacity) for shape in demand if shape.fits(capacity)}
        reachable, mask = 1, (1 << (capacity.milli + 1)) - 1
        for size in sorted(sizes):
            step = size
            while 0 < step <= capacity.milli:
                reachable |= (reachable << step) & mask
                step *= 2
        self._reachable = reachable

    def full(self, shape: Shape) -> int:
        """The most milli-GPU in use on a device that holds the shape and others in demand."""
        size = dominant_milli(shape, self.capacity)
        rest = self.capacity.milli - size
        assert rest >= 0, "the shape does not fit the device"
        best = size + (self._reachable & ((1 << (rest + 1)) - 1)).bit_length() - 1
        # The shape itself may be wanted again, whether or not the demand lists it.
        return max(best, self.capacity.milli // size * size) if size else best

    def ratio(self, shape: Shape) -> tuple[int, int]:
        """Milli-GPU asked for over effective size, as a fraction of two integers.

        1 for a share that strands nothing and needs no more memory than compute.
        """
        size = dominant_milli(shape, self.capacity)
        assert size > 0, "a share of nothing has no size"
        return shape.milli * self.full(shape), size * self.capacity.milli


def cheapest_cover(needed: Shape, parts: Sequence[tuple[Shape, int]]) -> tuple[int, ...] | None:
    """Indices of the parts of least total cost that together are at least `needed`; None if all are less.

    Exact by branch and bound; above EXACT_PARTS parts the cheapest per milli first, then those not needed
    left out.
    """
    if len(parts) > EXACT_PARTS:
        return _greedy_cover(needed, parts)
    order = sorted(range(len(parts)), key=lambda i: (parts[i][1], i))
    rest = [EMPTY] * (len(order) + 1)
    for at in range(len(order) - 1, -1, -1):
        rest[at] = rest[at + 1] + parts[order[at]][0]
    best: tuple[int, int, tuple[int, ...]] | None = None
    stack: list[tuple[int, Shape, int, tuple[int, ...]]] = [(0, EMPTY, 0, ())]
    while stack:
        at, covered, cost, chosen = stack.pop()
        if best and (cost, len(chosen)) >= best[:2]:
            continue
        if needed.fits(covered):
            best = (cost, len(chosen), chosen)
            continue
        if at == len(order) or not needed.fits(covered + rest[at]):
            continue
        shape, price = parts[order[at]]
        stack.append((at + 1, covered, cost, chosen))
        stack.append((at + 1, covered + shape, cost + price, (*chosen, order[at])))
    return tuple(sorted(best[2])) if best else None


EXACT_PARTS = 12


def _greedy_cover(needed: Shape, parts: Sequence[tuple[Shape, int]]) -> tuple[int, ...] | None:
    def density(i: int) -> tuple[int, int]:
        shape, cost = parts[i]
        return (cost * 1_000_000 // max(1, shape.milli), i)

    chosen: list[int] = []
    covered = EMPTY
    for i in sorted(range(len(parts)), key=density):
        if needed.fits(covered):
            break
        chosen.append(i)
        covered += parts[i][0]
    if not needed.fits(covered):
        return None
    for i in sorted(chosen, key=lambda i: -parts[i][1]):
        if needed.fits(covered - parts[i][0]):
            chosen.remove(i)
            covered -= parts[i][0]
    return tuple(sorted(chosen))
