"""The containers of a pod together: which start after which, run beside which, end after which."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from walras.runtimes.backoff import Restart
from walras.runtimes.base import KILLED
from walras.runtimes.container import ContainerLoop
from walras.runtimes.records import record_of, records
from walras.runtimes.volumes import Volume
from walras.runtimes.waiting import Grace, cancelled, first

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = dict[str, Any]


class Containers:
    """Init containers, main ones, and ephemeral ones as they come; they run once there are volumes."""

    def __init__(self, worker: PodWorker, pod: Object) -> None:
        self._worker = worker
        self.inits, self.mains, self.extras = records(pod)
        self._volumes: Mapping[str, Volume] | None = None
        # Sidecars and ephemeral containers, which run until the main ones are over.
        self._beside: list[asyncio.Task[bool]] = []

    async def run(self, volumes: Mapping[str, Volume]) -> None:
        """Returns when the last attempt of each is over."""
        self._volumes = volumes
        self.add_ephemeral()
        try:
            if await self._initialised(volumes):
                for record in self.mains:
                    record.initialised()
                containers = zip(self._worker.pod["spec"]["containers"], self.mains, strict=True)
                await _in_order([ContainerLoop(self._worker, *each, volumes) for each in containers])
            if self._beside:
                self._worker.stop("finished", self._worker.grace_s())
            await asyncio.gather(*self._beside)
        finally:
            await cancelled(*self._beside)

    async def _initialised(self, volumes: Mapping[str, Volume]) -> bool:
        """Whether the main containers may start: init containers are done, sidecars have started."""
        containers = self._worker.pod["spec"].get("initContainers") or ()
        for container, record in zip(containers, self.inits, strict=True):
            if record.sidecar:
                loop = ContainerLoop(self._worker, container, record, volumes)
                task = asyncio.ensure_future(loop.run())
                self._beside.append(task)
                if not await first(loop.started.wait(), asyncio.shield(task)):
                    return False
            elif record.ended is not None and record.exit_code == 0:
                continue
            elif not await ContainerLoop(self._worker, container, record, volumes).run():
                return False
        return not self._worker.stopping

    def add_ephemeral(self) -> None:
        """Starts ephemeral containers that are new."""
        if self._volumes is None or self._worker.stopping:
            return
        known = {record.name for record in self.extras}
        for container in self._worker.pod["spec"].get("ephemeralContainers") or ():
            if container["name"] not in known:
                record = record_of(self._worker.pod, container)
                record.restart = Restart("Never")
                self.extras.append(record)
                loop = ContainerLoop(self._worker, container, record, self._volumes)
                self._beside.append(asyncio.ensure_future(loop.run()))

    def killed(self) -> bool:
        """Ends the records of what runs by them alone: it was killed, with an earlier server or just now."""
        found = [each for each in (*self.inits, *self.mains, *self.extras) if each.running]
        for record in found:
            record.end(KILLED, self._worker.services.clock.now_ms())
        return bool(found)

    def end(self, grace: Grace) -> None:
        """Has every one that runs end in its turn: sidecars after those that follow them."""
        running = self._worker.running
        order = {record.name: place for place, record in enumerate(self.inits)}
        last = len(order)
        for name, each in list(running.items()):
            place = order.get(name, last)
            after = [later for other, later in running.items() if place < order.get(other, last)]
            each.end(f"Stopping container {name}", grace, after)


async def _in_order(loops: list[ContainerLoop]) -> None:
    """Runs them side by side, each begun when the one before has been tried."""
    tasks: list[asyncio.Task[bool]] = []
    try:
        for loop in loops:
            tasks.append(asyncio.ensure_future(loop.run()))
            await loop.tried.wait()
        await asyncio.gather(*tasks)
    finally:
        await cancelled(*tasks)
