"""The pods that arrive: the trace shuffled and grown or cut to a load, and the typical ones among them.

As in the artifact of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), which is
hkust-adsl/kubernetes-scheduler-simulator on GitHub: its workload tuning and its typical pods.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.jit import Ints
from walras.sim.packing.cluster import Shapes
from walras.sim.packing.rooms import DEVICE

TYPICAL_PERCENT: Final = 95  # of all pods are like one of the typical ones


class Typical(NamedTuple):
    """Columns by distinct request, memory aside: the most frequent ones, and how many pods have each."""

    cpu: Ints
    gpus: Ints
    milli: Ints
    models: Ints
    pods: Ints


def arrivals(of_pod: Ints, shapes: Shapes, target_milli: int, chance: np.random.Generator) -> Ints:
    """Pods, by their number in the trace, in the order of their arrival, until `target_milli` are asked for.

    All pods of the trace in random order, then random ones of them again, until the next would pass the
    target by what it asks of one device; or, where the trace asks for more, without as many random ones.
    """
    asks, each = (shapes.gpus * shapes.milli)[of_pod], (shapes.milli * (shapes.gpus > 0))[of_pod]
    order = chance.permutation(of_pod.size)
    total = int(asks.sum())
    if total > target_milli:
        kept = order.tolist()
        while total > target_milli:
            total -= int(asks[kept.pop(int(chance.integers(len(kept))))])
        return np.array(kept, np.int64)
    more: list[int] = []
    while asks.any():
        pod = int(chance.integers(of_pod.size))
        if total + each[pod] > target_milli:
            break
        total += int(asks[pod])
        more.append(pod)
    return np.concatenate((order, np.array(more, np.int64)))


def typical(of_pod: Ints, shapes: Shapes) -> Typical:
    """The most frequent requests, until they stand for 95% of the pods; equal ones the larger first."""
    counts: dict[tuple[int, int, int, int], int] = {}
    for shape, count in zip(*np.unique(of_pod, return_counts=True), strict=True):
        columns = (shapes.cpu, shapes.milli, shapes.gpus, shapes.models)
        cpu, milli, gpus, models = (int(column[shape]) for column in columns)
        counts[cpu, milli, gpus, models] = counts.get((cpu, milli, gpus, models), 0) + int(count)
    rows, covered = [], 0
    for (cpu, milli, gpus, models), count in sorted(
        counts.items(), key=lambda item: (item[1], item[0]), reverse=True
    ):
        if covered * 100 >= TYPICAL_PERCENT * of_pod.size:
            break
        rows.append((cpu, gpus, milli, models, count))
        covered += count
    return Typical(*np.ascontiguousarray(np.array(rows, np.int64).reshape(len(rows), 5).T))


def rates(of_pod: Ints, shapes: Shapes) -> Ints:
    """The CPU and the memory that pods with GPUs ask for with each device, on average; at least 1."""
    gpus = (shapes.gpus * shapes.milli)[of_pod]
    total = max(1, int(gpus.sum()))
    asked = (int(column[of_pod][gpus > 0].sum()) for column in (shapes.cpu, shapes.memory))
    return np.array([max(1, each * DEVICE // total) for each in asked], np.int64)
