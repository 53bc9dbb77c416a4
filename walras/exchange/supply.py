"""Where devices come from: NVIDIA cards through NVML, or emulated ones where there is no card."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI
from walras.market.types import Device, Share

EMULATED_MEMORY_MIB: Final = 16 * 1024
EMULATED_MAX: Final = 64
# Of the machine's cores, what is kept for the server and its clients beside emulated devices.
HEADROOM_PERCENT: Final = 20
# Attributes of emulated devices stand in the vendor's domain too, so that a selector works on both.
ATTRIBUTE_DOMAIN: Final = "gpu.nvidia.com"
EMULATED_DRIVER: Final = "emulated.walras.dev"
_SPEC = re.compile(r"emulated:(\d{1,3})(?::([A-Za-z0-9][A-Za-z0-9_.-]{0,62}))?")


@dataclass(frozen=True, slots=True)
class Supply:
    """The devices of this machine, how their shares are enforced, and the host's part behind each."""

    devices: tuple[Device, ...]
    enforcement: str
    # What of the host's CPU and memory goes with one whole device.
    cpu_milli_per_device: int
    memory_mib_per_device: int
    notes: tuple[str, ...] = field(default=())

    @property
    def emulated(self) -> bool:
        return self.enforcement == "emulated"

    @property
    def driver(self) -> str:
        """Who a ResourceSlice says the devices come from: never a vendor where there is no card."""
        return EMULATED_DRIVER if self.emulated else ATTRIBUTE_DOMAIN

    def enforcement_of(self, shares: Sequence[Share]) -> str:
        """How a lease of these shares is kept to them."""
        whole = all(share.milli == WHOLE_GPU_MILLI for share in shares)
        return "exclusive" if whole and not self.emulated else self.enforcement


def detect(gpus: str, node: str = "local") -> Supply:
    """The supply that `--gpus auto|emulated:N[:MODEL]` asks for. Raises Invalid."""
    if gpus == "auto":
        return _nvidia(node) or _emulated(
            2, "", node, "no NVIDIA device answers through NVML; 2 are emulated"
        )
    match = _SPEC.fullmatch(gpus)
    if match is None:
        raise Invalid(f'--gpus "{gpus}" is neither "auto" nor "emulated:N[:MODEL]", such as emulated:4:A100')
    count = int(match.group(1))
    if not 1 <= count <= EMULATED_MAX:
        raise Invalid(f"--gpus {gpus}: between 1 and {EMULATED_MAX} devices can be emulated")
    return _emulated(count, match.group(2) or "", node, f"{count} emulated as asked")


def _host() -> tuple[int, int]:
    cores_milli = len(os.sched_getaffinity(0)) * 1000
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return cores_milli, memory_mib


def _cpu_part(cores_milli: int, count: int) -> int:
    return max(50, cores_milli * (100 - HEADROOM_PERCENT) // 100 // count)


def _emulated(count: int, model: str, node: str, why: str) -> Supply:
    cores_milli, memory_mib = _host()
    model = model or "Emulated"
    devices = tuple(
        Device(
            id=f"{node}/gpu-{index}",
            node=node,
            model=model,
            index=index,
            memory_mib=EMULATED_MEMORY_MIB,
            attributes={"productName": model, "type": "emulated", "index": index},
        )
        for index in range(count)
    )
    return Supply(
        devices,
        "emulated",
        cpu_milli_per_device=_cpu_part(cores_milli, count),
        memory_mib_per_device=max(64, memory_mib * 3 // 4 // count),
        notes=(f"GPUs are emulated by CPU shares ({why}); no figure of theirs is a GPU's",),
    )


def _nvidia(node: str) -> Supply | None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        count = pynvml.nvmlDeviceGetCount()
        devices = tuple(_nvidia_device(index, node) for index in range(count))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    if not devices:
        return None
    cores_milli, memory_mib = _host()
    return Supply(
        devices,
        "timeslice",
        cpu_milli_per_device=_cpu_part(cores_milli, count),
        memory_mib_per_device=max(64, memory_mib * 3 // 4 // count),
        notes=("fractions of a device are time slices: its memory is not isolated between them",),
    )


def _nvidia_device(index: int, node: str) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = _text(pynvml.nvmlDeviceGetName(handle))
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Device(
        id=f"{node}/gpu-{index}",
        node=node,
        model=name,
        index=index,
        memory_mib=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20,
        attributes={
            "productName": name,
            "type": "gpu",
            "index": index,
            "uuid": _text(pynvml.nvmlDeviceGetUUID(handle)),
            "cudaComputeCapability": f"{major}.{minor}.0",
        },
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def resource_slice(supply: Supply, node: str = "local") -> dict[str, Any]:
    """The supply as an upstream ResourceSlice (resource.k8s.io/v1), without metadata that the store fills."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpus"},
        "spec": {
            "driver": supply.driver,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [
                {
                    "name": f"gpu-{device.index}",
                    "attributes": {key: _attribute(value) for key, value in device.attributes.items()},
                    "capacity": {"memory": {"value": f"{device.memory_mib}Mi"}},
                }
                for device in supply.devices
            ],
        },
    }


def _attribute(value: object) -> Mapping[str, object]:
    if isinstance(value, bool):
        return {"bool": value}
    return {"int": value} if isinstance(value, int) else {"string": str(value)}
