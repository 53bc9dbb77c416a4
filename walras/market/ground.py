"""A pool's devices as packages look at them: what would do, where it lies, how fast it is, how it is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from walras.devices.placement import Shape
from walras.devices.topology import Affinity
from walras.market.types import Device, Package

SPEED_UNIT = 1000


@dataclass(frozen=True, slots=True)
class Ask:
    """What a package asks for: how much of each device that would do, and of how many, lying how.

    `profile` is the MIG profile that it wants an instance of on each, "" for a plain share.
    """

    needs: Mapping[str, Shape]
    devices: int
    fewest: int
    affinity: Affinity = Affinity.ANY
    profile: str = ""


class Ground:
    """Facts about devices, by id."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self.devices = {device.id: device for device in devices}
        self.capacity = {
            device.id: Shape(device.milli, device.memory_mib) for device in self.devices.values()
        }
        self.places = {device.id: device.place for device in self.devices.values()}

    def ask(self, package: Package) -> Ask:
        """Where the package would fit if all devices were empty."""
        needs = {}
        for device_id, device in self.devices.items():
            if package.eligible is None or device_id in package.eligible:
                need = need_on(package, device)
                if need is not None and need.fits(self.capacity[device_id]):
                    needs[device_id] = need
        return Ask(needs, package.devices, package.fewest, package.affinity, package.mig_profile)

    def holds(self, ask: Ask) -> bool:
        """Whether the empty pool could hold it."""
        return any(len(group) >= ask.fewest > 0 for group in self.groups(ask))

    def groups(self, ask: Ask) -> list[list[str]]:
        """Sets of devices of which one has to hold the whole gang; with spread one a node counts."""
        if ask.affinity is Affinity.ANY:
            return [list(ask.needs)]
        if ask.affinity is Affinity.SPREAD:
            by_node = {self.places[device].node: device for device in ask.needs}
            return [list(by_node.values())]
        found: dict[tuple[str, str], list[str]] = {}
        for device in ask.needs:
            place = self.places[device]
            # Without NVLink a device is connected to itself alone.
            linked = (place.nvlink, "" if place.nvlink else device)
            domain = (place.node, "") if ask.affinity is Affinity.NODE else linked
            found.setdefault(domain, []).append(device)
        return list(found.values())

    def speed(self, device: str) -> int:
        """Work per time, in thousandths; a device that is gone counts as the unit."""
        found = self.devices.get(device)
        return found.speed_milli if found else SPEED_UNIT


def need_on(package: Package, device: Device) -> Shape | None:
    """The share of a device that a package asks for; without a memory size the share's part of it. None where
    the device cannot be cut so."""
    if package.mig_profile:
        if device.mig is None or package.mig_profile not in device.mig:
            return None
        return Shape(package.milli_gpu, device.mig[package.mig_profile].memory_mib)
    memory = package.memory_mib or device.memory_mib * package.milli_gpu // max(1, device.milli)
    return Shape(package.milli_gpu, memory)


def at_speed(price_micros: int, speed_milli: int) -> int:
    """What a device of that speed costs where one of speed 1000 costs so much, rounded down."""
    return price_micros * speed_milli // SPEED_UNIT
