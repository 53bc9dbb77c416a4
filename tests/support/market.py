"""A market to test in: a fleet, agents with clusters of their own, and emulated devices, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from walras.core.clock import SequenceIds, VirtualClock
from walras.exchange import supply
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS, POOLS
from walras.exchange.exchange import Exchange
from walras.exchange.holding import LEASES
from walras.exchange.views import Views
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.record import Object
from walras.kube.serve.ports import Asked
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs
from walras.tenants.controller import Manager
from walras.tenants.events import Recorder


class Idle:
    """Nodes on which nothing runs."""

    async def stop_node(self, cluster: str, node: str) -> None: ...

    def node_cpu_ms(self, cluster: str, node: str) -> int:
        return 0


class World:
    """One emulated device or more under a mechanism, in virtual time."""

    def __init__(
        self, devices: int = 1, path: Path | str = ":memory:", clock: VirtualClock | None = None
    ) -> None:
        self.clock, ids = clock or VirtualClock(), SequenceIds()
        self.store = SqliteStore(path)
        self.api = API(self.store, self.clock, ids)
        self.manager = Manager(self.clock)
        self.exchange = Exchange(
            self.api,
            self.store,
            self.clock,
            ids,
            manager=self.manager,
            recorder=Recorder(self.api, self.clock, self.manager),
            runtime=Idle(),
            supply=supply.detect(f"emulated:{devices}"),
        )
        self.views = Views(self.api, self.exchange, self.store, self.clock, Verbs(self.api))

    async def open(self, mechanism: str = "") -> None:
        if not self.api.has_cluster(FLEET):
            await self.api.create_cluster(FLEET)
        self.manager.start()
        await self.exchange.open()
        if mechanism:
            await self.api.edit(
                FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(mechanism=mechanism)
            )

    async def close(self) -> None:
        """As after a crash: nothing is settled or stored any more."""
        await self.manager.stop()
        self.store.close()

    async def step(self, seconds: int = 0) -> None:
        """Second by second, as the exchange ticks; at least once."""
        for _ in range(max(1, seconds)):
            self.clock.advance(1000 if seconds else 0)
            for _ in range(4):
                await self.manager.settle()
                await self.exchange.step()
                await asyncio.sleep(0)

    async def agent(self, name: str, market: Object | None = None, **budget: Any) -> None:
        await self.api.create_cluster(name)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
        await self.api.create(name, "namespaces", namespace)
        spec = {"budget": {"income": "0/h", "balance": "100", **budget}, "market": market or {}}
        await self.api.create(FLEET, AGENTS, {"metadata": {"name": name}, "spec": spec})
        await self.step()

    async def pod(
        self, agent: str, name: str, milli: int = 1000, spec: Object | None = None, **said: str
    ) -> None:
        """A pod that the agent's scheduler found no node for; `said` are its annotations."""
        waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        limits = {"walras.dev/milligpu": str(milli)}
        annotations = {f"walras.dev/{key.replace('_', '-')}": text for key, text in said.items()}
        await self.api.create(
            agent,
            PODS,
            {
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}], **(spec or {})},
                "status": {"phase": "Pending", "conditions": [waits]},
            },
        )
        await self.step()

    async def ask(
        self, who: str, cluster: str, path: str, body: Object | None = None, /, **query: str
    ) -> Object:
        """What walras/v1/PATH of a cluster answers an agent, or the operator as ""."""

        async def read() -> Object:
            assert body is not None
            return body

        identity = Identity(f"agent:{who}" if who else "operator", (), who)
        method = "GET" if body is None else "POST"
        return await self.views(Asked(identity, cluster, method, path, query, read))

    def bid(self, agent: str, name: str) -> Object:
        return self.api.get(agent, BIDS, "default", name)

    def price(self, agent: str, name: str) -> str:
        return str(self.bid(agent, name)["spec"]["packages"][0]["maxPrice"])

    def reason(self, agent: str, name: str) -> str:
        return str(self.bid(agent, name)["status"]["explanation"]["reason"])

    def leases(self, agent: str) -> list[Object]:
        return self.api.list(agent, LEASES)

    def phases(self, agent: str) -> list[str]:
        return [lease["status"]["phase"] for lease in self.leases(agent)]
