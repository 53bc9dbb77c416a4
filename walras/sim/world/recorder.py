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
    _at_ms: int = 0
    _next_ms: int = 0

    def note(self) -> None:
        """Take note of the time since the last event, and of what is so now."""
        world = self.world
        now_ms = min(world.now_ms, world.workload.span_ms)
        elapsed_ms, self._at_ms = now_ms - self._at_ms, now_ms
        if elapsed_ms:
            self.offered_milli_ms += elapsed_ms * sum(device.milli for device in world.market.devices)
            for name, milli in self._held.items():
                self.leased_milli_ms[name] = self.leased_milli_ms.get(name, 0) + milli * elapsed_ms
        self._held = {}
        for holding in world.market.leases:
            lease = holding.lease
            if lease.state != "reserved":
                self._held[lease.agent] = self._held.get(lease.agent, 0) + lease.total_milli
        while world.now_ms >= self._next_ms:
            pool = sum(device.milli for device in world.market.devices)
            self.samples.append(Sample(self._next_ms, self._held, world.market.price_micros, pool))
            self._next_ms += self.every_ms
