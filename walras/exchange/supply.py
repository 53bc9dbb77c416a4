"""Where devices come from: NVIDIA cards, emulated ones where there is none, or simulated cards."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.classes import SHARING, SLOWEST_MILLI, SPEED_UNIT, gpu_attributes, speed_milli
from walras.devices.mig_profiles import geometry_of
from walras.devices.models import DOMAIN, EMULATED, MODELS, Model, find_model, model_of
from walras.devices.topology import Place
from walras.market.types import Device, Share
from walras.runtimes.gpus import machine, simulator
from walras.runtimes.gpus.cards import Card
from walras.runtimes.gpus.machine import Machine
from walras.runtimes.gpus.simulated_cards import SimulatedCards

EMULATED_MAX: Final = 64
# Of the machine's cores, what is kept for the server and its clients beside emulated devices.
HEADROOM_PERCENT: Final = 20
# Attributes of emulated devices stand in the vendor's domain too, so that a selector works on both.
ATTRIBUTE_DOMAIN: Final = DOMAIN
EMULATED_DRIVER: Final = "emulated.walras.dev"
EMULATED_TYPE: Final = "emulated"
SIMULATED_DRIVER: Final = "simulated.walras.dev"
_PREFIXES: Final = ("emulated:", "simulated:")
_PCI: Final = Path("/sys/bus/pci/devices")
_GROUP = re.compile(r"(\d{1,3})(?::([A-Za-z0-9][A-Za-z0-9_.-]{0,31}))?")


@dataclass(frozen=True, slots=True)
class Supply:
    """The devices of this machine, how their shares are enforced, and the host's part behind each.

    `machine` is the port to the cards, None where there are none behind the devices.
    """

    devices: tuple[Device, ...]
    enforcement: str
    # What of the host's CPU and memory goes with one whole device.
    cpu_milli_per_device: int
    memory_mib_per_device: int
    notes: tuple[str, ...] = field(default=())
    machine: Machine | None = None

    @property
    def emulated(self) -> bool:
        return self.enforcement == "emulated"

    @property
    def driver(self) -> str:
        """Who a ResourceSlice says the devices come from: never a vendor where there is no card."""
        if self.machine is not None and self.machine.simulated:
            return SIMULATED_DRIVER
        return EMULATED_DRIVER if self.emulated else ATTRIBUTE_DOMAIN

    def has(self, shares: Sequence[Share], uuids: Sequence[str]) -> bool:
        """Whether these devices are there and can be divided so, as they were when the shares were sold.

        `uuids` are of the cards that the shares were of; empty where nobody noted them.
        """
        by_id = {device.id: device for device in self.devices}
        if not all(share.device in by_id and _is_of(share, by_id[share.device]) for share in shares):
            return False
        return not uuids or [_uuid(by_id[share.device]) for share in shares] == list(uuids)

    def uuids(self, shares: Sequence[Share]) -> tuple[str, ...]:
        """Those of the devices of shares, all of which are there."""
        by_id = {device.id: device for device in self.devices}
        return tuple(_uuid(by_id[share.device]) for share in shares)

    def enforcement_of(self, shares: Sequence[Share]) -> str:
        """How a lease of these shares is kept to them."""
        if self.emulated:
            return self.enforcement
        if any(share.mig for share in shares):
            return "mig"
        whole = all(share.milli == WHOLE_GPU_MILLI for share in shares)
        return "exclusive" if whole else self.enforcement


def _uuid(device: Device) -> str:
    return str(device.attributes["uuid"])


def _is_of(share: Share, device: Device) -> bool:
    if share.mig is None:
        return share.memory_mib <= device.memory_mib
    if device.mig is None or share.mig.profile not in device.mig:
        return False
    profile = device.mig[share.mig.profile]
    return share.mig.start in profile.starts and share.memory_mib <= profile.memory_mib


def detect(gpus: str, node: str = "local", data: Path | None = None, *, by_mps: bool = True) -> Supply:
    """The supply that `--gpus auto|emulated:N[:MODEL],...|simulated:N:MODEL,...` asks for. Raises Invalid.

    `data` is the server's folder, where simulated cards are kept; else they begin anew. Without `by_mps`
    parts of cards are time slices.
    """
    if gpus == "auto":
        found = machine.here(data or Path(tempfile.gettempdir()), by_mps=by_mps)
        if found is None:
            return _emulated(
                [(2, MODELS[EMULATED])], node, "no NVIDIA device answers through NVML; 2 are emulated"
            )
        return of_machine(found, node)
    groups = _groups(gpus)
    count = sum(each for each, _ in groups)
    if not all(each for each, _ in groups) or count > EMULATED_MAX:
        raise Invalid(f"--gpus {gpus}: between 1 and {EMULATED_MAX} devices can be emulated or simulated")
    if gpus.startswith("simulated:"):
        return _simulated(gpus, groups, node, data, by_mps=by_mps)
    return _emulated(groups, node, f"{count} emulated as asked")


def _simulated(
    gpus: str, groups: Sequence[tuple[int, Model]], node: str, data: Path | None, *, by_mps: bool
) -> Supply:
    if any(model.name == EMULATED or model.name not in MODELS for _, model in groups):
        raise Invalid(f"--gpus {gpus}: cards are simulated by model, such as simulated:2:H100,1:A30")
    models = tuple(model.name for count, model in groups for _ in range(count))
    folder = data / "simulated-gpus" if data is not None else None
    cards = SimulatedCards(models, lambda: time.monotonic_ns() // 1_000_000, folder)
    simulator.install(cards)
    found = of_machine(machine.simulated(data or Path(tempfile.mkdtemp()), by_mps=by_mps), node)
    return replace(found, notes=("the GPUs are a simulator's: nothing computes on them", *found.notes))


def of_machine(found: Machine, node: str = "local") -> Supply:
    """The cards of a machine on offer."""
    devices = tuple(_device(card, node, found) for card in found.cards.values())
    notes = {
        "mps": "fractions of a device are kept apart by MPS: a crash of one program can end its neighbours'",
        "timeslice": "fractions of a device are time slices: its memory is not isolated between them",
    }
    return replace(_supply(devices, str(found.shares_by), notes[found.shares_by]), machine=found)


def _device(card: Card, node: str, found: Machine) -> Device:
    model, speed = model_of(card.product, card.memory_mib), speed_of(card.product)
    place = Place(node, f"{node}/{card.nvlink}" if card.nvlink is not None else "", _numa(card.pci_bus))
    attributes = dict(gpu_attributes(model, card.uuid, card.index, place, speed=speed))
    if found.simulated:
        attributes["productName"], attributes["simulated"] = f"Simulated {model.product_name}", True
    attributes["cudaComputeCapability"] = ".".join(map(str, (*card.capability, 0)))
    attributes |= {"migCapable": card.mig is not None, SHARING: str(found.shares_by)}
    attributes |= {"driverVersion": found.driver_version, "cudaDriverVersion": found.cuda_version}
    return Device(
        id=f"{node}/gpu-{card.index}",
        node=node,
        model=model.name,
        index=card.index,
        memory_mib=card.memory_mib,
        attributes=attributes,
        speed_milli=speed,
        mig=card.mig,
    )


def speed_of(product: str) -> int:
    """A card's speed by its name; drivers report a few MiB more or less, which makes it no slower."""
    try:
        return speed_milli(find_model(product).name)
    except Invalid:
        return SLOWEST_MILLI


