"""Cards found, arranged and read through NVML. Calls block, so none is for the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import pynvml

from walras.devices.models import model_of
from walras.runtimes.gpus import nvml_mig
from walras.runtimes.gpus.cards import Card, CardError, Made, Reading, Use

_MIB: Final = 2**20
_THROTTLES: Final = (
    (pynvml.nvmlClocksEventReasonSwThermalSlowdown, "thermal"),
    (pynvml.nvmlClocksEventReasonHwThermalSlowdown, "thermal, by the hardware"),
    (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, "power brake"),
    (pynvml.nvmlClocksEventReasonHwSlowdown, "slowdown, by the hardware"),
    (pynvml.nvmlClocksEventReasonSwPowerCap, "power cap"),
)


# What a card, its mode, its driver or our rights keep NVML from telling.
_UNTOLD: Final = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NotFound,
    pynvml.NVMLError_NoData,
    pynvml.NVMLError_NoPermission,
)


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Raises CardError for what the driver refuses, saying what it was asked for."""
    try:
        yield
    except pynvml.NVMLError as error:
        code = error.value
        raise CardError(
            f"{what}: {error}",
            code,
            lost=code in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED),
            busy=code == pynvml.NVML_ERROR_IN_USE,
        ) from None


class Nvml:
    """The driver's library, opened. Raises CardError where there is none."""

    def __init__(self) -> None:
        with asking("opening NVML"):
            pynvml.nvmlInit()

    def close(self) -> None:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def versions(self) -> tuple[str, str]:
        """Of the driver, and of the CUDA that it speaks, such as ("580.65.06", "13.0")."""
        with asking("asking for versions"):
            cuda = pynvml.nvmlSystemGetCudaDriverVersion()
            return _text(pynvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}"

    def cards(self) -> tuple[Card, ...]:
        """Every card that is not lost, in the driver's order. Raises CardError, also where all are lost."""
        with asking("looking for cards"):
            handles = _handles(pynvml.nvmlDeviceGetCount())
            joined = _joined(handles)
            return tuple(_card(handle, at, joined[at]) for at, handle in handles.items())

    def minor(self, uuid: str) -> int:
        """The number of its device file, which a change of mode may change."""
        with asking(f"asking {uuid} for its device file"):
            return int(pynvml.nvmlDeviceGetMinorNumber(_handle(uuid)))

    # How a card is arranged

    def mig(self, uuid: str) -> bool:
        """Whether the card is in MIG mode; one that has none is not."""
        try:
            return bool(pynvml.nvmlDeviceGetMigMode(_handle(uuid))[0])
        except pynvml.NVMLError_NotSupported:
            return False
        except pynvml.NVMLError as error:
            raise CardError(f"asking {uuid} for its mode: {error}", error.value, lost=_lost(error)) from None

    def set_mig(self, uuid: str, on: bool) -> None:
        """Changes the mode, or raises CardError: `busy` where somebody uses the card."""
        what = f"turning MIG {'on' if on else 'off'} on {uuid}"
        with asking(what):
            refused = pynvml.nvmlDeviceSetMigMode(_handle(uuid), int(on))
            if refused != pynvml.NVML_SUCCESS:
                raise pynvml.NVMLError(refused)

    def made(self, card: Card) -> tuple[Made, ...]:
        """The instances that there are, also those without a compute instance."""
        with asking(f"listing instances of {card.uuid}"):
            return nvml_mig.made(_handle(card.uuid), card.mig) if card.mig and self.mig(card.uuid) else ()

    def create(self, card: Card, profile: str, start: int) -> None:
        """A GPU instance at that slice with a compute instance as large as it is."""
        assert card.mig is not None, "only cards with MIG are cut"
        with asking(f"making {profile}@{start} on {card.uuid}"):
            nvml_mig.create(_handle(card.uuid), card.mig, card.mig[profile], start)

    def destroy(self, card: Card, made: Made) -> None:
        """An instance with its compute instances. Raises CardError: `busy` where a process uses it."""
        with asking(f"destroying {made.instance} of {card.uuid}"):
            nvml_mig.destroy(_handle(card.uuid), made.id)

    def one_process(self, uuid: str) -> bool:
        """Whether only one process at a time may make contexts, as it is set under MPS."""
        with asking(f"asking {uuid} for its compute mode"):
            mode = int(pynvml.nvmlDeviceGetComputeMode(_handle(uuid)))
        return mode == int(pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)

    def set_one_process(self, uuid: str, on: bool) -> None:
        mode = pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS if on else pynvml.NVML_COMPUTEMODE_DEFAULT
        with asking(f"setting the compute mode of {uuid}"):
            pynvml.nvmlDeviceSetComputeMode(_handle(uuid), mode)

    # What a card does

    def reading(self, uuid: str) -> Reading:
        """What the card does now. Raises CardError."""
        with asking(f"reading {uuid}"):
            handle = _handle(uuid)
            reasons = _told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
            return Reading(
                utilisation_percent=_utilisation(handle),
                memory_used_mib=int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) // _MIB,
                energy_mj=_told(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
                temperature_c=_told(_temperature, handle) or 0,
                throttled=tuple(name for bit, name in _THROTTLES if reasons & bit),
                uses=_uses(handle),
            )


