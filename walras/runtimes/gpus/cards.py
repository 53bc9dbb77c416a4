"""What is known of a card: what it is, its instances, what it does, and what went wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from walras.core.errors import InternalError
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import MigGeometry

# What programs do wrong on a healthy card, by NVIDIA's "Xid Errors": the graphics engine's exceptions, page
# faults, channels that were stopped or cleared up, video. NVIDIA's Kubernetes plugin passes over the same.
XIDS_OF_PROGRAMS: Final = frozenset((13, 31, 43, 45, 68, 109))


class CardError(InternalError):
    """The driver refused: `code` is NVML's, `lost` says that the card is gone, `busy` that it is in use."""

    def __init__(self, message: str, code: int, *, lost: bool = False, busy: bool = False) -> None:
        super().__init__(message)
        self.code, self.lost, self.busy = code, lost, busy


@dataclass(frozen=True, slots=True)
class Card:
    """A whole card. `nvlink` is the lowest index of the cards that NVLink joins it to.

    `mig` is what it can be cut into, with the memory that the driver reports; None where it cannot.
    """

    uuid: str
    index: int
    product: str
    memory_mib: int
    capability: tuple[int, int]
    pci_bus: str
    nvlink: int | None = None
    mig: MigGeometry | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A GPU instance that there is: `id` is the driver's, `uuid` its compute instance's, "" without one."""

    id: int
    instance: MigInstance
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """A process on a card. `sm_percent` is of the whole card, None where the driver does not tell."""

    pid: int
    memory_mib: int
    sm_percent: int | None = None
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A card at one time. Energy is since the driver was loaded; None is what the driver does not tell."""

    utilisation_percent: int | None
    memory_used_mib: int
    energy_mj: int | None
    temperature_c: int
    throttled: tuple[str, ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happened to a card. One that is not `fatal` is told, and the card stays in use."""

    uuid: str
    reason: str
    message: str
    fatal: bool = True
