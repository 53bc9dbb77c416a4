"""A simulator of NVIDIA's libnvidia-ml: C functions with its signatures, over simulated cards.

`install` puts it where pynvml has the real library, so that all of Walras and of pynvml runs as it does on a
card, down to the types of C. It answers with the error codes that NVML's manual gives.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, c_int, c_uint, c_ulonglong, c_void_p, cast
from typing import Any, Final

import pynvml

from walras.devices.models import find_model
from walras.runtimes.gpus import simulated_mig
from walras.runtimes.gpus.simulated_abi import (
    CARD,
    FUNCTIONS,
    MIG,
    NONE,
    SET,
    L,
    P,
    Refused,
    S,
    U,
    at_,
    c,
    card_of,
    instance_of,
    put,
    put_text,
)  # fmt: skip
from walras.runtimes.gpus.simulated_cards import SimulatedCards, SimulatedProcess, State

DRIVER: Final = "580.0.0-simulated"
CUDA: Final = 13000
# Importing it declares the functions for instances.
assert simulated_mig.FUNCTIONS is FUNCTIONS


def install(cards: SimulatedCards) -> SimulatedNvml:
    """In the place of the driver's library, for the whole process; `uninstall` takes it out again."""
    simulated = SimulatedNvml(cards)
    pynvml.nvmlLib = simulated
    pynvml._nvmlGetFunctionPointer_cache.clear()
    return simulated


def uninstall() -> None:
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


class SimulatedNvml:
    """The library: its attributes are C functions, as a ctypes.CDLL has them."""

    def __init__(self, cards: SimulatedCards) -> None:
        self.cards = cards
        for name, (function, types) in FUNCTIONS.items():
            setattr(self, name, CFUNCTYPE(c_int, *types)(self._answering(function)))

    def _answering(self, function: Any) -> Callable[..., int]:
        def answer(*args: Any) -> int:
            try:
                if function is _event_set_wait:
                    function(self, *args)
                else:
                    with self.cards.state() as state:
                        function(self, state, *args)
            except Refused as refused:
                return refused.code
            except Exception:
                traceback.print_exc(file=sys.stderr)
                return int(pynvml.NVML_ERROR_UNKNOWN)
            return int(pynvml.NVML_SUCCESS)

        return answer


# The library and its cards


@c("nvmlInitWithFlags", U)
def _init(_: SimulatedNvml, __: State, ___: int) -> None: ...


@c("nvmlShutdown")
def _shutdown(_: SimulatedNvml, __: State) -> None: ...


@c("nvmlSystemGetDriverVersion", P, U)
def _driver_version(_: SimulatedNvml, __: State, text: int, size: int) -> None:
    put_text(text, size, DRIVER)


@c("nvmlSystemGetCudaDriverVersion", P)
def _cuda_version(_: SimulatedNvml, __: State, version: int) -> None:
    put(version, c_int, CUDA)


@c("nvmlDeviceGetCount_v2", P)
def _count(_: SimulatedNvml, state: State, count: int) -> None:
    put(count, c_uint, len(state.cards))


@c("nvmlDeviceGetHandleByIndex_v2", U, P)
def _by_index(_: SimulatedNvml, state: State, at: int, handle: int) -> None:
    if at >= len(state.cards):
        raise Refused(pynvml.NVML_ERROR_INVALID_ARGUMENT)
    card_of(state, CARD | at << 8)
    put(handle, c_void_p, CARD | at << 8)


@c("nvmlDeviceGetHandleByUUID", S, P)
def _by_uuid(_: SimulatedNvml, state: State, uuid: bytes, handle: int) -> None:
    for at, card in enumerate(state.cards):
        if card.uuid == uuid.decode():
            card_of(state, CARD | at << 8)
            put(handle, c_void_p, CARD | at << 8)
            return
    raise Refused(pynvml.NVML_ERROR_NOT_FOUND)


@c("nvmlDeviceGetName", P, P, U)
def _name(_: SimulatedNvml, state: State, handle: int, text: int, size: int) -> None:
    put_text(text, size, find_model(card_of(state, handle).model).product_name)


