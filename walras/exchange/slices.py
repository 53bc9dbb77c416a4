"""The supply as upstream ResourceSlices (resource.k8s.io/v1): devices, and what MIG can make of them.

A device in MIG mode is a partitionable one (KEP-4815): its instances and the whole draw on the same counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from walras.devices.classes import mig_attributes, mig_counters, slice_name
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import MigGeometry
from walras.devices.models import Attributes
from walras.exchange.supply import Supply
from walras.market.types import Device

# As many sets as one slice may list, which then lists no devices.
COUNTER_SETS_MAX: Final = 8


def resource_slices(supply: Supply, node: str = "local") -> list[dict[str, Any]]:
    """The slices of a node's pool, without metadata that the store fills.

    Whole devices are in `NODE-gpus`, the instances that a device could be cut into in `NODE-gpu-N-mig`.
    """
    specs: dict[str, dict[str, Any]] = {
        f"{node}-gpus": {"devices": [_whole(each) for each in supply.devices]}
    }
    cut = [(device, device.mig) for device in supply.devices if device.mig is not None]
    sets = [_counter_set(*each) for each in cut]
    for at in range(0, len(sets), COUNTER_SETS_MAX):
        specs[f"{node}-counters-{at}"] = {"sharedCounters": sets[at : at + COUNTER_SETS_MAX]}
    for device, geometry in cut:
        instances = [_instance(device, geometry, each) for each in _instances(geometry)]
        specs[f"{node}-gpu-{device.index}-mig"] = {"devices": instances}
    pool = {"name": node, "generation": 1, "resourceSliceCount": len(specs)}
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": name},
            "spec": {"driver": supply.driver, "nodeName": node, "pool": pool, **spec},
        }
        for name, spec in specs.items()
    ]


def _whole(device: Device) -> dict[str, Any]:
    shown = _shown(slice_name(device.index), device.attributes, device.memory_mib)
    if device.mig is not None:
        shown["consumesCounters"] = [_consumed(device, _all_counters(device.mig))]
    return shown


def _instances(geometry: MigGeometry) -> Iterator[MigInstance]:
    for profile in geometry.profiles:
        for start in profile.starts:
            yield MigInstance(profile.name, start)


def _instance(device: Device, geometry: MigGeometry, instance: MigInstance) -> dict[str, Any]:
    attributes = mig_attributes(device.attributes, geometry, instance)
    shown = _shown(slice_name(device.index, str(instance)), attributes, geometry[instance.profile].memory_mib)
    shown["consumesCounters"] = [_consumed(device, mig_counters(geometry, instance))]
    return shown


def _shown(name: str, attributes: Attributes, memory_mib: int) -> dict[str, Any]:
    return {
        "name": name,
        "attributes": {key: attribute_of(value) for key, value in attributes.items()},
        "capacity": {"memory": {"value": f"{memory_mib}Mi"}},
    }


def attribute_of(value: object) -> Mapping[str, object]:
    """As a DeviceAttribute; what is neither bool nor int is text."""
    if isinstance(value, bool):
        return {"bool": value}
    return {"int": value} if isinstance(value, int) else {"string": str(value)}


def _all_counters(geometry: MigGeometry) -> Sequence[str]:
    """Everything that the instances of a device draw on."""
    every = (mig_counters(geometry, instance) for instance in _instances(geometry))
    return sorted({counter for counters in every for counter in counters})


def _counter_set(device: Device, geometry: MigGeometry) -> dict[str, Any]:
    return {"name": f"gpu-{device.index}", "counters": _one_of_each(_all_counters(geometry))}


def _consumed(device: Device, counters: Iterable[str]) -> dict[str, Any]:
    return {"counterSet": f"gpu-{device.index}", "counters": _one_of_each(counters)}


def _one_of_each(counters: Iterable[str]) -> dict[str, Any]:
    return {name: {"value": "1"} for name in counters}
