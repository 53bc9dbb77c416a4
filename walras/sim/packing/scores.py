"""How policies score a node for a request: the higher the better.

Six are those of Weng et al. (USENIX ATC 2023). They score in whole points from 0 to 100, as plugins of the
Kubernetes scheduler do, so that many nodes are equal; which of these wins is settled by their rank. The
constants are those of the paper's artifact.
"""

from __future__ import annotations

from typing import Final

from walras.market.engine.jit import part
from walras.sim.packing.growth import best_grown
from walras.sim.packing.rooms import DEVICE, tightest
from walras.sim.packing.scene import BEST_FIT, CLUSTERING, DOT_PRODUCT, FGD, PACKING, Scene, free_milli

CPU_MAX: Final = 128_000  # of the largest node, by which shares are measured
GPU_MAX: Final = 8_000


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
