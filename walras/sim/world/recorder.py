"""What is written down while a world runs: who holds how much, the price, what has arrived."""

from __future__ import annotations

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
    _held: dict[str, int] = field(default_factory=dict)
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
        if self._begun != market.leases.begun:
            self._begun, self._held = market.leases.begun, dict(market.leases.held_milli)
        while world.now_ms >= self._next_ms:
            self.samples.append(Sample(self._next_ms, self._held, market.price_micros, market.pool_milli))
            self._next_ms += self.every_ms
