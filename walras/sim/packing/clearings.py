"""One run of the study: arrivals under a policy, and clearings among leases where the policy has them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.jit import NONE, Ints
from walras.market.types import Rules
from walras.sim.packing import scene as policies
from walras.sim.packing.cluster import Cluster, Shapes
from walras.sim.packing.demand import Typical
from walras.sim.packing.exchange import exchange
from walras.sim.packing.online import Floats, Pods, no_places, open_scene, play
from walras.sim.packing.ordering import by_effective_size, by_size
from walras.sim.packing.rooms import move
from walras.sim.packing.scene import Scene
from walras.sim.study import Progress

KEPT: Final = 100 + Rules().epsilon_percent  # what a milli-GPU under lease counts, where a new one counts 100
CLEARING_MILLI: Final = 50  # of each device of the cluster: a clearing when so much more has arrived

ONLINE: Final = {
    "walras": policies.WALRAS,
    "fgd": policies.FGD,
    "best-fit": policies.BEST_FIT,
    "packing": policies.PACKING,
    "clustering": policies.CLUSTERING,
    "dot-product": policies.DOT_PRODUCT,
    "random": policies.RANDOM,
}
LEASED: Final = ("walras-leased", "anew-by-size", "anew-by-effective-size")


class Outcome(NamedTuple):
    """Where the pods are at the end, milli-GPU asked for and in use after each arrival, and what clearings
    did: leases that they ended, and milli-GPU of those that they moved."""

    pods: Pods
    arrived: Ints
    served: Ints
    evictions: int
    migrated_milli: int


def run(
    policy: str,
    shape: Ints,
    cluster: Cluster,
    shapes: Shapes,
    typical: Typical,
    rates: Ints,
    draws: Floats,
    progress: Progress,
) -> Outcome:
    """Play the arrivals of pods with these requests to the end."""
    scene, scores = open_scene(cluster, shapes, typical, rates)
    pods, sizes = no_places(shape), shapes.gpus * shapes.milli
    arrived, served = np.cumsum(sizes[shape]), np.zeros(shape.size, np.int64)
    evictions = migrated = first = 0
    step = CLEARING_MILLI * int(cluster.gpus.sum())
    for last in _segments(arrived, step):
        play(ONLINE.get(policy, policies.WALRAS), first, last, pods, draws, scene, scores, served)
        if policy in LEASED and np.any((pods.node[:last] == NONE) & (sizes[shape[:last]] > 0)):
            before = Pods(shape, pods.node.copy(), pods.devices.copy())
            if policy == "walras-leased":
                of_one = np.unique(shapes.milli[shapes.gpus == 1])[::-1].copy()
                exchange(last, KEPT, of_one, np.argsort(-sizes, kind="stable"), pods, scene, scores)
            else:
                place_anew(policy, last, pods, scene)
            served[last - 1] = sizes[shape[pods.node != NONE]].sum()
            held = before.node != NONE
            moved = (pods.node != before.node) | (pods.devices != before.devices)
            evictions += int(np.count_nonzero(held & (pods.node == NONE)))
            migrated += int(sizes[shape[held & moved & (pods.node != NONE)]].sum())
        first = last
        progress(last / shape.size)
    return Outcome(pods, arrived, served, evictions, migrated)


def _segments(arrived: Ints, step: int) -> list[int]:
    """After how many pods a clearing comes: whenever `step` more has arrived, and at the end."""
    total = int(arrived[-1]) if arrived.size else 0
    ends = np.searchsorted(arrived, np.arange(step, total, step), "left") + 1
    return sorted({*(int(end) for end in ends), arrived.size} - {0})


def place_anew(policy: str, last: int, pods: Pods, scene: Scene) -> None:
    """Take the GPU pods before `last` off the cluster and place them again in the policy's order.

    Pods without GPUs stay where they are, and those that wait come last.
    """
    shapes, shape = scene.shapes, pods.shape[:last]
    leased = (pods.node[:last] != NONE).astype(np.int64)
    plain = shapes.gpus[shape] == 0
    order = by_size(shape, shapes)
    if policy == "anew-by-effective-size":
        cpu = scene.cluster.cpu.sum() - shapes.cpu[shape[plain & (leased == 1)]].sum()
        order = by_effective_size(shape, leased, shapes, int(cpu // scene.cluster.gpus.sum()))
    for pod in np.flatnonzero((leased == 1) & ~plain):
        move(pods.node[pod], pods.devices[pod], shape[pod], -1, scene.board, shapes)
    order = np.concatenate((order, np.flatnonzero(plain & (leased == 0))))
    again, count = no_places(shape[order]), np.zeros(order.size, np.int64)
    fresh, scores = open_scene(scene.cluster, shapes, scene.typical, scene.rates)
    scene = fresh._replace(board=scene.board)
    play(policies.WALRAS, 0, order.size, again, np.zeros((order.size, 2)), scene, scores, count)
    pods.node[order], pods.devices[order] = again.node, again.devices
