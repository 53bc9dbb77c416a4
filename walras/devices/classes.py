"""Device classes: which devices count as alike, how fast each is, and their attributes as in DRA."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from walras.core.errors import Invalid
from walras.devices.mig import MigInstance, state_of
from walras.devices.mig_profiles import MigGeometry, geometry_of
from walras.devices.models import MODELS, Attributes, Model
from walras.devices.topology import Place

SPEED_UNIT: Final = 1000  # of the H100 SXM
SPEED_MAX: Final = 1_000_000
# The attribute of a card that says what keeps parts of it apart.
SHARING: Final = "sharing"

# Defaults that a pool may override. How fast a device is depends on the work: each value lies about between
# its ratios to the H100 SXM in dense 16-bit tensor throughput and in memory bandwidth (NVIDIA's data sheets),
# where compute-bound and memory-bound work end up. An emulated device is compared with nothing.
SPEED_MILLI: Final[Mapping[str, int]] = {
    "emulated": 1000,
    "B200": 2200,
    "H200": 1150,
    "GH200": 1050,
    "H100": 1000,
    "H100-NVL": 950,
    "H100-PCIe": 700,
    "H20": 400,
    "A100": 500,
    "A100-PCIe": 480,
    "A100-40GB": 430,
    "A40": 180,
    "A30": 220,
    "A10": 150,
    "A10G": 130,
    "L40S": 320,
    "L40": 220,
    "L4": 120,
    "T4": 80,
    "V100": 250,
    "V100-32GB": 250,
    "P100": 100,
    "RTX6000Ada": 330,
    "RTXA6000": 190,
    "RTX5090": 400,
    "RTX4090": 250,
    "RTX4080": 160,
    "RTX3090": 150,
    "RTX3080": 130,
    "RTX3060": 60,
}
SLOWEST_MILLI: Final = min(SPEED_MILLI.values())


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Devices that a bid may name together. `speed_milli` is work per time, 1000 for an H100 SXM."""

    name: str
    models: frozenset[str]
    speed_milli: int

    def has(self, model: str) -> bool:
        return model in self.models

    def work_milli(self, milli: int) -> int:
        """What a share of one of its devices does, in milli of an H100 SXM, rounded down."""
        return milli * self.speed_milli // SPEED_UNIT

    def share_for(self, work_milli: int) -> int:
        """The share that does at least that work, in milli-GPU: above 1000 when one device is not enough."""
        return -(-work_milli * SPEED_UNIT // self.speed_milli)


def speed_milli(model: str, overrides: Mapping[str, int] | None = None) -> int:
    """How fast a model is: the pool's own figure, else the default, else that of the slowest known.

    Raises Invalid for a figure of the pool that is not between 1 and SPEED_MAX.
    """
    speed = (overrides or {}).get(model, SPEED_MILLI.get(model, SLOWEST_MILLI))
    if not 1 <= speed <= SPEED_MAX:
        raise Invalid(f"the speed of {model} must be between 1 and {SPEED_MAX} milli, not {speed}")
    return speed


def device_classes(
    models: Mapping[str, str] | None = None, overrides: Mapping[str, int] | None = None
) -> Mapping[str, DeviceClass]:
    """Classes by name. `models` maps models to the class they are in; without it each is its own.

    A class is as fast as its slowest model, so that nobody gets less than was sold.
    """
    groups: dict[str, set[str]] = {}
    for model in models if models is not None else MODELS:
        groups.setdefault(models[model] if models is not None else model, set()).add(model)
    return {
        name: DeviceClass(name, frozenset(members), min(speed_milli(each, overrides) for each in members))
        for name, members in groups.items()
    }


def gpu_attributes(
    model: Model, uuid: str, index: int, place: Place, *, speed: int | None = None, emulated: bool = False
) -> Attributes:
    """DRA attributes of a whole device: those of NVIDIA's driver, and what Walras adds for selectors."""
    return {
        **model.attributes(uuid, index, emulated=emulated),
        "migCapable": geometry_of(model.name) is not None,
        "numaNode": place.numa,
        "nvlinkDomain": place.nvlink,
        "speedMilli": speed_milli(model.name) if speed is None else speed,
    }


def place_of(node: str, attributes: Attributes) -> Place:
    """Where a device is, by its attributes; one that does not tell is in no NVLink domain and NUMA node 0."""
    numa = attributes.get("numaNode", 0)
    return Place(node, str(attributes.get("nvlinkDomain", "")), numa if isinstance(numa, int) else 0)


def mig_attributes(parent: Attributes, geometry: MigGeometry, instance: MigInstance) -> Attributes:
    """DRA attributes of an instance on a device: type mig, profile, place, parent, part of the memory."""
    profile = geometry[instance.profile]
    return {
        **parent,
        "type": "mig",
        "profile": profile.name,
        "placement": str(instance),
        "parentUUID": parent["uuid"],
        "uuid": f"{parent['uuid']}/{instance}",
        "memoryMiB": profile.memory_mib,
        "milliGPU": geometry.sold_milli(profile.name),
    }


def slice_name(index: int, instance: str = "") -> str:
    """What ResourceSlices call a device, or an instance on it that is written as in `1g.10gb@4`."""
    profile, _, start = instance.partition("@")
    words = profile.replace(".", "").replace("+", "-")
    return f"gpu-{index}-mig-{words}-{start}" if profile else f"gpu-{index}"


def slice_names(parts: Iterable[tuple[int, str]]) -> list[str]:
    """As `slice_name`, of the parts of one lease in order; further parts of one device are numbered."""
    seen: Counter[str] = Counter()
    names = []
    for index, instance in parts:
        name = slice_name(index, instance)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-part-{seen[name]}")
    return names


def mig_counters(geometry: MigGeometry, instance: MigInstance) -> Mapping[str, int]:
    """What an instance consumes of its device's shared counters, one of each (KEP-4815).

    Raises Invalid where the profile cannot start.
    """
    state = state_of(geometry, (instance,))
    slices = [f"memory-slice-{at}" for at in range(geometry.memory_slices) if state >> at & 1]
    media = ["media-extensions"] if geometry[instance.profile].media else []
    return dict.fromkeys([*slices, *media], 1)
