"""Pods that wait, by request and oldest first, and those that hold a lease, by node: kernels over columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from walras.market.engine.jit import NONE, Ints, kernel, part
from walras.sim.packing.online import Pods, Scores, best_node
from walras.sim.packing.rooms import move, suits
from walras.sim.packing.scene import WALRAS, Scene


class Waiting(NamedTuple):
    """By request how many wait and the first of them, by pod the next one, or NONE."""

    number: Ints
    first: Ints
    next: Ints


class Holders(NamedTuple):
    """The pods with one device or a share of one, by node: those of a node are from `start` to the next."""

    start: Ints
    pods: Ints


@kernel
def who_waits(last: int, shapes: int, pods: Pods) -> Waiting:
    """Of the pods before `last` those without a place."""
    waiting = Waiting(np.zeros(shapes, np.int64), np.full(shapes, NONE), np.full(pods.shape.size, NONE))
    for pod in range(last - 1, -1, -1):
        if pods.node[pod] == NONE:
            enqueue(pod, waiting, pods)
    return waiting


@part
def enqueue(pod: int, waiting: Waiting, pods: Pods) -> None:
    """Put a pod before all others that ask for the same."""
    shape = pods.shape[pod]
    waiting.next[pod], waiting.first[shape] = waiting.first[shape], pod
    waiting.number[shape] += 1


@part
def enter(shape: int, node: int, devices: int, waiting: Waiting, pods: Pods, scene: Scene) -> int:
    """Place the first that waits with this request; returns it."""
    pod = waiting.first[shape]
    waiting.first[shape] = waiting.next[pod]
    waiting.number[shape] -= 1
    pods.node[pod], pods.devices[pod] = node, devices
    move(node, devices, shape, 1, scene.board, scene.shapes)
    return int(pod)


@part
def leave(pod: int, waiting: Waiting, pods: Pods, scene: Scene) -> None:
    """End a pod's lease: it waits again."""
    move(pods.node[pod], pods.devices[pod], pods.shape[pod], -1, scene.board, scene.shapes)
    pods.node[pod], pods.devices[pod] = NONE, 0
    enqueue(pod, waiting, pods)


@kernel
def who_holds(last: int, pods: Pods, scene: Scene) -> Holders:
    """The leases of pods before `last` on single devices."""
    gpus, nodes = scene.shapes.gpus, scene.board.cpu.size
    start = np.zeros(nodes + 1, np.int64)
    for pod in range(last):
        if pods.node[pod] != NONE and gpus[pods.shape[pod]] == 1:
            start[pods.node[pod] + 1] += 1
    start = np.cumsum(start)
    held, at = np.empty(start[nodes], np.int64), start.copy()
    for pod in range(last):
        if pods.node[pod] != NONE and gpus[pods.shape[pod]] == 1:
            held[at[pods.node[pod]]] = pod
            at[pods.node[pod]] += 1
    return Holders(start, held)


@part
def lightest(milli: int, node: int, waiting: Waiting, scene: Scene) -> int:
    """Of the requests for so much of one device that wait and may run on the node the one with the least CPU,
    or NONE."""
    best, shapes = NONE, scene.shapes
    for shape in range(shapes.cpu.size):
        if waiting.number[shape] > 0 and shapes.gpus[shape] == 1 and shapes.milli[shape] == milli:
            lighter = best == NONE or shapes.cpu[shape] < shapes.cpu[best]
            if lighter and suits(shapes.models[shape], scene.cluster.model[node]):
                best = shape
    return int(best)


@kernel
def serve(order: Ints, waiting: Waiting, pods: Pods, scene: Scene, scores: Scores) -> None:
    """Place who waits where there is room, request by request in this order, by our own policy."""
    typical = scene.typical.pods.sum()
    for shape in order:
        while waiting.number[shape] > 0:
            node, _ = best_node(WALRAS, shape, typical, scene, scores)
            if node == NONE:
                break
            enter(shape, node, scores.devices[shape, node], waiting, pods, scene)
