"""How policies score a node for a request: the higher the better. Six are those of Weng et al. (USENIX ATC 2023).

They score in whole points from 0 to 100, as plugins of the Kubernetes scheduler do, so that many nodes are
equal; which of these wins is settled by their rank. The constants are those of the paper's artifact.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from walras.market.engine.jit import LIMIT, Grid, Ints, part
from walras.sim.packing.cluster import Board, Cluster, Shapes
from walras.sim.packing.demand import Typical
from walras.sim.packing.fragments import fragments, starved
from walras.sim.packing.rooms import DEVICE, tightest

RANDOM, DOT_PRODUCT, CLUSTERING, PACKING, BEST_FIT, FGD, WALRAS = range(7)

CPU_MAX: Final = 128_000  # of the largest node, by which shares are measured
GPU_MAX: Final = 8_000
UNFIT: Final = -LIMIT


class Scene(NamedTuple):
    """All that a score looks at. `rates` is the CPU and memory that come with a device in demand, `room` is for
    what would be left of a node's devices."""

    cluster: Cluster
    shapes: Shapes
    typical: Typical
    rates: Ints
    board: Board
    room: Ints
    fragments: Grid  # by node: how fragmented it is, and at which version


@part
def free_milli(node: int, scene: Scene) -> int:
    """What is free on all devices of a node."""
    total = 0
    for device in range(scene.cluster.gpus[node]):
        total += scene.board.left[node, device]
    return int(total)


@part
def dot_product(node: int, shape: int, scene: Scene) -> int:
    """Tetris (Grandl et al., SIGCOMM 2014): where least is left along what is asked for."""
    asked = scene.shapes.gpus[shape] * scene.shapes.milli[shape]
    cpu = (scene.board.cpu[node] / CPU_MAX) * (scene.shapes.cpu[shape] / CPU_MAX)
    gpu = (free_milli(node, scene) / GPU_MAX) * (asked / GPU_MAX)
    return int(100 * (1 - (cpu + gpu) / 2))


@part
def best_fit(node: int, shape: int, scene: Scene) -> int:
    """Where the least CPU and GPU are left, half and half."""
    asked = scene.shapes.gpus[shape] * scene.shapes.milli[shape]
    cpu = (scene.board.cpu[node] - scene.shapes.cpu[shape]) / CPU_MAX * 0.5
    gpu = (free_milli(node, scene) - asked) / GPU_MAX * 0.5
    return int((1 - (cpu + gpu)) * 100)


@part
def clustering(node: int, shape: int, scene: Scene) -> int:
    """Beside pods of the same number of GPUs (Gandiva, OSDI 2018), then where less is free."""
    wanted = scene.shapes.gpus[shape]
    if wanted == 0:
        return 0
    same = scene.board.kinds[node, 0 if scene.shapes.milli[shape] < DEVICE else wanted]
    kinds = 0
    for kind in range(scene.board.kinds.shape[1]):
        kinds += scene.board.kinds[node, kind] > 0
    score = 25 * (GPU_MAX - free_milli(node, scene)) // GPU_MAX
    if same > 0:
        score += 75 if kinds == 1 else 50
    elif kinds == 0:
        score += 25
    return int(score)


@part
def packing(node: int, shape: int, devices: int, scene: Scene) -> int:
    """On devices in use, then free ones of nodes in use, then free nodes (MLaaS, NSDI 2022)."""
    if scene.shapes.gpus[shape] == 0:
        return 0
    gpus, free, taken, rest = scene.cluster.gpus[node], 0, 0, 0
    for device in range(gpus):
        left = scene.board.left[node, device]
        free += left == DEVICE
        if (devices >> device) & 1:
            taken += left == DEVICE
            rest += left * 100 // DEVICE
    if free == gpus:
        return int(max(33 - free, free))
    if taken > 0:
        return int(max(50 - taken, 33))
    return int(max(100 - rest // 10, 50))


@part
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


@part
def rate(policy: int, node: int, shape: int, pods: int, scene: Scene) -> tuple[int, int]:
    """The score of a node that the request fits, and bits of the devices that it would take."""
    if policy >= FGD:
        return best_grown(policy, node, shape, pods, scene)
    left, gpus = scene.board.left[node], scene.cluster.gpus[node]
    devices = tightest(left, gpus, scene.shapes.gpus[shape], scene.shapes.milli[shape])
    score = 0
    if policy == DOT_PRODUCT:
        score = dot_product(node, shape, scene)
    elif policy == BEST_FIT:
        score = best_fit(node, shape, scene)
    elif policy == CLUSTERING:
        score = clustering(node, shape, scene)
    elif policy == PACKING:
        score = packing(node, shape, devices, scene)
    return score, devices
