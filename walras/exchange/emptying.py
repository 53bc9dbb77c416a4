"""Nodes that the runtime empties before their leases end, and the CPU time of those that run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from walras.exchange.holding import Holding


class NodeRuntime(Protocol):
    """What the exchange asks of whatever runs a node's pods."""

    async def stop_node(self, cluster: str, node: str) -> None:
        """End everything that runs there; return when it is gone."""

    def node_cpu_ms(self, cluster: str, node: str) -> int:
        """CPU time that the node's pods have used so far."""

    def node_pids(self, cluster: str, node: str) -> Collection[int]:
        """The processes of the node's pods, as this machine numbers them."""


class Emptying:
    """Leases by id. `wake` is called when a node is empty, or could not be emptied."""

    def __init__(self, runtime: NodeRuntime, wake: Callable[[], None]) -> None:
        self._runtime, self._wake = runtime, wake
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: set[str] = set()
        self._cpu_seen: dict[str, int] = {}

    def __contains__(self, lease: str) -> bool:
        return lease in self._tasks

    def begin(self, holding: Holding) -> None:
        """Have the runtime end what is left on the lease's node, unless that is on its way."""
        if holding.id in self._tasks:
            return

        async def stop() -> None:
            if holding.phase != "Reserved":
                await self._runtime.stop_node(holding.agent, holding.node)

        def stopped(_: asyncio.Task[None]) -> None:
            self._done.add(holding.id)
            self._wake()

        task = asyncio.create_task(stop())
        self._tasks[holding.id] = task
        task.add_done_callback(stopped)

    def done(self) -> Iterator[tuple[str, BaseException | None]]:
        """The leases whose turn it was since this was last asked, each with what went wrong."""
        done, self._done = self._done, set()
        for lease in done:
            task = self._tasks.pop(lease)
            yield lease, None if task.cancelled() else task.exception()

    async def cancel(self) -> None:
        """Wait for nobody any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def cpu_since(self, holding: Holding) -> int:
        """CPU time of the node's pods since this was last asked, in milliseconds."""
        used = self._runtime.node_cpu_ms(holding.agent, holding.node)
        seen = self._cpu_seen.get(holding.id, 0)
        self._cpu_seen[holding.id] = used
        return max(0, used - seen)

    def forget(self, holding: Holding) -> None:
        """Its lease is over."""
        self._cpu_seen.pop(holding.id, None)
