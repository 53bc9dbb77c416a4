"""Fragmentation of a node (Weng et al., USENIX ATC 2023): milli-GPU free that typical pods cannot use.

And what that does not see, since it looks one pod ahead: milli-GPU that will be left when the CPU is gone.
"""

from __future__ import annotations

from walras.market.engine.jit import Ints, part
from walras.sim.packing.demand import Typical
from walras.sim.packing.rooms import DEVICE, suits


@part
def fragments(cpu: int, model: int, left: Ints, gpus: int, typical: Typical) -> int:
    """Milli-GPU free on a node that are of no use to a typical pod, summed over all of them.

    None is of use to a pod without GPUs, to one that the node's CPU or its model or its devices rule out;
    to the others that on devices with less than they ask for is not.
    """
    free = 0
    for device in range(gpus):
        free += left[device]
    total = 0
    for row in range(typical.cpu.size):
        milli, wasted = typical.milli[row], free
        if milli > 0 and cpu >= typical.cpu[row] and suits(typical.models[row], model):
            enough = small = 0
            for device in range(gpus):
                if left[device] >= milli:
                    enough += 1
                else:
                    small += left[device]
            if enough >= typical.gpus[row]:
                wasted = small
        total += typical.pods[row] * wasted
    return int(total)


@part
def starved(cpu: int, memory: int, free: int, rates: Ints) -> int:
    """Milli-GPU free on a node for which its CPU or its memory will not do, if pods go on asking for these as
    they do on average: `rates` has the CPU and the memory that come with a device."""
    served = min(cpu * DEVICE // rates[0], memory * DEVICE // rates[1])
    return int(max(0, free - served))
