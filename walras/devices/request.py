"""What a pod asks of GPUs, in the one form that scheduler, bidder and runtime share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI
from walras.core.quantity import parse_quantity

WHOLE: Final = "nvidia.com/gpu"
MILLI: Final = "walras.dev/milligpu"
MEMORY: Final = "walras.dev/gpu-memory-mib"
DEVICES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """`devices` devices, `milli_gpu` and `memory_mib` on each; memory 0 is the share's part."""

    devices: int
    milli_gpu: int
    memory_mib: int = 0

    @property
    def total_milli(self) -> int:
        return self.devices * self.milli_gpu


def capacity(resources: Mapping[str, Any]) -> tuple[int, int]:
    """(milli-GPU, memory MiB) of a node's capacity or allocatable, which may say the same in both units."""
    milli = max(
        parse_quantity(resources.get(WHOLE, 0)) * WHOLE_GPU_MILLI, parse_quantity(resources.get(MILLI, 0))
    )
    return milli, parse_quantity(resources.get(MEMORY, 0))


def gpu_request(pod_spec: Mapping[str, Any]) -> GpuRequest | None:
    """The request of a pod's containers together, or None when they ask for no GPU.

    Raises Invalid for a request that no lease can have: both units in one pod, more than one device but
    not whole ones, memory without compute, more than DEVICES_MAX devices.
    """
    whole = milli = memory = 0
    for container in pod_spec.get("containers") or ():
        resources = container.get("resources") or {}
        asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
        whole += parse_quantity(asked.get(WHOLE, 0))
        milli += parse_quantity(asked.get(MILLI, 0))
        memory += parse_quantity(asked.get(MEMORY, 0))
    if not whole and not milli:
        if memory:
            raise Invalid(f"{MEMORY} needs {MILLI} or {WHOLE} beside it")
        return None
    if whole < 0 or milli < 0 or memory < 0:
        raise Invalid("a GPU request must not be negative")
    if whole and milli:
        raise Invalid(f"a pod asks for either {WHOLE} or {MILLI}, not both")
    if milli > WHOLE_GPU_MILLI and milli % WHOLE_GPU_MILLI:
        raise Invalid(f"{MILLI}: {milli} is more than one device but no whole number of devices")
    devices = whole or max(1, milli // WHOLE_GPU_MILLI)
    if devices > DEVICES_MAX:
        raise Invalid(f"{devices} devices are more than the {DEVICES_MAX} that one pod can ask for")
    return GpuRequest(devices, min(milli, WHOLE_GPU_MILLI) or WHOLE_GPU_MILLI, -(-memory // devices))
