"""What a policy looks at when it scores a node, and the policies by number."""

from __future__ import annotations

from typing import Final, NamedTuple

from walras.market.engine.jit import LIMIT, Grid, Ints, part
from walras.sim.packing.cluster import Board, Cluster, Shapes
from walras.sim.packing.demand import Typical

RANDOM, DOT_PRODUCT, CLUSTERING, PACKING, BEST_FIT, FGD, WALRAS = range(7)
UNFIT: Final = -LIMIT  # the score of a node without room


class Scene(NamedTuple):
    """All that a score looks at.

    `rates` is the CPU and memory that come with a device in demand, `room` for what would be left of devices.
    """

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
