"""Pods on a node, with a runtime that runs nothing and an API that is real."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.api import API
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.kubelet import Kubelet

Object = dict[str, Any]
ACME = "acme"


@dataclass
class Timers:
    """Sleeps that end when they are told to."""

    waiting: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((seconds, future))
        await future

    def pending(self) -> list[float]:
        return [seconds for seconds, future in self.waiting if not future.done()]

    def fire(self, seconds: float | None = None) -> None:
        """Ends the sleeps of so many seconds, or all of them."""
        for length, future in self.waiting:
            if not future.done() and seconds in (None, length):
                future.set_result(None)
        self.waiting = [(length, future) for length, future in self.waiting if not future.done()]


@dataclass
class Events:
    said: list[tuple[str, str, str]] = field(default_factory=list)

    def of(self, reason: str) -> list[str]:
        return [message for _, found, message in self.said if found == reason]

    def event(
        self, cluster: str, about: Object, type_: str, reason: str, message: str, *, component: str = ""
    ) -> None:
        self.said.append((type_, reason, message))


@dataclass
class World:
    api: API
    runtime: FakeRuntime
    kubelet: Kubelet
    timers: Timers
    events: Events
    clock: VirtualClock

    async def pod(self, name: str, **spec: Any) -> None:
        container = {"name": "main", "image": "img", "command": ["run"], **spec.pop("container", {})}
        spec = {"nodeName": "base", "restartPolicy": "Never", "containers": [container], **spec}
        metadata = {"name": name, "namespace": "default"}
        await self.api.create(ACME, "pods", {"metadata": metadata, "spec": spec})

    def status(self, name: str) -> Object:
        return dict(self.api.get(ACME, "pods", "default", name).get("status") or {})

    def container(self, name: str) -> Object:
        statuses = self.status(name).get("containerStatuses") or [{}]
        return dict(statuses[0])

    async def until(self, true: Callable[[], Any]) -> None:
        """Lets everything run until it is true, at most some thousand turns of the loop."""
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110  anything may make it true
                await asyncio.sleep(0)

    def condition(self, name: str, kind: str) -> str:
        conditions = self.status(name).get("conditions") or ()
        return next((str(each["status"]) for each in conditions if each["type"] == kind), "")

    async def passes(self, seconds: float) -> None:
        """Ends a sleep of so many seconds that somebody is in, or comes to be in."""
        await self.until(lambda: seconds in self.timers.pending())
        self.timers.fire(seconds)

    async def phase(self, name: str, phase: str) -> None:
        await self.until(lambda: self.status(name).get("phase") == phase)

    def gone(self, name: str) -> bool:
        return self.api.find(ACME, "pods", "default", name) is None

    async def started(self, count: int) -> None:
        await self.until(lambda: len(self.runtime.processes) == count)


def in_world(
    tmp_path: Path, story: Callable[[World], Awaitable[None]], runtime: FakeRuntime | None = None
) -> None:
    async def run() -> None:
        clock, timers, events = VirtualClock(), Timers(), Events()
        api = API(SqliteStore(MEMORY), clock, SequenceIds())
        await api.create_cluster(ACME)
        status = {"capacity": {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "1Gi", "pods": "110"}}
        await api.create(ACME, "nodes", {"metadata": {"name": "base"}, "status": status})
        fake = runtime or FakeRuntime()
        kubelet = Kubelet(api, fake, clock, events, tmp_path, sleep=timers.sleep)
        await kubelet.start()
        try:
            await story(World(api, fake, kubelet, timers, events, clock))
        finally:
            await kubelet.stop(0)
            api.store.close()

    asyncio.run(run())
