"""A clearing among leases: who waits takes the room of leases on a device, when it is worth enough more.

The market's rule of displacement, with its default margin, where a bid is worth what it asks for: the
milli-GPU that come must be more than 110% of those that go. Who is on a device after the clearing, of those
that hold it and those that wait, is searched for exhaustively, up to COMBINED pods; on a node without the CPU
for that, another device's whole pod is exchanged for one that takes less. Nobody moves who is not in the way.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from walras.market.engine.jit import NONE, Ints, kernel, step
from walras.sim.packing.candidates import (
    CANDIDATES,
    COMBINED,
    Candidates,
    gather,
    hold,
    replace,
    search,
)
from walras.sim.packing.online import Pods, Scores
from walras.sim.packing.rooms import DEVICE
from walras.sim.packing.scene import Scene
from walras.sim.packing.waiting import Holders, Waiting, enter, leave, lightest, serve, who_holds, who_waits

PASSES: Final = 3  # over all nodes in one clearing, while anything changes


@kernel
def exchange(
    last: int, kept: int, sizes: Ints, order: Ints, pods: Pods, scene: Scene, scores: Scores
) -> None:
    """Clear once among the pods before `last`.

    kept: what a milli-GPU under lease counts, where a new one counts 100. sizes: milli-GPU asked for of
    single devices, the largest first. order: requests, as `serve` has it.
    """
    waiting = who_waits(last, scene.shapes.cpu.size, pods)
    candidates = Candidates(
        kept,
        np.zeros(CANDIDATES, np.int64),
        np.zeros(CANDIDATES, np.int64),
        np.zeros(COMBINED, np.int64),
        np.zeros(COMBINED, np.int64),
        np.zeros(4 * (COMBINED + 1), np.int64),
    )
    for _ in range(PASSES):
        serve(order, waiting, pods, scene, scores)
        holders, changed = who_holds(last, pods, scene), 0
        for node in range(scene.board.cpu.size):
            for device in range(scene.cluster.gpus[node]):
                if scene.board.left[node, device] > 0:
                    changed += refill(node, device, sizes, candidates, holders, waiting, pods, scene)
        if changed == 0:
            break
    serve(order, waiting, pods, scene, scores)


@kernel
def refill(
    node: int,
    device: int,
    sizes: Ints,
    candidates: Candidates,
    holders: Holders,
    waiting: Waiting,
    pods: Pods,
    scene: Scene,
) -> bool:
    """Put on a device who is worth most there, if it is worth more than who is on it; says whether it was."""
    held = hold(node, device, candidates, holders, pods)
    count = gather(node, held, sizes, candidates, waiting, scene)
    cpu, memory, worth = scene.board.cpu[node], scene.board.memory[node], 0
    room = scene.board.left[node, device]
    for at in range(held):
        shape = candidates.shape[at]
        cpu, memory = cpu + scene.shapes.cpu[shape], memory + scene.shapes.memory[shape]
        room, worth = room + scene.shapes.milli[shape], worth + candidates.kept * scene.shapes.milli[shape]
    if room < DEVICE or count == held:  # a pod of several devices is there, or nobody waits
        return False
    found, chosen = search(held, count, cpu, memory, candidates, waiting, scene)
    if found > worth:
        replace(node, device, held, chosen, candidates, waiting, pods, scene)
        return True
    return exchange_two(
        node, held, count, cpu, memory, worth, device, candidates, holders, waiting, pods, scene
    )


@step
def exchange_two(
    node: int,
    held: int,
    count: int,
    cpu: int,
    memory: int,
    worth: int,
    device: int,
    candidates: Candidates,
    holders: Holders,
    waiting: Waiting,
    pods: Pods,
    scene: Scene,
) -> bool:
    """Exchange a whole pod of the node for the lightest that waits, if the CPU saved makes the device worth
    more than both lose; says whether it did."""
    light = lightest(DEVICE, node, waiting, scene)
    if light == NONE:
        return False
    shapes = scene.shapes
    for at in range(holders.start[node], holders.start[node + 1]):
        pod = holders.pods[at]
        heavy = pods.shape[pod]
        whole = pods.node[pod] == node and shapes.milli[heavy] == DEVICE
        if not whole or shapes.cpu[heavy] <= shapes.cpu[light]:
            continue
        waiting.number[light] -= 1
        free_cpu = cpu + shapes.cpu[heavy] - shapes.cpu[light]
        free_memory = memory + shapes.memory[heavy] - shapes.memory[light]
        found, chosen = 0, 0
        if free_memory >= 0:
            found, chosen = search(held, count, free_cpu, free_memory, candidates, waiting, scene)
        waiting.number[light] += 1
        if found + 100 * DEVICE > worth + candidates.kept * DEVICE:
            devices = pods.devices[pod]
            leave(pod, waiting, pods, scene)
            enter(light, node, devices, waiting, pods, scene)
            replace(node, device, held, chosen, candidates, waiting, pods, scene)
            return True
    return False
