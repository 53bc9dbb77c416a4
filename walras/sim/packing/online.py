"""Pods as they arrive: each placed at once on the node that its policy scores highest, or unserved."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from walras.market.engine.jit import NONE, Grid, Ints, kernel, part
from walras.sim.packing.cluster import Cluster, Shapes, empty_board
from walras.sim.packing.demand import Typical
from walras.sim.packing.rooms import fits, move
from walras.sim.packing.scene import RANDOM, UNFIT, Scene
from walras.sim.packing.scores import rate

Floats = np.ndarray[Any, np.dtype[np.float64]]


class Scores(NamedTuple):
    """By request and node what was scored last, at which version of the node, and for which devices."""

    score: Grid
    version: Grid
    devices: Grid


class Pods(NamedTuple):
    """Columns by pod in order of arrival: its request, its node or NONE, and bits of its devices there."""

    shape: Ints
    node: Ints
    devices: Ints


def open_scene(cluster: Cluster, shapes: Shapes, typical: Typical, rates: Ints) -> tuple[Scene, Scores]:
    """An empty cluster, with nothing scored yet."""
    board, nodes = empty_board(cluster), cluster.gpus.size
    room, known = np.zeros(board.left.shape[1], np.int64), np.zeros((nodes, 2), np.int64)
    scores = [np.zeros((shapes.cpu.size, nodes), np.int64) for _ in range(3)]
    return Scene(cluster, shapes, typical, rates, board, room, known), Scores(*scores)


def no_places(shape: Ints) -> Pods:
    """Pods with these requests, none of them placed."""
    return Pods(shape, np.full(shape.size, NONE, np.int64), np.zeros(shape.size, np.int64))


@part
def best_node(policy: int, shape: int, pods: int, scene: Scene, scores: Scores) -> tuple[int, int]:
    """The node with the highest score, of equals the one of the lowest rank, or NONE; and how many fit."""
    best, fitting, rank = NONE, 0, scene.cluster.rank
    for node in range(rank.size):
        if scores.version[shape, node] != scene.board.version[node]:
            scores.version[shape, node] = scene.board.version[node]
            if fits(node, shape, scene.board, scene.cluster, scene.shapes):
                rated = rate(policy, node, shape, pods, scene)
                scores.score[shape, node], scores.devices[shape, node] = rated
            else:
                scores.score[shape, node] = UNFIT
        score = scores.score[shape, node]
        if score != UNFIT:
            fitting += 1
            more = UNFIT if best == NONE else scores.score[shape, best]
            if score > more or (score == more and rank[node] < rank[best]):
                best = node
    return best, fitting


@part
def random_place(
    shape: int, nth: float, which: float, fitting: int, scene: Scene, scores: Scores
) -> tuple[int, int]:
    """One of the nodes that fit, and for a share one of its devices that do, by two numbers below 1."""
    skip, node = int(nth * fitting), 0
    while skip > 0 or scores.score[shape, node] == UNFIT:
        skip -= scores.score[shape, node] != UNFIT
        node += 1
    milli, devices = scene.shapes.milli[shape], scores.devices[shape, node]
    if scene.shapes.gpus[shape] != 1 or milli == 1000:
        return node, devices
    room = 0
    for device in range(scene.cluster.gpus[node]):
        room += scene.board.left[node, device] >= milli
    skip, chosen = int(which * room), 0
    for device in range(scene.cluster.gpus[node]):
        if scene.board.left[node, device] >= milli:
            if skip == 0:
                chosen = device
            skip -= 1
    return node, int(1 << chosen)


@kernel
def play(
    policy: int,
    first: int,
    last: int,
    pods: Pods,
    draws: Floats,
    scene: Scene,
    scores: Scores,
    served: Ints,
) -> None:
    """Place the pods from `first` to before `last`; write where, and the milli-GPU in use after each.

    draws: two random numbers below 1 for each pod, for the policy that needs them.
    """
    typical, used = scene.typical.pods.sum(), served[first - 1] if first else 0
    for pod in range(first, last):
        shape = pods.shape[pod]
        node, fitting = best_node(policy, shape, typical, scene, scores)
        if node != NONE:
            devices = scores.devices[shape, node]
            if policy == RANDOM:
                node, devices = random_place(shape, draws[pod, 0], draws[pod, 1], fitting, scene, scores)
            move(node, devices, shape, 1, scene.board, scene.shapes)
            pods.node[pod], pods.devices[pod] = node, devices
            used += scene.shapes.gpus[shape] * scene.shapes.milli[shape]
        served[pod] = used