def _handles(count: int) -> dict[int, Any]:
    """By index. Raises pynvml.NVMLError where there is none though there are cards."""
    found: dict[int, Any] = {}
    for at in range(count):
        try:
            found[at] = pynvml.nvmlDeviceGetHandleByIndex(at)
        except pynvml.NVMLError_GpuIsLost:
            if at == count - 1 and not found:
                raise
    return found


def _handle(uuid: str) -> Any:
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def _lost(error: pynvml.NVMLError) -> bool:
    return int(error.value) == int(pynvml.NVML_ERROR_GPU_IS_LOST)


def _told(ask: Any, handle: Any) -> int | None:
    """The answer, None where this card or driver has none."""
    try:
        return int(ask(handle))
    except _UNTOLD:
        return None


def _temperature(handle: Any) -> Any:
    return pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)


def _utilisation(handle: Any) -> int | None:
    """Percent of the time in which a kernel ran; None in MIG mode, where NVML does not tell."""
    return _told(lambda it: pynvml.nvmlDeviceGetUtilizationRates(it).gpu, handle)


def _uses(handle: Any) -> tuple[Use, ...]:
    """Each process once: drivers list clients of MPS in a list of their own, or in both."""
    found: dict[int, Use] = {}
    busy = _sm_percent(handle)
    for process in (*pynvml.nvmlDeviceGetComputeRunningProcesses(handle), *_clients(handle)):
        # All ones where there is none.
        cut = process.gpuInstanceId if process.gpuInstanceId is not None else 0xFFFFFFFF
        instance = None if cut == 0xFFFFFFFF else int(cut)
        memory = int(process.usedGpuMemory or 0) // _MIB
        pid = int(process.pid)
        known = found.get(pid)
        if known is None or known.memory_mib < memory:
            found[pid] = Use(pid, memory, busy.get(pid), instance)
    return tuple(found.values())


def _clients(handle: Any) -> Sequence[Any]:
    """The processes that compute through an MPS server, as far as the driver tells them apart."""
    try:
        clients: Sequence[Any] = pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)
    except _UNTOLD:
        return ()
    return clients


def _sm_percent(handle: Any) -> dict[int, int]:
    """The latest sample of each process; nothing in MIG mode, nor where there is no sample yet."""
    try:
        samples: Sequence[Any] = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    except _UNTOLD:
        return {}
    latest: dict[int, Any] = {}
    for sample in samples:
        if sample.pid not in latest or sample.timeStamp > latest[sample.pid].timeStamp:
            latest[sample.pid] = sample
    return {int(pid): min(100, int(sample.smUtil)) for pid, sample in latest.items()}


def _card(handle: Any, index: int, nvlink: int | None) -> Card:
    product = _text(pynvml.nvmlDeviceGetName(handle))
    memory_mib = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // _MIB
    return Card(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        product=product,
        memory_mib=memory_mib,
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        # NVML writes eight digits of the PCI domain, the kernel four.
        pci_bus=_text(pynvml.nvmlDeviceGetPciInfo(handle).busId).lower()[-12:],
        nvlink=nvlink,
        mig=nvml_mig.geometry(handle, product, model_of(product, memory_mib).name),
    )


def _joined(handles: Mapping[int, Any]) -> dict[int, int | None]:
    """For each card the first of those that NVLink joins it to, None for one that stands alone."""
    first = {at: at for at in handles}
    linked = set()
    for at, handle in handles.items():
        for earlier in (each for each in handles if each < at):
            if _nvlinked(handles[earlier], handle):
                linked |= {at, earlier}
                both = (first[at], first[earlier])
                first = {each: min(both) if had in both else had for each, had in first.items()}
    return {at: first[at] if at in linked else None for at in handles}


def _nvlinked(one: Any, other: Any) -> bool:
    try:
        status = pynvml.nvmlDeviceGetP2PStatus(one, other, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    except pynvml.NVMLError:
        return False
    return bool(status == pynvml.NVML_P2P_STATUS_OK)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
