"""MIG through NVML: which profiles a card has, its instances, and how they are made and destroyed.

Profiles are found by the numbers of their kinds, as names differ between drivers. Raises pynvml.NVMLError.
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
_DOUBLE: Final = pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2
_KINDS: Final = (
    pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_3_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE,
    pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE,
    *_WITH_MEDIA,
    _DOUBLE,
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
    places otherwise than the table. While MIG is off drivers tell no places; then the table's are believed.
    """
    try:
        pynvml.nvmlDeviceGetMigMode(handle)
    except _MISSING:
        return None
    table = geometry_of(model) or _by_product(product)
    if table is None:
        return None
    memory: dict[str, int] = {}
    for kind, info in _profiles(handle):
        found = _named(table, kind, info)
        starts = _starts(handle, info)
        if found is not None and starts and starts != found.starts:
            return None
        if found is not None:
            memory[found.name] = int(info.memorySizeMB)
    return table.measured(memory)


def _by_product(product: str) -> MigGeometry | None:
    with suppress(Invalid):
        return geometry_of(find_model(product).name)
    return None


def _profiles(handle: Any) -> Iterator[tuple[int, Any]]:
    """The kinds of instances that the card has, with what the driver says of each."""
    for kind in _KINDS:
        with suppress(*_MISSING):
            yield kind, pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, kind)


def _starts(handle: Any, info: Any) -> tuple[int, ...]:
    """Where instances of a profile may start; nothing while the driver does not tell."""
    count = c_uint(int(info.instanceCount) * 2 + 8)
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    try:
        pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, info.id, places, pointer(count))
    except _MISSING:
        return ()
    return tuple(sorted(int(each.start) for each in places[: count.value]))


def _named(table: MigGeometry, kind: int, info: Any) -> MigProfile | None:
    """The profile of a kind of instances: with media or without, and of two alike the wider for the third."""
    alike = [
        each
        for each in table.profiles
        if (each.compute_slices, each.media) == (int(info.sliceCount), kind in _WITH_MEDIA)
    ]
    alike.sort(key=lambda each: each.memory_slices)
    wide = kind == _DOUBLE
    if wide and len(alike) < 2:
        return None
    return alike[-1 if wide else 0] if alike else None


def made(handle: Any, table: MigGeometry) -> tuple[Made, ...]:
    """Every GPU instance; `uuid` is "" for one that has no compute instance."""
    uuids = _uuids(handle)
    found = []
    for kind, info in _profiles(handle):
        profile = _named(table, kind, info)
        for instance in _instances(handle, info):
            about = pynvml.nvmlGpuInstanceGetInfo(instance)
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


def create(handle: Any, table: MigGeometry, profile: MigProfile, start: int) -> None:
    """A GPU instance there and the compute instance that takes all of it; neither, where one is refused."""
    for kind, info in _profiles(handle):
        if _named(table, kind, info) != profile:
            continue
        place = pynvml.c_nvmlGpuInstancePlacement_t(start, profile.memory_slices)
        instance = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, info.id, pointer(place))
        try:
            whole = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
                instance,
                _WHOLE_INSTANCE[profile.compute_slices],
                pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED,
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
