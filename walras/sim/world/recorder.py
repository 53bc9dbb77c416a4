"""What is written down while a world runs: who holds how much, the price, what has arrived."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from walras.sim.world.world import World


@dataclass(slots=True)
class Sample:
    """One moment: milli-GPU under lease by agent, the price, the milli-GPU there are."""

    at_ms: int
    held: dict[str, int]
    price_micros: int
    pool_milli: int


@dataclass(slots=True)
class Recorder:
    """`note` after every event; sums up to the end of the arrivals are exact, samples are for plots."""

    world: World
    every_ms: int
    samples: list[Sample] = field(default_factory=list)
    leased_milli_ms: dict[str, int] = field(default_factory=dict)
    offered_milli_ms: int = 0
    taken_milli_ms: Counter[str] = field(default_factory=Counter)  # by model, where devices are unlike
    offered_of_milli_ms: Counter[str] = field(default_factory=Counter)  # the same, what there was of it
    _held: dict[str, int] = field(default_factory=dict)
    _taken: Counter[str] = field(default_factory=Counter)
    _begun: int = -1
    _at_ms: int = 0
    _next_ms: int = 0

    def note(self) -> None:
        """Take note of the time since the last event, and of what is so now."""
        world, market = self.world, self.world.market
        now_ms = min(world.now_ms, world.workload.span_ms)
        elapsed_ms, self._at_ms = now_ms - self._at_ms, now_ms
        if elapsed_ms:
            self.offered_milli_ms += elapsed_ms * market.pool_milli
            for name, milli in self._held.items():
                self.leased_milli_ms[name] = self.leased_milli_ms.get(name, 0) + milli * elapsed_ms
            if not world.fleet.alike:
                self._note_models(elapsed_ms)
        if self._begun != market.leases.begun:
            self._begun, self._held = market.leases.begun, dict(market.leases.held_milli)
            if not world.fleet.alike:
                self._taken = world.fleet.by_model(market.leases.taken_milli())
        while world.now_ms >= self._next_ms:
            self.samples.append(Sample(self._next_ms, self._held, market.price_micros, market.pool_milli))
            self._next_ms += self.every_ms

    def _note_models(self, elapsed_ms: int) -> None:
        for model, milli in self._taken.items():
            self.taken_milli_ms[model] += milli * elapsed_ms
        for device in self.world.market.devices:
            self.offered_of_milli_ms[device.model] += device.milli * elapsed_ms
