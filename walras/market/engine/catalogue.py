"""What packages ask for, by kind: a kind is worked out once, however many bids are of it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from walras.core.errors import Invalid
from walras.devices.placement import Fill, Shape
from walras.market.engine.amounts import CLASSES_MAX, DEVICES_MAX, MEMORY_MAX, MILLI_MAX
from walras.market.engine.board import Kinds
from walras.market.engine.fragmentation import tabulate
from walras.market.engine.jit import LIMIT, Grid, Ints
from walras.market.engine.table import Table


class Catalogue:
    """Kinds of packages over classes of devices, and the shapes in demand.

    capacities: of a device of each class; counts: devices of each class; first: the place of each class's
    first device in the pool, which decides what shape a kind counts as where classes differ in memory.
    """

    def __init__(self, capacities: Sequence[Shape], counts: Sequence[int], first: Sequence[int]) -> None:
        if len(capacities) > CLASSES_MAX:
            raise Invalid(f"{len(capacities)} classes of devices; at most {CLASSES_MAX} are possible")
        for capacity in capacities:
            if not (0 <= capacity.milli <= MILLI_MAX and 0 <= capacity.memory_mib <= MEMORY_MAX):
                raise Invalid(f"a device of {capacity} is out of bounds")
        self.capacities, self._counts, self._first = tuple(capacities), tuple(counts), tuple(first)
        self._ids: dict[tuple[int, int, int, int, bool], int] = {}
        self.kinds = Table(
            "devices", "milli", "together", "shape", "possible", "numerator", "denominator", "live"
        )
        self._memory: Grid = np.full((64, max(1, len(capacities))), LIMIT, np.int64)
        self._shape_ids: dict[Shape, int] = {}
        self._shapes = Table("milli", "memory", "wanted")
        self._wanted = np.zeros(0, np.bool_)  # when fills were last worked out
        self._stale = True
        self._fills: dict[Shape, Fill] = {}

    @property
    def every_class(self) -> int:
        return (1 << len(self.capacities)) - 1

    def kind(
        self, devices: int, milli: int, memory_mib: int, classes: int | None = None, together: bool = False
    ) -> int:
        """The kind of a package: `classes` is the set of those it may go to (bit by class), None all of them.

        `memory_mib` 0 is the share's part of each device's memory. Raises Invalid out of bounds.
        """
        classes = self.every_class if classes is None else classes & self.every_class
        key = (devices, milli, memory_mib, classes, together)
        found = self._ids.get(key)
        return self._add(key) if found is None else found

    def _add(self, key: tuple[int, int, int, int, bool]) -> int:
        devices, milli, memory_mib, classes, together = key
        if min(devices, milli) <= 0 or memory_mib < 0:
            raise Invalid(f"{devices} devices with {milli} milli-GPU and {memory_mib} MiB are out of bounds")
        # What no device has is kept, as impossible, in numbers that are within bounds.
        devices, milli = min(devices, DEVICES_MAX + 1), min(milli, MILLI_MAX + 1)
        row = int(self.kinds.take(1)[0])
        if row >= len(self._memory):
            self._memory = np.concatenate((self._memory, np.full_like(self._memory, LIMIT)))
        needs = {}
        for number, capacity in enumerate(self.capacities):
            need = Shape(milli, memory_mib or capacity.memory_mib * milli // max(1, capacity.milli))
            if classes >> number & 1 and need.fits(capacity):
                needs[number] = need
                self._memory[row, number] = need.memory_mib
        possible = devices <= DEVICES_MAX and sum(self._counts[number] for number in needs) >= devices
        for name, value in (("devices", devices), ("milli", milli), ("together", int(together))):
            self.kinds[name][row] = value
        self.kinds["possible"][row] = possible
        self.kinds["denominator"][row] = 1
        self._stale = True
        if possible:
            self.kinds["shape"][row] = self.shape(needs[min(needs, key=lambda number: self._first[number])])
        self._ids[key] = row
        return row

    def shape(self, shape: Shape) -> int:
        """The number of a shape."""
        found = self._shape_ids.get(shape)
        if found is None:
            found = int(self._shapes.take(1)[0])
            self._shapes["milli"][found], self._shapes["memory"][found] = shape
            self._shape_ids[shape] = found
        return found

    def shape_of(self, milli: int, memory_mib: int) -> int:
        """The number of a shape by its parts."""
        return self.shape(Shape(milli, memory_mib))

    def want(self, shapes: Ints, change: int) -> None:
        """Count shapes in or out of the demand, each time it is named."""
        np.add.at(self._shapes["wanted"], shapes, change)
        wanted = self._shapes.column("wanted")
        self._stale |= wanted.size != self._wanted.size or bool(((wanted > 0) != self._wanted).any())

    def want_one(self, shape: int, change: int) -> None:
        """Count one shape in or out."""
        wanted = self._shapes["wanted"]
        wanted[shape] += change
        # Effective sizes depend on which shapes there are, not on how many of each.
        self._stale |= bool(wanted[shape] == max(0, change))

    def demand(self) -> Grid:
        """How well rooms suit the shapes in demand now."""
        milli, memory, wanted = (self._shapes.column(name) for name in ("milli", "memory", "wanted"))
        return tabulate(milli, memory, wanted, MILLI_MAX)

    def columns(self) -> Kinds:
        """The kinds as kernels read them; good until a kind is added."""
        kinds = self.kinds
        devices, milli, together, possible, live = (
            kinds.column(name) for name in ("devices", "milli", "together", "possible", "live")
        )
        return Kinds(devices, milli, self._memory[: kinds.size], together, possible, live)

    def rerate(self) -> Ints:
        """Work out effective sizes anew if other shapes are in demand than before; the kinds that changed."""
        if not self._stale:
            return np.empty(0, np.int64)
        self._stale = False
        wanted = self._shapes.column("wanted") > 0
        kinds = self.kinds
        unrated = np.flatnonzero((kinds.column("numerator") == 0) & (kinds.column("possible") != 0))
        changed = not np.array_equal(wanted, self._wanted)
        if changed:
            self._wanted = wanted
            shapes = [shape for shape, row in self._shape_ids.items() if wanted[row]]
            self._fills = {size: Fill(size, shapes) for size in set(self.capacities) if size.milli > 0}
        before = kinds.column("numerator").copy(), kinds.column("denominator").copy()
        for row in np.flatnonzero(kinds.column("possible")) if changed else unrated:
            kinds["numerator"][row], kinds["denominator"][row] = self._ratio(int(row))
        numerator, denominator = kinds.column("numerator"), kinds.column("denominator")
        # What had no ratio before is of no bid that was rated.
        return np.flatnonzero((before[0] != 0) & ((numerator != before[0]) | (denominator != before[1])))

    def _ratio(self, kind: int) -> tuple[int, int]:
        """Milli-GPU asked for over effective size, the best of the classes that it may go to."""
        milli = int(self.kinds["milli"][kind])
        needs = {
            (capacity, Shape(milli, int(memory)))
            for capacity, memory in zip(self.capacities, self._memory[kind], strict=True)
            if memory != LIMIT
        }
        return max(Fraction(*self._fills[size].ratio(need)) for size, need in needs).as_integer_ratio()

    def lease_densities(self, price_micros: Ints, milli: Ints, memory_mib: Ints, device_class: Ints) -> Ints:
        """The densities of leases by the share of one device that each has, on a device of that class."""
        shares = np.stack((device_class, milli, memory_mib), axis=1)
        distinct, inverse = np.unique(shares, axis=0, return_inverse=True)
        ratios = np.array([self._share_ratio(*row) for row in distinct.tolist()], np.int64).reshape(-1, 2)
        numerator, denominator = ratios[inverse.reshape(-1)].T
        found: Ints = price_micros * numerator // denominator
        return found

    def _share_ratio(self, device_class: int, milli: int, memory_mib: int) -> tuple[int, int]:
        size, shape = self.capacities[device_class], Shape(milli, memory_mib)
        if milli <= 0 or not shape.fits(size):
            return 0, 1
        return Fraction(*self._fills[size].ratio(shape)).as_integer_ratio()
