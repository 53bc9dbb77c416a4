"""Cards watched while they are on the market: read every second, their errors heard, their daemons tended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from walras.core.clock import Clock
from walras.exchange.gpumeter import GpuMeter, Occupant, overdrawn
from walras.runtimes.gpus.cards import CardError, Fault, Reading, Use
from walras.runtimes.gpus.machine import Machine
from walras.runtimes.gpus.nvml_events import Events

PERIOD_S: Final = 1.0
WAIT_MS: Final = 500
LOST: Final = "DeviceLost"
THROTTLED: Final = "Throttled"
# What is seen so often in a row on a card without leases is no program on its way out.
STRANGER_READINGS: Final = 2
# So often in a row a lease may be seen with more memory than its part.
OVER_READINGS: Final = 2

_log = structlog.get_logger("walras.exchange")


class Watch:
    """`occupants` tells who is on a card. What is found is kept until it is taken; `wake` tells of it."""

    def __init__(
        self,
        machine: Machine,
        clock: Clock,
        occupants: Callable[[str], Sequence[Occupant]],
        wake: Callable[[], None],
    ) -> None:
        self._machine, self._clock, self._occupants, self._wake = machine, clock, occupants, wake
        self.meter = GpuMeter()
        self.readings: dict[str, Reading] = {}
        self._events = Events(tuple(machine.cards))
        self._faults: list[Fault] = []
        self._strange: dict[str, int] = {}
        self._over: dict[tuple[str, str], int] = {}
        self._greedy: list[tuple[Occupant, tuple[Use, ...]]] = []
        self._hot: set[str] = set()
        self._lost: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._look_on()), asyncio.create_task(self._listen())]

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A thread may still wait for events.
        await asyncio.to_thread(self._events.close)

    def faults(self) -> list[Fault]:
        """What happened since this was last asked."""
        faults, self._faults = self._faults, []
        return faults

    def greedy(self) -> list[tuple[Occupant, tuple[Use, ...]]]:
        """Who kept more memory than its part since this was last asked, with the processes that have it."""
        greedy, self._greedy = self._greedy, []
        return greedy

    def occupied(self) -> frozenset[str]:
        """Cards on which something runs though they have no lease."""
        return frozenset(uuid for uuid, times in self._strange.items() if times >= STRANGER_READINGS)

    def empty(self) -> frozenset[str]:
        """Cards on which nothing ran when they were last read."""
        return frozenset(uuid for uuid, reading in self.readings.items() if not reading.uses)

    async def look(self) -> None:
        """Reads every card once. Raises nothing: a card that cannot be read is a fault."""
        now_ms = self._clock.now_ms()
        before = (self.occupied(), self.empty())
        found, lost, tended = await asyncio.to_thread(self._read, now_ms)
        self._faults += [*tended, *(fault for fault in lost if fault.uuid not in self._lost)]
        self._lost = {fault.uuid for fault in lost}
        self.readings = dict(found)
        for uuid, reading in found.items():
            self._take_in(uuid, reading, now_ms)
        if self._faults or self._greedy or (self.occupied(), self.empty()) != before:
            self._wake()

    def _read(self, now_ms: int) -> tuple[Mapping[str, Reading], list[Fault], Sequence[Fault]]:
        found, lost = {}, []
        for uuid in self._machine.cards:
            try:
                found[uuid] = self._machine.read(uuid)
            except CardError as error:
                if error.lost:
                    lost.append(Fault(uuid, LOST, f"the driver says that the card is lost: {error.message}"))
                else:
                    _log.warning("a card cannot be read", card=uuid, error=error.message)
        return found, lost, self._machine.tend(now_ms)

    def _take_in(self, uuid: str, reading: Reading, now_ms: int) -> None:
        there = self._occupants(uuid)
        self.meter.read(uuid, reading, there, now_ms)
        over = {(who.lease, who.device): (who, uses) for who, uses in overdrawn(reading, there)}
        for who in there:
            key = (who.lease, who.device)
            self._over[key] = self._over.get(key, 0) + 1 if key in over else 0
            if self._over[key] >= OVER_READINGS:
                self._greedy.append(over[key])
            if not self._over[key]:
                del self._over[key]
        self._strange[uuid] = self._strange.get(uuid, 0) + 1 if reading.uses and not there else 0
        hot = any("thermal" in each for each in reading.throttled)
        if hot and uuid not in self._hot:
            message = f"slowed down at {reading.temperature_c} degrees: {', '.join(reading.throttled)}"
            self._faults.append(Fault(uuid, THROTTLED, message, fatal=False))
        (self._hot.add if hot else self._hot.discard)(uuid)

    async def _look_on(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def hear(self, timeout_ms: int = WAIT_MS) -> None:
        """Waits so long for an event. Raises CardError where the driver has none, or a card is lost."""
        if found := await asyncio.to_thread(self._events.wait, timeout_ms):
            self._faults += found
            self._wake()

    async def _listen(self) -> None:
        while True:
            try:
                await self.hear()
            except CardError:
                # Which card is lost it does not say; readings do.
                self._events.close()
                await asyncio.sleep(PERIOD_S)
