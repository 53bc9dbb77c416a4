"""Which devices are on the market: those without taints in the fleet's ResourceSlices (KEP-5055).

The slices are where it is written down, by the exchange when a device fails and by the operator for whatever
reason: they outlive a restart, and a device returns when its taint goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from walras.core.clock import rfc3339
from walras.exchange.demand import FLEET
from walras.exchange.effects import Effects
from walras.exchange.slices import resource_slices
from walras.exchange.supply import Supply
from walras.kube.api import API, Change
from walras.kube.policy import SLICES
from walras.kube.record import Object
from walras.market.types import Device

# A device that failed: for the operator to look at, and to return.
FAILED: Final = "gpu.walras.dev/failed"
# A device on which something runs that is no lease's: until it is empty.
OCCUPIED: Final = "gpu.walras.dev/occupied"
NO_EXECUTE: Final = "NoExecute"
NO_SCHEDULE: Final = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    effect: str
    value: str = ""


class Health:
    """The taints of the supply's devices, by device. `changed` is called when some changed."""

    def __init__(self, api: API, supply: Supply, changed: Callable[[], None]) -> None:
        self._api, self._supply, self._changed = api, supply, changed
        self._taints: dict[str, tuple[Taint, ...]] = {}
        self._slice_of: dict[str, str] = {}

    def open(self) -> Callable[[], None]:
        """Reads what there is and follows it; returns what ends that."""
        for cluster, found in self._api.everywhere(SLICES):
            self._take_in(cluster, found)
        return self._api.subscribe(SLICES, self._on_slice)

    def _on_slice(self, change: Change) -> None:
        before = dict(self._taints)
        if change.type != "DELETED":
            self._take_in(change.cluster, change.object)
        if self._taints != before:
            self._changed()

    def _take_in(self, cluster: str, found: Object) -> None:
        spec = found["spec"]
        if cluster != FLEET or spec.get("driver") != self._supply.driver:
            return
        for device in spec.get("devices") or ():
            identity = f"{spec.get('nodeName', '')}/{device['name']}"
            self._slice_of[identity] = found["metadata"]["name"]
            taints = tuple(
                Taint(each["key"], each["effect"], each.get("value", ""))
                for each in device.get("taints") or ()
                if each.get("effect") in (NO_SCHEDULE, NO_EXECUTE)
            )
            self._taints.pop(identity, None)
            if taints:
                self._taints[identity] = taints

    def taints(self, device: str) -> tuple[Taint, ...]:
        """Those that keep the device off the market."""
        return self._taints.get(device, ())

    @property
    def all_sold(self) -> bool:
        """Whether no device is off the market."""
        return not self._taints

    def has(self, device: str, key: str, effect: str = "") -> bool:
        """Whether the device has that taint, whatever its effect is where none is named."""
        return any(each.key == key and effect in ("", each.effect) for each in self.taints(device))

    def offered(self) -> tuple[Device, ...]:
        """The devices that are sold."""
        if not self._taints:
            return self._supply.devices
        return tuple(device for device in self._supply.devices if not self.taints(device.id))

    def lost(self) -> Mapping[str, Taint]:
        """The devices whose leases end at once, each with the taint that says so."""
        return {
            device: taint
            for device, taints in self._taints.items()
            for taint in taints
            if taint.effect == NO_EXECUTE
        }

    def taint(self, fx: Effects, device: str, taint: Taint, message: str, now_ms: int) -> None:
        """Stage that a device leaves the market, with an Event that says why."""
        row = {"key": taint.key, "value": taint.value, "effect": taint.effect, "timeAdded": rfc3339(now_ms)}
        if self._edit(fx, device, lambda taints: [*(t for t in taints if t["key"] != taint.key), row]):
            self._tell(fx, device, taint.value or taint.key, message)

    def untaint(self, fx: Effects, device: str, key: str, message: str) -> None:
        """Stage that a device is without a taint again."""
        if self._edit(fx, device, lambda taints: [t for t in taints if t["key"] != key]):
            self._tell(fx, device, "DeviceReturned", message, warn=False)

    def tell(self, fx: Effects, device: str, reason: str, message: str) -> None:
        """Stage an Event about a device that stays as it is."""
        self._tell(fx, device, reason, message)

    def _edit(self, fx: Effects, device: str, change: Callable[[list[Object]], list[Object]]) -> bool:
        name = self._slice_of.get(device)
        if name is None:
            return False
        fx.edit(FLEET, SLICES, "", name, partial(_set_taints, device.rpartition("/")[2], change))
        return True

    def _tell(self, fx: Effects, device: str, reason: str, message: str, *, warn: bool = True) -> None:
        name = self._slice_of.get(device)
        about = self._api.find(FLEET, SLICES, "", name) if name is not None else None
        fx.tell(FLEET, about, reason, f"{device}: {message}", warn=warn)


def _set_taints(name: str, change: Callable[[list[Object]], list[Object]], stored: Object) -> None:
    for device in stored["spec"].get("devices") or ():
        if device["name"] == name:
            device["taints"] = change(device.get("taints") or [])
            if not device["taints"]:
                del device["taints"]


async def publish(api: API, supply: Supply) -> None:
    """The devices as ResourceSlices of the fleet, as they are at this start, with the taints they had.

    Taints are of a card wherever it is found now; another card in its place begins without them.
    Raises StorageError.
    """
    wanted = {each["metadata"]["name"]: each for each in resource_slices(supply)}
    (pool,) = {each["spec"]["pool"]["name"] for each in wanted.values()}
    stored = [
        each
        for each in api.list(FLEET, SLICES)
        if each["metadata"]["name"] in wanted or each["spec"]["pool"]["name"] == pool
    ]
    had = {_uuid(device): device.get("taints") for each in stored for device in _devices(each)}
    for each in wanted.values():
        for device in _devices(each):
            if taints := had.get(_uuid(device)):
                device["taints"] = taints
    tx = api.transaction()
    for each in stored:
        name = each["metadata"]["name"]
        if name in wanted:
            spec = wanted.pop(name)["spec"]
            tx.edit(FLEET, SLICES, "", name, partial(_set_spec, spec))
        else:
            tx.delete(FLEET, SLICES, "", name)
    for each in wanted.values():
        tx.create(FLEET, SLICES, each)
    if not tx.is_empty:
        await tx.commit()


def _set_spec(spec: Object, latest: Object) -> None:
    latest["spec"] = spec


def _devices(found: Object) -> Sequence[Object]:
    devices: Sequence[Object] = found["spec"].get("devices") or ()
    return devices


def _uuid(device: Object) -> str:
    return str((device.get("attributes") or {}).get("uuid", {}).get("string", ""))
