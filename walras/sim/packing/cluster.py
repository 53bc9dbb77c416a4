"""Nodes and what pods ask for, as columns of integers, and what is left of the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from walras.core.errors import Invalid
from walras.market.engine.jit import Grid, Ints
from walras.sim.traces.openb import DEVICE_MILLI, Node, Pod

GPUS_MAX: Final = 32  # of a node: its devices are bits of an integer
MODELS_MAX: Final = 62


class Cluster(NamedTuple):
    """Columns by node: what it has. `model` is the model's number, `rank` decides between equal nodes."""

    cpu: Ints
    memory: Ints
    gpus: Ints
    model: Ints
    rank: Ints


class Shapes(NamedTuple):
    """Columns by distinct request. `models` has a bit for each model that will do, 0 where any will."""

    cpu: Ints
    memory: Ints
    gpus: Ints
    milli: Ints  # of each device
    models: Ints


class Board(NamedTuple):
    """What is left: of a node's CPU and memory, and by node and device milli-GPU; and who is there.

    `kinds` counts by node the shares (column 0) and the pods of so many GPUs. `version` grows with every
    change of a node.
    """

    cpu: Ints
    memory: Ints
    left: Grid
    kinds: Grid
    version: Ints


def columns(nodes: Sequence[Node], pods: Sequence[Pod]) -> tuple[Cluster, Shapes, Ints]:
    """The cluster, the distinct requests, and which each pod has. Raises Invalid beyond what bits hold."""
    if not any(node.gpus for node in nodes):
        raise Invalid("the nodes have no GPUs; give a list of nodes that has some")
    if max(node.gpus for node in nodes) > GPUS_MAX:
        raise Invalid(f"a node has more than {GPUS_MAX} GPUs; more are not simulated")
    models: dict[str, int] = {}
    for name in [*(node.model for node in nodes), *(name for pod in pods for name in pod.models)]:
        models.setdefault(name, len(models))
    if len(models) > MODELS_MAX:
        raise Invalid(f"more than {MODELS_MAX} GPU models; leave some out")
    cluster = Cluster(
        np.array([node.cpu_milli for node in nodes]),
        np.array([node.memory_mib for node in nodes]),
        np.array([node.gpus for node in nodes]),
        np.array([models[node.model] for node in nodes]),
        np.arange(len(nodes)),
    )
    rows: dict[tuple[int, ...], int] = {}
    of_pod = []
    for pod in pods:
        wanted = sum(1 << models[name] for name in set(pod.models))
        row = (pod.cpu_milli, pod.memory_mib, pod.gpus, pod.gpu_milli, wanted)
        of_pod.append(rows.setdefault(row, len(rows)))
    table = np.array(list(rows), np.int64).reshape(len(rows), 5)
    return cluster, Shapes(*np.ascontiguousarray(table.T)), np.array(of_pod, np.int64)


def empty_board(cluster: Cluster) -> Board:
    """The board of a cluster on which nothing runs."""
    nodes, widest = cluster.gpus.size, int(cluster.gpus.max())
    left = np.where(np.arange(widest) < cluster.gpus[:, None], DEVICE_MILLI, 0)
    kinds = np.zeros((nodes, widest + 1), np.int64)
    return Board(cluster.cpu.copy(), cluster.memory.copy(), left, kinds, np.ones(nodes, np.int64))


def capacity_milli(cluster: Cluster) -> int:
    """Milli-GPU of all devices."""
    return int(cluster.gpus.sum()) * DEVICE_MILLI
