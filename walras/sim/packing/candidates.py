"""Who could be on a device after a clearing, and which of them are worth most there together."""

from __future__ import annotations

from typing import Final, NamedTuple

from walras.market.engine.jit import NONE, Ints, part, step
from walras.sim.packing.online import Pods
from walras.sim.packing.rooms import DEVICE
from walras.sim.packing.scene import Scene
from walras.sim.packing.waiting import Holders, Waiting, enter, leave, lightest

COMBINED: Final = 5  # pods on a device
CANDIDATES: Final = 128


class Candidates(NamedTuple):
    """Who could be on a device: those that hold it (their pods), then requests that wait (pod NONE).

    `kept` is what a milli-GPU under lease counts, where a new one counts 100.
    """

    kept: int
    shape: Ints
    pod: Ints
    stack: Ints
    best: Ints
    sums: Ints  # by depth of the stack: milli, CPU, memory, worth, flattened


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
    """Write, of each size that waits, the request with the least CPU; returns the number of candidates."""
    count = held
    for milli in sizes:
        shape = lightest(milli, node, waiting, scene)
        if shape != NONE and count < CANDIDATES:
            candidates.shape[count], candidates.pod[count] = shape, NONE
            count += 1
    return count


@step
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
            enough = at < held or again < waiting.number[shape]
            if milli <= DEVICE and taken <= cpu and stored <= memory and enough:
                worth = sums[base + 3] + shapes.milli[shape] * (candidates.kept if at < held else 100)
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


@step
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