@c("nvmlDeviceGetUUID", P, P, U)
def _uuid(_: SimulatedNvml, state: State, handle: int, text: int, size: int) -> None:
    if handle & 0xF0000 == MIG:
        card, made = instance_of(state, handle)
        return put_text(text, size, card.uuid_of(made))
    # A card that is lost still has its name.
    return put_text(text, size, state.cards[at_(handle)].uuid)


@c("nvmlDeviceGetMinorNumber", P, P)
def _minor(_: SimulatedNvml, state: State, handle: int, minor: int) -> None:
    card_of(state, handle)
    put(minor, c_uint, at_(handle))


@c("nvmlDeviceGetMemoryInfo", P, P)
def _memory(_: SimulatedNvml, state: State, handle: int, memory: int) -> None:
    info = pynvml.c_nvmlMemory_t.from_address(memory)
    card = card_of(state, handle)
    info.total = find_model(card.model).memory_mib * 2**20
    info.used = sum(each.memory_mib for each in card.processes) * 2**20
    info.free = info.total - info.used


@c("nvmlDeviceGetCudaComputeCapability", P, P, P)
def _capability(_: SimulatedNvml, state: State, handle: int, major: int, minor: int) -> None:
    first, second, *_rest = find_model(card_of(state, handle).model).compute_capability.split(".")
    put(major, c_int, int(first))
    put(minor, c_int, int(second))


@c("nvmlDeviceGetPciInfo_v3", P, P)
def _pci(_: SimulatedNvml, state: State, handle: int, info: int) -> None:
    card_of(state, handle)
    pynvml.nvmlPciInfo_t.from_address(info).busId = f"00000000:{at_(handle) + 1:02X}:00.0".encode()


@c("nvmlDeviceGetP2PStatus", P, P, U, P)
def _p2p(_: SimulatedNvml, state: State, one: int, other: int, what: int, status: int) -> None:
    """NVLink joins all cards of a model that has it."""
    models = [card_of(state, each).model for each in (one, other)]
    joined = what == pynvml.NVML_P2P_CAPS_INDEX_NVLINK and models[0] == models[1] and "PCIe" not in models[0]
    put(status, c_uint, pynvml.NVML_P2P_STATUS_OK if joined else pynvml.NVML_P2P_STATUS_NOT_SUPPORTED)


# Readings


@c("nvmlDeviceGetUtilizationRates", P, P)
def _utilisation(_: SimulatedNvml, state: State, handle: int, rates: int) -> None:
    card = card_of(state, handle)
    if card.mig:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    found = pynvml.c_nvmlUtilization_t.from_address(rates)
    found.gpu = min(100, sum(each.sm_percent for each in card.processes))


@c("nvmlDeviceGetTotalEnergyConsumption", P, P)
def _energy(simulated: SimulatedNvml, state: State, handle: int, energy: int) -> None:
    put(energy, c_ulonglong, simulated.cards.energy_mj(card_of(state, handle)))


@c("nvmlDeviceGetTemperature", P, U, P)
def _temperature(_: SimulatedNvml, state: State, handle: int, __: int, celsius: int) -> None:
    put(celsius, c_uint, card_of(state, handle).temperature_c)


@c("nvmlDeviceGetCurrentClocksEventReasons", P, P)
def _reasons(_: SimulatedNvml, state: State, handle: int, reasons: int) -> None:
    put(reasons, c_ulonglong, card_of(state, handle).throttle_bits)


@c("nvmlDeviceGetComputeRunningProcesses_v3", P, P, P)
def _processes(_: SimulatedNvml, state: State, handle: int, count: int, found: int | None) -> None:
    card = card_of(state, handle)
    _put_processes([] if card.one_process else card.processes, count, found)


@c("nvmlDeviceGetMPSComputeRunningProcesses_v3", P, P, P)
def _clients(_: SimulatedNvml, state: State, handle: int, count: int, found: int | None) -> None:
    """Where one process alone makes contexts, it is MPS's server, and all others are its clients."""
    card = card_of(state, handle)
    _put_processes(card.processes if card.one_process else [], count, found)


