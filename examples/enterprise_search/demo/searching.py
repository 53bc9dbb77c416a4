"""One search agent: its queue of queries, its pods that are ready, and how many there should be."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from demo.kube import Cluster, Object, Refused
from demo.manifests import PORT
from demo.setup import Setup

PODS = "api/v1/namespaces/default/pods"
DEPLOYMENTS = "apis/apps/v1/namespaces/default/deployments"
KEEP = "search"
BURST = "search-burst"
_PROBE_S = 0.15
_SCALE_S = 0.25
_RATE_S = 1.5
# Scale out when a new query would wait longer; aim to work off what waits within the time after.
_WAIT_MAX_S = 0.7
_WORK_OFF_S = 2.0
_SCALE_IN_AFTER_S = 1.0
_LOAD_MAX = 0.85


@dataclass(slots=True)
class Query:
    """A question and when it arrived, in seconds of the monotonic clock."""

    arrived: float
    text: str


def wanted(load: float, waiting: float, ready: float, keep: float, piece: float, most: int, now: int) -> int:
    """How many extra pods of `piece` devices an agent wants, where it asked for `now` before.

    load: devices that the arrivals of now keep busy; waiting: device-seconds of queued work; ready and keep:
    devices that serve now and always. Only queries that wait make it more; a high rate alone keeps it.
    """
    missing = load / _LOAD_MAX + waiting / _WORK_OFF_S - keep
    found = max(0, min(most, math.ceil(missing / piece)))
    late = waiting > _WAIT_MAX_S * max(ready, piece / 2)
    return found if late else min(found, now)


class Searcher:
    """Routes queries to ready pods, the largest first, one at a time a pod."""

    def __init__(self, agent: str, cluster: Cluster, setup: Setup, query_device_s: float) -> None:
        self.agent, self.cluster, self._setup, self._query_device_s = agent, cluster, setup, query_device_s
        self.latencies_ms: list[float] = []
        self.retries = 0
        self._queue: deque[Query] = deque()
        self._asking: dict[int, Query] = {}
        self._recent: deque[float] = deque()
        self._starting: set[str] = set()
        self._ready: dict[str, int] = {}
        self._idle: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.extra = 0
        self._less_since: float | None = None

    @property
    def ready(self) -> int:
        return len(self._ready)

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._asking)

    def start(self) -> None:
        self._spawn(self._follow_pods())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def scale(self) -> None:
        """From now on ask for more pods in bursts."""
        self._spawn(self._autoscale())

    def submit(self, query: Query) -> None:
        self._queue.append(query)
        self._recent.append(query.arrived)
        self._dispatch()

    def give_up(self, now: float) -> list[float]:
        """Forget what is unanswered; the milliseconds that each query has waited."""
        left = [*self._queue, *self._asking.values()]
        self._queue.clear()
        self._asking.clear()
        return [(now - query.arrived) * 1000 for query in left]

    # Queries

    def _dispatch(self) -> None:
        while self._queue and self._idle:
            pod = max(self._idle, key=lambda name: (self._ready[name], name))
            self._idle.discard(pod)
            self._spawn(self._ask(pod, self._queue.popleft()))

    async def _ask(self, pod: str, query: Query) -> None:
        self._asking[id(query)] = query
        try:
            await self.cluster.get(f"{PODS}/{pod}:{PORT}/proxy/search", q=query.text)
        except (Refused, httpx.HTTPError):
            # The pod is going: another one answers.
            self._lost(pod)
            if self._asking.pop(id(query), None):
                self.retries += 1
                self._queue.appendleft(query)
        else:
            if self._asking.pop(id(query), None):
                self.latencies_ms.append((time.monotonic() - query.arrived) * 1000)
            if pod in self._ready:
                self._idle.add(pod)
        self._dispatch()

    # Pods

    async def _follow_pods(self) -> None:
        while True:
            try:
                async for kind, pod in self.cluster.watch(PODS, labelSelector="app=search"):
                    self._on_pod(kind, pod)
            except (Refused, httpx.HTTPError):
                await asyncio.sleep(_PROBE_S)

    def _on_pod(self, kind: str, pod: Object) -> None:
        metadata = pod["metadata"]
        name = metadata["name"]
        running = pod.get("status", {}).get("phase") == "Running" and not metadata.get("deletionTimestamp")
        if kind == "DELETED" or not running:
            self._lost(name)
            self._starting.discard(name)
        elif name not in self._ready and name not in self._starting:
            burst = metadata["labels"]["deployment"] == BURST
            self._starting.add(name)
            share = self._setup.burst if burst else self._setup.keep
            self._spawn(self._await_ready(name, share.milli))

    def _lost(self, name: str) -> None:
        self._ready.pop(name, None)
        self._idle.discard(name)

    async def _await_ready(self, name: str, milli: int) -> None:
        while name in self._starting:
            try:
                await self.cluster.get(f"{PODS}/{name}:{PORT}/proxy/healthz")
            except (Refused, httpx.HTTPError):
                await asyncio.sleep(_PROBE_S)
                continue
            if name in self._starting:
                self._starting.discard(name)
                self._ready[name] = milli
                self._idle.add(name)
                self._dispatch()

    # How many

    async def _autoscale(self) -> None:
        while True:
            await asyncio.sleep(_SCALE_S)
            now = time.monotonic()
            target = self._target(now)
            if target >= self.extra:
                self._less_since = None
            elif self._less_since is None:
                self._less_since = now
            if target > self.extra or (self._less_since and now - self._less_since >= _SCALE_IN_AFTER_S):
                self._less_since = None
                with suppress(Refused, httpx.HTTPError):
                    await self.cluster.merge(f"{DEPLOYMENTS}/{BURST}", {"spec": {"replicas": target}})
                    self.extra = target

    def _target(self, now: float) -> int:
        while self._recent and self._recent[0] < now - _RATE_S:
            self._recent.popleft()
        setup = self._setup
        return wanted(
            load=len(self._recent) / _RATE_S * self._query_device_s,
            waiting=self.waiting * self._query_device_s,
            ready=sum(self._ready.values()) / 1000,
            keep=setup.keep.milli / 1000,
            piece=setup.burst.milli / 1000,
            most=setup.bursts_max,
            now=self.extra,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
