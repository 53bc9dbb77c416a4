"""The simulator's functions for instances: what NVML says of profiles and places, and what it refuses."""

from __future__ import annotations

from ctypes import POINTER, c_uint, c_void_p, cast
from typing import Any, Final

import pynvml

from walras.devices.mig_profiles import MigProfile
from walras.runtimes.gpus.simulated_abi import (
    CI,
    FUNCTIONS,
    GI,
    MIG,
    NONE,
    P,
    Refused,
    U,
    at_,
    c,
    card_of,
    instance_of,
    put,
)  # fmt: skip
from walras.runtimes.gpus.simulated_cards import SimulatedCard, SimulatedInstance, State

__all__ = ["FUNCTIONS"]

# What NVML numbers kinds of instances by, in the words of a profile: compute slices, media, double memory.
_KIND_OF: Final = {
    (1, False, False): 0, (2, False, False): 1, (3, False, False): 2, (4, False, False): 3,
    (7, False, False): 4, (1, True, False): 7, (2, True, False): 8, (1, False, True): 9,
}  # fmt: skip
_SLICES_OF: Final = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}


def _profile(card: SimulatedCard, kind: int) -> MigProfile:
    geometry = card.geometry
    for each in geometry.profiles if geometry else ():
        least = min(p.memory_slices for p in geometry.profiles if p.compute_slices == each.compute_slices)  # type: ignore[union-attr]
        double = each.compute_slices == 1 and each.memory_slices > least
        if _KIND_OF.get((each.compute_slices, each.media, double)) == kind:
            return each
    raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _mig_card(state: State, handle: int) -> SimulatedCard:
    card = card_of(state, handle)
    if not card.mig:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return card


@c("nvmlDeviceGetGpuInstanceProfileInfoV", P, U, P)
def _profile_info(_: Any, state: State, handle: int, kind: int, info: int) -> None:
    profile = _profile(card_of(state, handle), kind)
    found = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t.from_address(info)
    found.id, found.sliceCount, found.instanceCount = 100 + kind, profile.compute_slices, profile.maximum
    found.memorySizeMB, found.name = profile.memory_mib, profile.name.encode()


@c("nvmlDeviceGetGpuInstancePossiblePlacements_v2", P, U, P, P)
def _placements(_: Any, state: State, handle: int, id_: int, places: int | None, count: int) -> None:
    # As the manual has it, places are told in MIG mode only.
    profile = _profile(_mig_card(state, handle), id_ - 100)
    if places is not None and c_uint.from_address(count).value < len(profile.starts):
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    put(count, c_uint, len(profile.starts))
    if places is None:
        return
    rows = cast(places, POINTER(pynvml.c_nvmlGpuInstancePlacement_t))
    for at, start in enumerate(profile.starts):
        rows[at].start, rows[at].size = start, profile.memory_slices


@c("nvmlDeviceCreateGpuInstanceWithPlacement", P, U, P, P)
def _create(_: Any, state: State, handle: int, id_: int, place: int, made: int) -> None:
    card = _mig_card(state, handle)
    profile, wanted = _profile(card, id_ - 100), pynvml.c_nvmlGpuInstancePlacement_t.from_address(place)
    if wanted.start not in profile.starts or wanted.size != profile.memory_slices:
        raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    if card.uncuttable or not card.has_room(profile.name, wanted.start):
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
    number = min(set(range(1, 16)) - {each.id for each in card.instances})
    card.instances.append(SimulatedInstance(number, profile.name, wanted.start))
    put(made, c_void_p, GI | at_(handle) << 8 | number)


@c("nvmlGpuInstanceDestroy", P)
def _destroy(_: Any, state: State, handle: int) -> None:
    card, made = instance_of(state, handle)
    if made.computes:
        raise Refused(pynvml.NVML_ERROR_IN_USE)
    card.instances.remove(made)