def _put_processes(processes: Sequence[SimulatedProcess], count: int, found: int | None) -> None:
    room = c_uint.from_address(count).value
    put(count, c_uint, len(processes))
    if room < len(processes) or found is None:
        if processes:
            raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        return
    rows = cast(found, POINTER(pynvml.c_nvmlProcessInfo_v3_t))
    for at, each in enumerate(processes):
        rows[at].pid, rows[at].usedGpuMemory = each.pid, each.memory_mib * 2**20
        rows[at].gpuInstanceId = NONE if each.instance is None else each.instance
        rows[at].computeInstanceId = NONE if each.instance is None else 0


@c("nvmlDeviceGetProcessUtilization", P, P, P, L)
def _samples(_: SimulatedNvml, state: State, handle: int, found: int | None, count: int, __: int) -> None:
    card = card_of(state, handle)
    if card.mig:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    if not card.processes:
        raise Refused(pynvml.NVML_ERROR_NOT_FOUND)
    room = c_uint.from_address(count).value
    put(count, c_uint, len(card.processes))
    if found is None or room < len(card.processes):
        raise Refused(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
    rows = cast(found, POINTER(pynvml.c_nvmlProcessUtilizationSample_t))
    for at, each in enumerate(card.processes):
        rows[at].pid, rows[at].smUtil, rows[at].timeStamp = each.pid, each.sm_percent, 1


# Modes


@c("nvmlDeviceGetComputeMode", P, P)
def _compute_mode(_: SimulatedNvml, state: State, handle: int, mode: int) -> None:
    one = card_of(state, handle).one_process
    put(mode, c_uint, pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS if one else 0)


@c("nvmlDeviceSetComputeMode", P, U)
def _set_compute_mode(_: SimulatedNvml, state: State, handle: int, mode: int) -> None:
    card_of(state, handle).one_process = mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS


@c("nvmlDeviceGetMigMode", P, P, P)
def _mig_mode(_: SimulatedNvml, state: State, handle: int, current: int, pending: int) -> None:
    card = card_of(state, handle)
    if card.geometry is None:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    put(current, c_uint, int(card.mig))
    put(pending, c_uint, int(card.pending_mig))


@c("nvmlDeviceSetMigMode", P, U, P)
def _set_mig_mode(_: SimulatedNvml, state: State, handle: int, mode: int, activation: int) -> None:
    card = card_of(state, handle)
    if card.geometry is None:
        raise Refused(pynvml.NVML_ERROR_NOT_SUPPORTED)
    card.pending_mig = bool(mode)
    if card.processes or card.instances:
        return put(activation, c_uint, pynvml.NVML_ERROR_IN_USE)
    card.mig = bool(mode)
    return put(activation, c_uint, pynvml.NVML_SUCCESS)


# Events


@c("nvmlEventSetCreate", P)
def _event_set(_: SimulatedNvml, __: State, found: int) -> None:
    put(found, c_void_p, SET)


@c("nvmlDeviceGetSupportedEventTypes", P, P)
def _event_types(_: SimulatedNvml, state: State, handle: int, types: int) -> None:
    card_of(state, handle)
    put(types, c_ulonglong, pynvml.nvmlEventTypeXidCriticalError)


@c("nvmlDeviceRegisterEvents", P, L, P)
def _register(_: SimulatedNvml, state: State, handle: int, __: int, ___: int) -> None:
    card_of(state, handle)


@c("nvmlEventSetFree", P)
def _free(_: SimulatedNvml, __: State, ___: int) -> None: ...


@c("nvmlEventSetWait_v2", P, P, U)
def _event_set_wait(simulated: SimulatedNvml, _: int, data: int, timeout_ms: int) -> None:
    """Waits without holding the cards. What another process wrote is seen within a twentieth of a second."""
    cards, left_ms = simulated.cards, timeout_ms
    while True:
        with cards.state() as state:
            if state.events:
                event = state.events.pop(0)
                found = pynvml.c_nvmlEventData_t.from_address(data)
                found.device = cast(c_void_p(CARD | event.card << 8), pynvml.c_nvmlDevice_t)
                found.eventType, found.eventData = pynvml.nvmlEventTypeXidCriticalError, event.xid
                found.gpuInstanceId = found.computeInstanceId = NONE
                return
        if left_ms <= 0:
            raise Refused(pynvml.NVML_ERROR_TIMEOUT)
        with cards.happened:
            cards.happened.wait(min(left_ms, 50) / 1000)
        left_ms -= 50
