"""A clearing among leases: who waits takes the room of leases on a device, when it is worth enough more.

The market's rule of displacement, with its default margin, where a bid is worth what it asks for: the milli-GPU
that come must be more than 110% of those that go. Which of those that wait and those that hold a device are on it
after the clearing is searched for exhaustively, up to COMBINED pods; on a node without the CPU for that, another
device's whole pod is exchanged for one that takes less CPU. So nobody moves who is not in the way.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from walras.market.engine.jit import NONE, Ints, kernel, part
from walras.market.types import Rules
from walras.sim.packing.online import Pods, Scores
from walras.sim.packing.rooms import DEVICE, fits
from walras.sim.packing.scores import Scene
from walras.sim.packing.waiting import Holders, Waiting, enter, leave, lightest, serve, who_holds, who_waits

COMBINED: Final = 5  # pods on a device
PASSES: Final = 3  # over all nodes in one clearing, while anything changes
KEPT: Final = 100 + Rules().epsilon_percent  # what a milli-GPU under lease counts, where a new one counts 100
CANDIDATES: Final = 128


class Candidates(NamedTuple):
    """Who could be on a device: those that hold it (their pods), then requests that wait (pod NONE)."""

    shape: Ints
    pod: Ints
    stack: Ints
    best: Ints
    sums: Ints  # by depth of the stack: milli, CPU, memory, worth, flattened


@kernel
def exchange(last: int, sizes: Ints, order: Ints, pods: Pods, scene: Scene, scores: Scores) -> None:
    """Clear once among the pods before `last`.

    sizes: milli-GPU that are asked for of single devices, the largest first. order: requests, as `serve` has it.
    """
    waiting = who_waits(last, scene.shapes.cpu.size, pods)
    candidates = Candidates(
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
    """Put on a device who is worth most there, if that is worth more than who is on it; says whether it was."""
    held = hold(node, device, candidates, holders, pods)
    count = gather(node, held, sizes, candidates, waiting, scene)
    cpu, memory, worth = scene.board.cpu[node], scene.board.memory[node], 0
    room = scene.board.left[node, device]
    for at in range(held):
        shape = candidates.shape[at]
        cpu, memory = cpu + scene.shapes.cpu[shape], memory + scene.shapes.memory[shape]
        room, worth = room + scene.shapes.milli[shape], worth + KEPT * scene.shapes.milli[shape]
    if room < DEVICE or count == held:  # a pod of several devices is there, or nobody waits
        return False
    found, chosen = search(held, count, cpu, memory, candidates, waiting, scene)
    if found > worth:
        replace(node, device, held, chosen, candidates, waiting, pods, scene)
        return True
    return exchange_two(
        node, held, count, cpu, memory, worth, device, candidates, holders, waiting, pods, scene
    )


@part
def hold(node: int, device: int, candidates: Candidates, holders: Holders, pods: Pods) -> int:
    """Write those that hold a device to the candidates; returns how many."""
    held = 0
    for at in range(holders.start[node], holders.start[node + 1]):
        pod = holders.pods[at]
        if pods.node[pod] == node and (pods.devices[pod] >> device) & 1 and held < CANDIDATES // 2:
            candidates.shape[held], candidates.pod[held] = pods.shape[pod], pod
            held += 1
    return held


@part
def gather(node: int, held: int, sizes: Ints, candidates: Candidates, waiting: Waiting, scene: Scene) -> int:
    """Write, of each size that waits, the request with the least CPU; returns how many candidates there are."""
    count = held
    for milli in sizes:
        shape = lightest(milli, node, waiting, scene)
        if shape != NONE and count < CANDIDATES:
            candidates.shape[count], candidates.pod[count] = shape, NONE
            count += 1
    return count


@part
def search(
    held: int, count: int, cpu: int, memory: int, candidates: Candidates, waiting: Waiting, scene: Scene
) -> tuple[int, int]:
    """The worth of the best set of candidates on a free device, and how many they are; writes them to `best`.

    Depth first. A holder can be in it once, a request as often as it waits.
    """
    sums, stack, shapes = candidates.sums, candidates.stack, scene.shapes
    most, chosen, depth, at = 0, 0, 0, 0
    while True:
        if at < count and depth < COMBINED:
            shape, base = candidates.shape[at], 4 * depth
            milli = sums[base] + shapes.milli[shape]
            taken, stored = sums[base + 1] + shapes.cpu[shape], sums[base + 2] + shapes.memory[shape]
            again = 0
            for nth in range(depth):
                again += stack[nth] == at
            enough = at < held or again < waiting.count[shape]
            if milli <= DEVICE and taken <= cpu and stored <= memory and enough:
                worth = sums[base + 3] + shapes.milli[shape] * (KEPT if at < held else 100)
                stack[depth] = at
                depth += 1
                sums[4 * depth], sums[4 * depth + 1] = milli, taken
                sums[4 * depth + 2], sums[4 * depth + 3] = stored, worth
                if worth > most:
                    most, chosen = worth, depth
                    for nth in range(depth):
                        candidates.best[nth] = stack[nth]
                at += at < held
            else:
                at += 1
        elif depth > 0:
            depth -= 1
            at = stack[depth] + 1
        else:
            return most, chosen


@part
def replace(
    node: int,
    device: int,
    held: int,
    chosen: int,
    candidates: Candidates,
    waiting: Waiting,
    pods: Pods,
    scene: Scene,
) -> None:
    """Make a device's holders those that `search` chose."""
    for at in range(held):
        stays = False
        for nth in range(chosen):
            stays |= candidates.best[nth] == at
        if not stays:
            leave(candidates.pod[at], waiting, pods, scene)
    for nth in range(chosen):
        if candidates.best[nth] >= held:
            enter(candidates.shape[candidates.best[nth]], node, 1 << device, waiting, pods, scene)


@part
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
        waiting.count[light] -= 1
        free_cpu = cpu + shapes.cpu[heavy] - shapes.cpu[light]
        free_memory = memory + shapes.memory[heavy] - shapes.memory[light]
        found, chosen = 0, 0
        if free_memory >= 0:
            found, chosen = search(held, count, free_cpu, free_memory, candidates, waiting, scene)
        waiting.count[light] += 1
        if found + 100 * DEVICE > worth + KEPT * DEVICE:
            devices = pods.devices[pod]
            leave(pod, waiting, pods, scene)
            enter(light, node, devices, waiting, pods, scene)
            replace(node, device, held, chosen, candidates, waiting, pods, scene)
            return True
    return False
