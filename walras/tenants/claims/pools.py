"""Devices as ResourceSlices publish them, by pool, and which of them a node can use. Pure.

As the pools of k8s.io/dynamic-resource-allocation/structured: of each pool its newest generation, and only
once all its slices are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from walras.core.quantity import exact
from walras.tenants.fit import Node, term_matches

Raw = Mapping[str, Any]
Counter = tuple[str, str]
"""A counter set's name and a counter's in it."""


class DeviceId(NamedTuple):
    driver: str
    pool: str
    name: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.pool}/{self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """A device that a node can use. `raw` is it as its slice says; with a `place` it is not on one node."""

    id: DeviceId
    raw: Raw
    # Of which nodes, where not of the node that it was looked up for alone: a NodeSelector, or {} for all.
    place: Raw | None

    @property
    def shared(self) -> bool:
        """Whether several claims may have a part of it each."""
        return bool(self.raw.get("allowMultipleAllocations"))

    def attribute(self, name: str) -> tuple[str, Any] | None:
        """Type and value of an attribute by its full name; the driver's own may lack their domain."""
        attributes: Mapping[str, Raw] = self.raw.get("attributes") or {}
        found = attributes.get(name)
        if found is None and name.startswith(f"{self.id.driver}/"):
            found = attributes.get(name.partition("/")[2])
        if not found:
            return None
        ((kind, value),) = list(found.items())[:1]
        return kind, tuple(value) if isinstance(value, list) else value


@dataclass(slots=True)
class Pool:
    """A driver's pool. `devices` are those of the node it was looked up for."""

    driver: str
    name: str
    devices: tuple[Device, ...] = ()
    counters: Mapping[Counter, Fraction] = field(default_factory=dict)
    # What each device of the pool, on whatever node, takes of the counters.
    draws: Mapping[str, Mapping[Counter, Fraction]] = field(default_factory=dict)
    # Why nothing of it can be had; "" where it can.
    fault: str = ""


class Pools:
    """The pools of all slices, looked up by node; what it returns is not to be changed."""

    def __init__(self, slices: Iterable[Raw]) -> None:
        """Slices that cannot be read are as if they were not there."""
        by_pool: dict[tuple[str, str], list[Raw]] = {}
        for each in slices:
            spec = each.get("spec") or {}
            name = (spec.get("pool") or {}).get("name")
            if spec.get("driver") and name:
                by_pool.setdefault((spec["driver"], name), []).append(each)
        self._by_node: dict[str, list[_Source]] = {}
        self._everywhere: list[_Source] = []
        self._own: dict[str, list[Pool]] = {}
        for (driver, name), found in sorted(by_pool.items()):
            source = _Source(driver, name, _newest(found))
            nodes = {each["spec"].get("nodeName") for each in source.slices if _has_devices(each)}
            if None in nodes or "" in nodes:
                self._everywhere.append(source)
                continue
            for node in nodes:
                self._by_node.setdefault(node, []).append(source)

    def on(self, node: Node) -> list[Pool]:
        """The pools with devices that the node can use, in order of driver and name."""
        own = self._own.get(node.name)
        if own is None:
            # What names the node itself is the node's, whatever its labels are.
            own = self._own[node.name] = _used(self._by_node.get(node.name, ()), node)
        if not self._everywhere:
            return own
        found = [*own, *_used(self._everywhere, node)]
        return sorted(found, key=lambda pool: (pool.driver, pool.name))


@dataclass(slots=True)
class _Source:
    driver: str
    name: str
    slices: Sequence[Raw]

    def on(self, node: Node) -> Pool:
        devices: list[Device] = []
        for each in self.slices:
            spec = each["spec"]
            per_device = bool(spec.get("perDeviceNodeSelection"))
            if not per_device and not _covers(spec, node):
                continue
            for raw in spec.get("devices") or ():
                if per_device and not _covers(raw, node):
                    continue
                devices.append(Device(DeviceId(self.driver, self.name, raw["name"]), raw,
                                      _place(raw if per_device else spec)))  # fmt: skip
        pool = Pool(self.driver, self.name, tuple(devices))
        if devices:
            pool.fault = self._fault()
            if not pool.fault:
                pool.counters, pool.draws = self._counters(), self._draws()
        return pool

    def _fault(self) -> str:
        if len(self.slices) != self.slices[0]["spec"]["pool"].get("resourceSliceCount"):
            return "is currently being updated"
        names = [raw["name"] for each in self.slices for raw in each["spec"].get("devices") or ()]
        return "is currently invalid" if len(names) != len(set(names)) else ""

    def _counters(self) -> dict[Counter, Fraction]:
        return {
            (each["name"], counter): exact(str(amount["value"]))
            for one in self.slices
            for each in one["spec"].get("sharedCounters") or ()
            for counter, amount in (each.get("counters") or {}).items()
        }

    def _draws(self) -> dict[str, dict[Counter, Fraction]]:
        return {
            raw["name"]: {
                (each["counterSet"], counter): exact(str(amount["value"]))
                for each in raw["consumesCounters"]
                for counter, amount in (each.get("counters") or {}).items()
            }
            for one in self.slices
            for raw in one["spec"].get("devices") or ()
            if raw.get("consumesCounters")
        }


def _used(sources: Iterable[_Source], node: Node) -> list[Pool]:
    found = (source.on(node) for source in sources)
    return [pool for pool in found if pool.devices or pool.fault]


def _newest(slices: Sequence[Raw]) -> list[Raw]:
    def generation(each: Raw) -> int:
        return int(each["spec"]["pool"].get("generation") or 0)

    newest = max(map(generation, slices))
    kept = [each for each in slices if generation(each) == newest]
    return sorted(kept, key=lambda each: str(each["metadata"].get("name", "")))


def _has_devices(each: Raw) -> bool:
    return bool(each["spec"].get("devices"))


def _covers(place: Raw, node: Node) -> bool:
    if place.get("nodeName"):
        return bool(place["nodeName"] == node.name)
    return bool(place.get("allNodes")) or (
        place.get("nodeSelector") is not None and in_selector(place["nodeSelector"], node)
    )


def _place(place: Raw) -> Raw | None:
    return None if place.get("nodeName") else place.get("nodeSelector") or {}


def in_selector(selector: Raw, node: Node) -> bool:
    """Whether a NodeSelector selects the node."""
    return any(term_matches(term, node) for term in selector.get("nodeSelectorTerms") or ())
