"""An exchange over a real store, in virtual time: a fleet, agents, and pods that no node fits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import InternalError
from walras.cost import usage
from walras.exchange import supply
from walras.exchange.audit import audit
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS
from walras.exchange.exchange import Exchange
from walras.exchange.holding import LEASES
from walras.exchange.nodes import NODES
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.store.sqlite import SqliteStore
from walras.tenants.controller import Manager
from walras.tenants.events import Recorder


@dataclass
class RecordingRuntime:
    """The one fake of the runtime port: notes which nodes were stopped, and says what CPU they used."""

    stopped: list[tuple[str, str]] = field(default_factory=list)
    cpu_ms: int = 0
    pids: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    # Nodes on which something does not die.
    hung: set[tuple[str, str]] = field(default_factory=set)
    # Nodes that take their time, until `freed`.
    slow: set[tuple[str, str]] = field(default_factory=set)
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop_node(self, cluster: str, node: str) -> None:
        self.stopped.append((cluster, node))
        while (cluster, node) in self.slow:
            await self.freed.wait()
        if (cluster, node) in self.hung:
            raise InternalError(f"processes of {node} do not die")

    def node_cpu_ms(self, cluster: str, node: str) -> int:
        return self.cpu_ms

    def node_pids(self, cluster: str, node: str) -> list[int]:
        return self.pids.get((cluster, node), [])


def container(milli: int, **requests: str) -> Object:
    limits = {"walras.dev/milligpu": str(milli)}
    return {"name": "c", "resources": {"limits": limits, "requests": requests}}


class World:
    """A fleet with emulated or other devices and agents in clusters of their own, in virtual time."""

    def __init__(
        self,
        path: Path | str,
        clock: VirtualClock,
        gpus: str = "emulated:1",
        found: supply.Supply | None = None,
        ids: SequenceIds | None = None,
    ) -> None:
        self.clock = clock
        self.ids = ids or SequenceIds()
        self.store = SqliteStore(path)
        self.api = API(self.store, clock, self.ids)
        self.manager = Manager(clock, self.api.rouse)
        self.runtime = RecordingRuntime()
        self.supply = found or supply.detect(gpus)
        self.exchange = Exchange(
            self.api,
            self.store,
            clock,
            self.ids,
            manager=self.manager,
            recorder=Recorder(self.api, clock, self.manager),
            runtime=self.runtime,
            supply=self.supply,
        )

    async def open(self) -> None:
        if not self.api.has_cluster(FLEET):
            await self.api.create_cluster(FLEET)
        self.manager.start()
        await self.exchange.open()
        await self.manager.settle()

    async def close(self) -> None:
        """As after a crash: nothing is settled or stored any more."""
        await self.manager.stop()
        self.store.close()

    async def step(self, ms: int = 0) -> None:
        """Move time and let everything that is due happen, until nothing changes any more."""
        self.clock.advance(ms)
        for _ in range(4):
            await self.manager.settle()
            await self.exchange.step()
            await asyncio.sleep(0)

    async def agent(self, name: str, market: Object | None = None, **budget: Any) -> None:
        await self.api.create_cluster(name)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        await self.api.create(name, "namespaces", namespace)
        await self.api.create(
            FLEET,
            AGENTS,
            {
                "apiVersion": "walras.dev/v1alpha1",
                "kind": "Agent",
                "metadata": {"name": name},
                "spec": {
                    "budget": {"income": "0/h", "balance": "100", **budget},
                    "market": market or {},
                },
            },
        )
        await self.step()

    async def pod(
        self, agent: str, name: str, milli: int, price: str, job_class: str = "standard", **spec: Any
    ) -> None:
        """A pod that the agent's scheduler found no node for."""
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        await self.api.create(
            agent,
            PODS,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": "default",
                    "annotations": {
                        "walras.dev/class": job_class,
                        **({"walras.dev/max-price": price} if price else {}),
                        "walras.dev/term": "60s",
                    },
                },
                "spec": {"containers": [container(milli)], **spec},
                "status": {"phase": "Pending", "conditions": [unschedulable]},
            },
        )

    async def bind(self, agent: str, name: str, node: str) -> None:
        def bound(pod: Object) -> None:
            pod["spec"]["nodeName"] = node
            pod["status"] = {"phase": "Running"}

        await self.api.edit(agent, PODS, "default", name, bound)

    def bid(self, agent: str, name: str) -> Object:
        return self.api.get(agent, BIDS, "default", name)

    def leases(self, agent: str) -> list[Object]:
        return self.api.list(agent, LEASES)

    def nodes(self, agent: str) -> list[Object]:
        return self.api.list(agent, NODES)

    def check_money(self) -> None:
        """The invariants: books balance, journal and accounts agree, cost is what was captured."""
        ledger = self.exchange.treasury.ledger
        assert ledger.balanced()
        found = audit(self.store)
        assert found.fault is None
        assert found.head.seq == ledger.seq
        assert usage.report(self.store, by="pod").total_micros == found.captured_micros


Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, gpus: str = "emulated:1") -> None:
    """Tells a story in a fresh world; its books must balance at the end."""

    async def scene() -> None:
        world = World(":memory:", VirtualClock(), gpus)
        await world.open()
        try:
            await story(world)
            world.check_money()
        finally:
            await world.close()

    asyncio.run(scene())
