"""Scores by how much more of a node is of no use to others: FGD's, and ours."""

from __future__ import annotations

import math

from walras.market.engine.jit import Ints, part, step
from walras.sim.packing.fragments import fragments, starved
from walras.sim.packing.rooms import DEVICE, tightest
from walras.sim.packing.scene import FGD, UNFIT, WALRAS, Scene


@step
def useless(policy: int, node: int, cpu: int, memory: int, left: Ints, pods: int, scene: Scene) -> int:
    """What is free on a node but of no use, summed over the typical pods; `pods` is how many these are.

    Ours adds what the node's CPU and memory will not do for, which is of use to none of them.
    """
    gpus = scene.cluster.gpus[node]
    total = fragments(cpu, scene.cluster.model[node], left, gpus, scene.typical)
    if policy == WALRAS:
        free = 0
        for device in range(gpus):
            free += left[device]
        total += pods * starved(cpu, memory, free, scene.rates)
    return int(total)


@part
def growth(policy: int, node: int, shape: int, devices: int, pods: int, scene: Scene) -> int:
    """How much more is of no use when these devices are taken, summed over the typical pods."""
    board = scene.board
    cpu, memory, version = board.cpu[node], board.memory[node], board.version[node]
    if scene.fragments[node, 1] != version:
        scene.fragments[node, 0] = useless(policy, node, cpu, memory, board.left[node], pods, scene)
        scene.fragments[node, 1] = version
    for device in range(scene.cluster.gpus[node]):
        scene.room[device] = board.left[node, device]
        if (devices >> device) & 1:
            scene.room[device] -= scene.shapes.milli[shape]
    cpu, memory = cpu - scene.shapes.cpu[shape], memory - scene.shapes.memory[shape]
    after = useless(policy, node, cpu, memory, scene.room, pods, scene)
    return int(after - scene.fragments[node, 0])


@part
def grown(policy: int, node: int, shape: int, devices: int, pods: int, scene: Scene) -> int:
    """The score of FGD or ours for these devices.

    FGD rounds the sigmoid of the growth to whole points, which is about 40 milli a point. Ours is the growth
    itself, and of devices as good as each other the fuller one, as in `walras.devices.placement`.
    """
    more = growth(policy, node, shape, devices, pods, scene)
    if policy == FGD:
        return int(1 / (1 + math.exp(more / pods / 1000)) * 100)
    rest = 0
    if scene.shapes.milli[shape] < DEVICE:
        for device in range(scene.cluster.gpus[node]):
            if (devices >> device) & 1:
                rest = scene.board.left[node, device] - scene.shapes.milli[shape]
    return int(-more * DEVICE - rest)


@part
def best_grown(policy: int, node: int, shape: int, pods: int, scene: Scene) -> tuple[int, int]:
    """The best score of a node for a request, and the devices that have it."""
    left, gpus = scene.board.left[node], scene.cluster.gpus[node]
    wanted, milli = scene.shapes.gpus[shape], scene.shapes.milli[shape]
    if wanted != 1 or milli == DEVICE:
        devices = tightest(left, gpus, wanted, milli)
        return grown(policy, node, shape, devices, pods, scene), devices
    best, chosen = UNFIT, 0
    for device in range(gpus):
        twin = left[device] < milli
        for other in range(device):
            twin |= left[other] == left[device]
        if not twin:
            score = grown(policy, node, shape, 1 << device, pods, scene)
            if score > best:
                best, chosen = score, 1 << device
    return best, chosen
