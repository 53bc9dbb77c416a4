"""What goes wrong in a run: nodes that fail and return, providers that vanish, clocks that jump, rogues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from walras.market.types import Device
from walras.sim.world.rogue import Rogue
from walras.sim.world.world import World

ROGUE: Final = "rogue"
Kind = Literal["node", "provider", "clock", "rogue"]


@dataclass(frozen=True, slots=True)
class Fault:
    """node: it fails for `for_ms`. provider: it vanishes with all its nodes, for good. clock: the market's
    jumps by `for_ms`, forward or back. rogue: it does what it should not."""

    at_ms: int
    kind: Kind
    name: str = ""
    for_ms: int = 0


class Faults:
    """Makes them happen in a world. `told` has a word about each as it happens."""

    def __init__(
        self, world: World, faults: tuple[Fault, ...], chance: Random, *, price_max_micros: int
    ) -> None:
        self._world = world
        self._all = world.market.devices
        self._down: dict[str, int] = {}
        self._agent = Rogue(ROGUE, chance, world, price_max_micros)
        self.told: Callable[[str], None] = lambda _: None
        for fault in faults:
            world.at(fault.at_ms, getattr(self, f"_{fault.kind}"), fault)

    def _node(self, fault: Fault) -> None:
        self._world.at(self._world.now_ms + fault.for_ms, self._return, fault)
        self._change(fault.name, 1, f"{fault.name} fails for {fault.for_ms} ms")

    def _return(self, fault: Fault) -> None:
        self._change(fault.name, -1, f"{fault.name} returns")

    def _provider(self, fault: Fault) -> None:
        for node in sorted({device.node for device in self._all if provider_of(device) == fault.name}):
            self._change(node, 1, f"{fault.name} vanishes with {node}")

    def _clock(self, fault: Fault) -> None:
        self._world.skew_ms += fault.for_ms
        self._tell(f"clock jumps by {fault.for_ms} ms")

    def _rogue(self, _: Fault) -> None:
        deed = self._agent.act(self._world.now_ms)
        self.told(f"{self._world.now_ms:>9} rogue    {deed}")

    def _change(self, node: str, by: int, what: str) -> None:
        self._down[node] = self._down.get(node, 0) + by
        there = tuple(device for device in self._all if self._down.get(device.node, 0) <= 0)
        self._tell(what)
        self._world.set_devices(there)

    def _tell(self, what: str) -> None:
        self._world.auditor.excuse()
        self.told(f"{self._world.now_ms:>9} fault    {what}")


def provider_of(device: Device) -> str:
    """Two providers have the nodes of a pool, one each."""
    return f"provider{int(device.node[-1]) % 2}"
