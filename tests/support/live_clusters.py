"""Agents' control planes and the market together, in virtual time: from pods to bids, leases and nodes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.exchange import RecordingRuntime
from walras.core.clock import SequenceIds, VirtualClock, parse_rfc3339
from walras.core.errors import Conflict, NotFound
from walras.exchange import supply
from walras.exchange.demand import AGENTS, FLEET, PODS
from walras.exchange.exchange import Exchange
from walras.exchange.health import publish
from walras.exchange.holding import LEASES
from walras.exchange.nodes import NODES
from walras.kube import defaults, preparing
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.store.sqlite import SqliteStore
from walras.tenants.planes import ControlPlanes


class Clusters:
    """One server on some data. Its kubelet starts pods and lets them go, and runs nothing."""

    def __init__(self, path: Path, clock: VirtualClock, ids: SequenceIds, gpus: str) -> None:
        self.clock, self.store = clock, SqliteStore(path)
        self.api = API(self.store, clock, ids)
        self.planes = ControlPlanes(
            self.api, clock, ids, endpoint="https://127.0.0.1:6443", ca_pem="-----BEGIN CERTIFICATE-----\n"
        )
        self.supply = supply.detect(gpus)
        self.exchange = Exchange(
            self.api,
            self.store,
            clock,
            ids,
            manager=self.planes.manager,
            recorder=self.planes.recorder,
            runtime=RecordingRuntime(),
            supply=self.supply,
        )

    async def open(self) -> None:
        await self.planes.start()
        await publish(self.api, self.supply)
        await self.exchange.prepare()
        await self.exchange.open()
        await self.planes.settle()

    async def close(self) -> None:
        """As after a crash."""
        await self.exchange._emptying.cancel()
        await self.planes.stop()
        self.store.close()

    async def step(self, ms: int) -> None:
        """Time goes by, and what is due happens."""
        self.clock.advance(ms)
        for _ in range(3):
            await self.planes.settle()
            await self.exchange.step()
            await self._kubelet()
            await self.planes.settle()
            await asyncio.sleep(0)
        assert not self.planes.manager.failures

    async def agent(self, name: str) -> None:
        budget = {"income": "2/h", "balance": "5", "walletCap": "9"}
        await self.create(FLEET, AGENTS, {"metadata": {"name": name}, "spec": {"budget": budget}})
        await self.planes.settle()

    async def create(self, cluster: str, resource: str, obj: Object) -> None:
        """As a client's request would: with defaults, in the namespace "default"."""
        kind = self.api.registry(cluster)[resource]
        if kind.namespaced:
            obj["metadata"].setdefault("namespace", "default")

        def finish(fresh: Object) -> None:
            defaults.apply(kind, fresh)
            preparing.prepare(kind, fresh)

        transaction = self.api.transaction()
        transaction.create(cluster, resource, obj, finish)
        await transaction.commit()

    def agents(self) -> list[str]:
        return [name for name in self.api.clusters() if name != FLEET]

    def nodes(self, agent: str) -> list[Object]:
        """Those of leases."""
        return [each for each in self.api.list(agent, NODES) if each["metadata"]["name"] != "base"]

    def leases(self, agent: str) -> list[Object]:
        return self.api.list(agent, LEASES)

    async def _kubelet(self) -> None:
        for agent in self.agents():
            nodes = {each["metadata"]["name"] for each in self.api.list(agent, NODES)}
            for pod in list(self.api.list(agent, PODS)):
                if pod["spec"].get("nodeName"):
                    await self._keep(agent, pod, there=pod["spec"]["nodeName"] in nodes)

    async def _keep(self, agent: str, pod: Object, *, there: bool) -> None:
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        ends = metadata.get("deletionTimestamp")
        try:
            if ends and (parse_rfc3339(ends) <= self.clock.now_ms() or not there):
                await self.api.delete(agent, PODS, namespace, name, grace_seconds=0)
            elif pod["status"].get("phase") == "Pending":
                await self.api.edit(agent, PODS, namespace, name, _runs)
        except (Conflict, NotFound):
            return


def _runs(pod: Object) -> None:
    pod["status"]["phase"] = "Running"
