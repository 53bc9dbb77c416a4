"""In which order a clearing places all pods anew: by size, or by size over effective size.

`walras.devices.placement.Fill` tells what a share strands from the sizes in demand alone. On this trace it
finds that none strands anything, since there are a few small pods for every rest; but these are too few. So
here a device is filled at most as often as there are pods for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from walras.market.engine.jit import Ints
from walras.sim.packing.cluster import Shapes
from walras.sim.packing.rooms import DEVICE


class Filled(NamedTuple):
    """So many pods of a size are on devices that are full to `milli`."""

    pods: int
    milli: int


def fillings(counts: Mapping[int, int]) -> dict[int, list[Filled]]:
    """For each size how full the devices get that hold it, the fullest first, with `counts` pods of each.

    Devices are filled one after the other, each as full as the pods that are left allow, with the largest of
    these first.
    """
    left = {size: count for size, count in sorted(counts.items(), reverse=True) if count > 0 and size > 0}
    found: dict[int, list[Filled]] = {size: [] for size in left}
    full = DEVICE
    while any(left.values()):
        packed = _fill(full, left)
        if packed is None:
            full -= 1
            continue
        times = min(left[size] // packed.count(size) for size in set(packed))
        for size in set(packed):
            left[size] -= times * packed.count(size)
            found[size].append(Filled(times * packed.count(size), full))
    return found


def _fill(full: int, left: Mapping[int, int]) -> tuple[int, ...] | None:
    """Sizes that add up to `full`, none more often than it is left, the largest first; None without any."""
    sizes = [size for size, count in left.items() if count > 0]
    hopeless: set[tuple[int, int]] = set()

    def rest(milli: int, at: int) -> tuple[int, ...] | None:
        if milli == 0:
            return ()
        if at == len(sizes) or (milli, at) in hopeless:
            return None
        size = sizes[at]
        for times in range(min(left[size], milli // size), -1, -1):
            more = rest(milli - times * size, at + 1)
            if more is not None:
                return (size,) * times + more
        hopeless.add((milli, at))
        return None

    return rest(full, 0)


def by_size(shape: Ints, shapes: Shapes) -> Ints:
    """The pods with GPUs, the largest first, then the one that came first. As all offer the same for a GPU,
    this is the order of what they pay."""
    sizes = (shapes.gpus * shapes.milli)[shape]
    return _ordered(np.flatnonzero(sizes), -sizes)


def by_effective_size(shape: Ints, leased: Ints, shapes: Shapes, cpu_milli: int) -> Ints:
    """The pods with GPUs by size over effective size, then as `by_size`; of one size first those under lease.

    The effective size of a share is its part of the devices that it and those beside it can fill, or its CPU
    where that is more: a device comes with `cpu_milli` of it.
    """
    sizes, full = (shapes.gpus * shapes.milli)[shape], np.full(shape.size, DEVICE)
    single = np.flatnonzero(shapes.gpus[shape] == 1)
    counted = zip(*np.unique(sizes[single], return_counts=True), strict=True)
    for size, parts in fillings({int(size): int(count) for size, count in counted}).items():
        pods = single[sizes[single] == size]
        pods = pods[np.argsort(leased[pods] == 0, kind="stable")]
        full[pods] = np.repeat([part.milli for part in parts], [part.pods for part in parts])
    effective = np.maximum(sizes * DEVICE // full, shapes.cpu[shape] * DEVICE // max(1, cpu_milli))
    return _ordered(np.flatnonzero(sizes), -sizes, -(sizes * DEVICE // np.maximum(1, effective)))


def _ordered(pods: Ints, *keys: Ints) -> Ints:
    """Pods by keys, the last one first, and by number."""
    return pods[np.lexsort([key[pods] for key in keys])]