@c("nvmlDeviceGetGpuInstances", P, U, P, P)
def _instances(_: Any, state: State, handle: int, id_: int, found: int, count: int) -> None:
    card = _mig_card(state, handle)
    profile = _profile(card, id_ - 100)
    there = [each for each in card.instances if each.profile == profile.name]
    put(count, c_uint, len(there))
    rows = cast(found, POINTER(c_void_p))
    for at, each in enumerate(there):
        rows[at] = GI | at_(handle) << 8 | each.id


@c("nvmlDeviceGetGpuInstanceById", P, U, P)
def _by_id(_: Any, state: State, handle: int, id_: int, found: int) -> None:
    _mig_card(state, handle)
    instance_of(state, handle | id_)
    put(found, c_void_p, GI | at_(handle) << 8 | id_)


@c("nvmlGpuInstanceGetInfo", P, P)
def _about(_: Any, state: State, handle: int, info: int) -> None:
    card, made = instance_of(state, handle)
    assert card.geometry is not None
    found = pynvml.c_nvmlGpuInstanceInfo_t.from_address(info)
    found.id = made.id
    found.placement.start, found.placement.size = made.start, card.geometry[made.profile].memory_slices


@c("nvmlGpuInstanceGetComputeInstanceProfileInfoV", P, U, U, P)
def _compute_profile(_: Any, state: State, handle: int, kind: int, __: int, info: int) -> None:
    card, made = instance_of(state, handle)
    assert card.geometry is not None
    slices = _SLICES_OF.get(kind, NONE)
    if slices > card.geometry[made.profile].compute_slices:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    found = pynvml.c_nvmlComputeInstanceProfileInfo_v2_t.from_address(info)
    found.id, found.sliceCount = kind, slices
    found.instanceCount = card.geometry[made.profile].compute_slices // slices


@c("nvmlGpuInstanceCreateComputeInstance", P, U, P)
def _create_compute(_: Any, state: State, handle: int, kind: int, made: int) -> None:
    card, found = instance_of(state, handle)
    assert card.geometry is not None
    if found.computes:
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES)
    if _SLICES_OF.get(kind) != card.geometry[found.profile].compute_slices:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    found.computes = True
    put(made, c_void_p, CI | at_(handle) << 8 | found.id)


@c("nvmlGpuInstanceGetComputeInstances", P, U, P, P)
def _computes(_: Any, state: State, handle: int, kind: int, rows: int, count: int) -> None:
    card, made = instance_of(state, handle)
    assert card.geometry is not None
    whole = made.computes and _SLICES_OF.get(kind) == card.geometry[made.profile].compute_slices
    put(count, c_uint, int(whole))
    if whole:
        cast(rows, POINTER(c_void_p))[0] = CI | at_(handle) << 8 | made.id


@c("nvmlComputeInstanceDestroy", P)
def _destroy_compute(_: Any, state: State, handle: int) -> None:
    card, made = instance_of(state, handle)
    if any(each.instance == made.id for each in card.processes):
        raise Refused(pynvml.NVML_ERROR_IN_USE)
    made.computes = False


@c("nvmlDeviceGetMaxMigDeviceCount", P, P)
def _mig_count(_: Any, state: State, handle: int, count: int) -> None:
    card_of(state, handle)
    put(count, c_uint, 7)


@c("nvmlDeviceGetMigDeviceHandleByIndex", P, U, P)
def _mig_handle(_: Any, state: State, handle: int, at: int, found: int) -> None:
    there = [each for each in _mig_card(state, handle).instances if each.computes]
    if at >= len(there):
        raise Refused(pynvml.NVML_ERROR_NOT_FOUND)
    put(found, c_void_p, MIG | at_(handle) << 8 | there[at].id)


@c("nvmlDeviceGetGpuInstanceId", P, P)
def _mig_instance(_: Any, state: State, handle: int, id_: int) -> None:
    put(id_, c_uint, instance_of(state, handle)[1].id)
