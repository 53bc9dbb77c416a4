"""MIG through NVML: which profiles a card has, its instances, and how they are made and destroyed.

Profiles are found by their slices, not by name: names differ between drivers. Raises pynvml.NVMLError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ctypes import c_uint, pointer
from typing import Any, Final

import pynvml

from walras.core.errors import Invalid
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import MigGeometry, MigProfile, geometry_of
from walras.devices.models import find_model
from walras.runtimes.gpus.cards import Made

# NVML numbers kinds of instances by their compute slices; the second kind of one and of two slices has the
# media extensions, the third of one slice has twice the memory.
_WITH_MEDIA: Final = (
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1,
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE_REV1,
)
_KINDS: Final = (
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_3_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE,
    *_WITH_MEDIA,
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2,
)
_WHOLE_INSTANCE: Final = {
    1: pynvml.NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE,
    2: pynvml.NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE,
    3: pynvml.NVML_COMPUTE_INSTANCE_PROFILE_3_SLICE,
    4: pynvml.NVML_COMPUTE_INSTANCE_PROFILE_4_SLICE,
    7: pynvml.NVML_COMPUTE_INSTANCE_PROFILE_7_SLICE,
}
_MISSING: Final = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_NotFound,
    pynvml.NVMLError_InvalidArgument,
    pynvml.NVMLError_FunctionNotFound,
)


def geometry(handle: Any, product: str, model: str) -> MigGeometry | None:
    """What the card can be cut into, by our table of its model with the memory that the driver reports.

    None for a card without MIG, one whose model is not in the table, and one whose profiles the driver
    places otherwise than the table: what is not known is not sold.
    """
    try:
        pynvml.nvmlDeviceGetMigMode(handle)
    except _MISSING:
        return None
    table = geometry_of(model) or _by_product(product)
    if table is None:
        return None
    memory: dict[str, int] = {}
    for info, media in _profiles(handle):
        starts, size = _placements(handle, info)
        found = _named(table, int(info.sliceCount), size, media)
        if found is not None:
            if starts and starts != found.starts:
                return None
            memory[found.name] = int(info.memorySizeMB)
    return table.measured(memory) if memory else None


def _by_product(product: str) -> MigGeometry | None:
    with suppress(Invalid):
        return geometry_of(find_model(product).name)
    return None


def _profiles(handle: Any) -> Iterator[tuple[Any, bool]]:
    for kind in _KINDS:
        with suppress(*_MISSING):
            yield pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, kind), kind in _WITH_MEDIA


def _placements(handle: Any, info: Any) -> tuple[tuple[int, ...], int]:
    """Where instances of a profile may start, and how many memory slices each takes."""
    count = c_uint(int(info.instanceCount) * 2 + 8)
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, info.id, places, pointer(count))
    found = [(int(each.start), int(each.size)) for each in places[: count.value]]
    return tuple(sorted(start for start, _ in found)), found[0][1] if found else 0


def _named(table: MigGeometry, compute: int, memory: int, media: bool) -> MigProfile | None:
    for each in table.profiles:
        if (each.compute_slices, each.memory_slices, each.media) == (compute, memory, media):
            return each
    return None


def made(handle: Any, table: MigGeometry) -> tuple[Made, ...]:
    """Every GPU instance; `uuid` is "" for one that has no compute instance."""
    uuids = _uuids(handle)
    found = []
    for info, media in _profiles(handle):
        for instance in _instances(handle, info):
            about = pynvml.nvmlGpuInstanceGetInfo(instance)
            profile = _named(table, int(info.sliceCount), int(about.placement.size), media)
            if profile is not None:
                cut = MigInstance(profile.name, int(about.placement.start))
                found.append(Made(int(about.id), cut, uuids.get(int(about.id), "")))
    return tuple(found)


def _instances(handle: Any, info: Any) -> list[Any]:
    count = c_uint(int(info.instanceCount))
    there = (pynvml.c_nvmlGpuInstance_t * max(1, count.value))()
    pynvml.nvmlDeviceGetGpuInstances(handle, info.id, there, pointer(count))
    return list(there[: count.value])


def _uuids(handle: Any) -> dict[int, str]:
    """What CUDA calls the compute instance of each GPU instance."""
    found = {}
    for at in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(*_MISSING):
            cut = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, at)
            uuid = pynvml.nvmlDeviceGetUUID(cut)
            found[int(pynvml.nvmlDeviceGetGpuInstanceId(cut))] = (
                uuid.decode() if isinstance(uuid, bytes) else uuid
            )
    return found


def create(handle: Any, profile: MigProfile, start: int) -> None:
    """A GPU instance there and the compute instance that takes all of it; neither, where one is refused."""
    for info, media in _profiles(handle):
        slices = int(info.sliceCount)
        if (slices, media) != (profile.compute_slices, profile.media):
            continue
        if _placements(handle, info)[1] != profile.memory_slices:
            continue
        place = pynvml.c_nvmlGpuInstancePlacement_t(start, profile.memory_slices)
        instance = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, info.id, pointer(place))
        try:
            whole = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                instance, _WHOLE_INSTANCE[slices], pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
            )
            pynvml.nvmlGpuInstanceCreateComputeInstance(instance, whole.id)
        except pynvml.NVMLError:
            pynvml.nvmlGpuInstanceDestroy(instance)
            raise
        return
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def destroy(handle: Any, instance_id: int) -> None:
    """The compute instances of a GPU instance, then it."""
    instance = pynvml.nvmlDeviceGetGpuInstanceById(handle, instance_id)
    for kind in _WHOLE_INSTANCE.values():
        with suppress(*_MISSING):
            info = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                instance, kind, pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
            )
            count = c_uint(int(info.instanceCount))
            there = (pynvml.c_nvmlComputeInstance_t * max(1, count.value))()
            pynvml.nvmlGpuInstanceGetComputeInstances(instance, info.id, there, pointer(count))
            for each in there[: count.value]:
                pynvml.nvmlComputeInstanceDestroy(each)
    pynvml.nvmlGpuInstanceDestroy(instance)
