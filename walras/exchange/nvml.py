"""The NVIDIA cards of this machine as devices on offer, read through NVML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pynvml

from walras.core.errors import Invalid
from walras.devices.classes import SLOWEST_MILLI, gpu_attributes, speed_milli
from walras.devices.models import find_model, model_of
from walras.devices.topology import Place
from walras.market.types import Device

_PCI: Final = Path("/sys/bus/pci/devices")


def devices(node: str) -> tuple[Device, ...]:
    """Every card, none where NVML does not answer.

    None of them is sold in MIG mode, as nothing here makes instances yet.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
        domains = _nvlink_domains(handles, node)
        return tuple(
            _device(handle, index, Place(node, domains[index], _numa(handle)))
            for index, handle in enumerate(handles)
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _device(handle: Any, index: int, place: Place) -> Device:
    product = _text(pynvml.nvmlDeviceGetName(handle))
    memory_mib = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 2**20
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    model, speed = model_of(product, memory_mib), speed_of(product)
    uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    attributes = gpu_attributes(model, uuid, index, place, speed=speed)
    return Device(
        id=f"{place.node}/gpu-{index}",
        node=place.node,
        model=model.name,
        index=index,
        memory_mib=memory_mib,
        attributes={**attributes, "cudaComputeCapability": f"{major}.{minor}.0"},
        speed_milli=speed,
    )


def speed_of(product: str) -> int:
    """A card's speed by its name; drivers report a few MiB more or less, which makes it no slower."""
    try:
        return speed_milli(find_model(product).name)
    except Invalid:
        return SLOWEST_MILLI


def _nvlink_domains(handles: Sequence[Any], node: str) -> list[str]:
    """For each card the domain of those that NVLink connects, "" for one that is connected to none."""
    first = list(range(len(handles)))
    linked = [False] * len(handles)
    for at, handle in enumerate(handles):
        for earlier in range(at):
            if _nvlinked(handles[earlier], handle):
                linked[earlier] = linked[at] = True
                mine, its = first[at], first[earlier]
                first = [min(mine, its) if each in (mine, its) else each for each in first]
    return [f"{node}/{first[at]}" if linked[at] else "" for at in range(len(handles))]


def _nvlinked(one: Any, other: Any) -> bool:
    try:
        status = pynvml.nvmlDeviceGetP2PStatus(one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    except pynvml.NVMLError:
        return False
    return bool(status == pynvml.NVML_P2P_STATUS_OK)


def _numa(handle: Any) -> int:
    """The NUMA node that the kernel says the card is on; 0 where it does not say."""
    bus = _text(pynvml.nvmlDeviceGetPciInfo(handle).busId).lower()
    try:
        # NVML writes eight digits of the PCI domain, the kernel four.
        return max(0, int((_PCI / bus[-12:] / "numa_node").read_text()))
    except (OSError, ValueError):
        return 0


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