def _numa(pci_bus: str) -> int:
    """The NUMA node that the kernel says a card is on; 0 where it does not say."""
    try:
        return max(0, int((_PCI / pci_bus / "numa_node").read_text()))
    except (OSError, ValueError):
        return 0


def _groups(gpus: str) -> list[tuple[int, Model]]:
    matches = [_GROUP.fullmatch(text) for text in gpus.partition(":")[2].split(",")]
    groups = [(int(match[1]), _model(match[2])) for match in matches if match]
    if not gpus.startswith(_PREFIXES) or len(groups) < len(matches):
        raise Invalid(
            f'--gpus "{gpus[:128]}" is neither "auto" nor "emulated:N[:MODEL]", such as emulated:4:A100 or '
            'emulated:2:H100,2:A100, nor "simulated:N:MODEL"'
        )
    return groups


def _model(name: str | None) -> Model:
    """A model that is known, or one of that name like the one without a name."""
    plain = MODELS[EMULATED]
    if not name:
        return plain
    try:
        return find_model(name)
    except Invalid:
        return Model(name, name, plain.architecture, plain.compute_capability, plain.memory_mib, plain.brand)


def _emulated(groups: Sequence[tuple[int, Model]], node: str, why: str) -> Supply:
    devices: list[Device] = []
    for group, (count, model) in enumerate(groups):
        # So that what asks for NVLink can be tried: the devices of a group are together.
        place = Place(node, f"{node}/{group}")
        devices += [_emulated_device(model, place, len(devices) + at) for at in range(count)]
    note = f"GPUs are emulated by CPU shares ({why}); no figure of theirs is a GPU's"
    return _supply(tuple(devices), EMULATED_TYPE, note)


def _emulated_device(model: Model, place: Place, index: int) -> Device:
    speed = speed_milli(model.name) if model.name in MODELS else SPEED_UNIT
    uuid = f"{EMULATED_TYPE}-{place.node}-{index}"
    attributes = gpu_attributes(model, uuid, index, place, speed=speed, emulated=True)
    return Device(
        id=f"{place.node}/gpu-{index}",
        node=place.node,
        model=model.name,
        index=index,
        memory_mib=model.memory_mib,
        attributes={**attributes, "type": EMULATED_TYPE},
        speed_milli=speed,
        mig=geometry_of(model.name),
    )


def _supply(devices: tuple[Device, ...], enforcement: str, note: str) -> Supply:
    """Devices that share the machine's cores and memory equally."""
    cores_milli = len(os.sched_getaffinity(0)) * 1000
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return Supply(
        devices,
        enforcement,
        cpu_milli_per_device=max(50, cores_milli * (100 - HEADROOM_PERCENT) // 100 // len(devices)),
        memory_mib_per_device=max(64, memory_mib * 3 // 4 // len(devices)),
        notes=(note,),
    )
