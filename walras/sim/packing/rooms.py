"""Whether a request fits a node, on which of its devices, and what that leaves: kernels over a board."""

from __future__ import annotations

from typing import Final

from walras.market.engine.jit import NONE, Ints, part
from walras.sim.packing.cluster import Board, Cluster, Shapes

DEVICE: Final = 1000  # milli


@part
def suits(models: int, model: int) -> bool:
    """Whether a device of the model will do for who asks for these."""
    return models == 0 or (models >> model) & 1 == 1


@part
def fits(node: int, shape: int, board: Board, cluster: Cluster, shapes: Shapes) -> bool:
    """Whether the node has room for the request now."""
    if board.cpu[node] < shapes.cpu[shape] or board.memory[node] < shapes.memory[shape]:
        return False
    wanted = shapes.gpus[shape]
    if wanted == 0:
        return True
    if not suits(shapes.models[shape], cluster.model[node]):
        return False
    for device in range(cluster.gpus[node]):
        wanted -= board.left[node, device] >= shapes.milli[shape]
    return bool(wanted <= 0)


@part
def tightest(left: Ints, gpus: int, wanted: int, milli: int) -> int:
    """Bits of the devices that the published policies take: for a share the one with least left that has
    room, for whole devices the first free ones."""
    if wanted == 0:
        return 0
    if wanted == 1 and milli < DEVICE:
        best = NONE
        for device in range(gpus):
            if left[device] >= milli and (best == NONE or left[device] < left[best]):
                best = device
        return int(1 << best)
    devices = 0
    for device in range(gpus):
        if wanted > 0 and left[device] >= milli:
            devices |= 1 << device
            wanted -= 1
    return devices


@part
def move(node: int, devices: int, shape: int, sign: int, board: Board, shapes: Shapes) -> None:
    """Put a pod on these devices of a node (1) or take it away (-1)."""
    board.cpu[node] -= sign * shapes.cpu[shape]
    board.memory[node] -= sign * shapes.memory[shape]
    for device in range(board.left.shape[1]):
        if (devices >> device) & 1:
            board.left[node, device] -= sign * shapes.milli[shape]
    wanted = shapes.gpus[shape]
    if wanted > 0:
        board.kinds[node, 0 if shapes.milli[shape] < DEVICE else wanted] += sign
    board.version[node] += 1
