"""One side: a server, its agents and their work, the arrivals played, the figures read."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from demo import machine, manifests
from demo.calibrate import Speed
from demo.kube import Cluster, Object, Refused
from demo.load import Arrival
from demo.measure import Audit, Figures, Meters, figures
from demo.searching import BURST, DEPLOYMENTS, KEEP, Query, Searcher
from demo.server import Server
from demo.setup import AGENTS, BATCH_AGENT, BUDGETS, SEARCH_AGENTS, TRAIN_AGENTS, Setup
from demo.setup import BURST as BURST_WORTH
from demo.setup import KEEP as KEEP_WORTH
from demo.working import JOBS, Worker, embedded, progress

FLEET_AGENTS = "apis/walras.dev/v1alpha1/agents"
CONFIG_MAPS = "api/v1/namespaces/default/configmaps"
CLAIMS = "api/v1/namespaces/default/persistentvolumeclaims"
READY_S = 90.0
QUIET_S = 20.0
_SHOW_S = 1.0


class NotReady(Exception):
    """The side did not come up in time; the message says what was missing."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all sides have in common."""

    arrivals: Sequence[Arrival]
    questions: Sequence[str]
    indexes: Mapping[str, bytes]
    documents: str
    speed: Speed
    seconds: float
    cpu_per_device: float


@dataclass(frozen=True, slots=True)
class Glance:
    """A side while it runs, for the live table."""

    title: str
    at_s: float
    seconds: float
    pool: Mapping[str, Any]
    agents: Sequence[Mapping[str, Any]]
    searchers: Sequence[Searcher]
    leased_milli: Mapping[str, int]


Show = Callable[[Glance], None]


class Side:
    """Runs one set-up on a fresh server."""

    def __init__(self, setup: Setup, server: Server, work: Work, show: Show) -> None:
        self._setup, self._server, self._work, self._show = setup, server, work, show
        self._fleet = Cluster(server.kubeconfig.read_text())
        self._clusters: dict[str, Cluster] = {}
        self._searchers: dict[str, Searcher] = {}
        self._background: list[asyncio.Task[None]] = []

    async def run(self) -> Figures:
        """Set up, warm up, play the arrivals, and read the meters. Raises NotReady, Refused."""
        try:
            await self._fleet.merge("apis/walras.dev/v1alpha1/pools/default", {"spec": self._setup.pool})
            await asyncio.gather(*(self._enter(agent) for agent in AGENTS))
            await self._warm_up()
            return await self._measure()
        finally:
            await self._close()

    async def _enter(self, agent: str) -> None:
        """Create the agent, and apply with its own credentials what it needs."""
        await self._fleet.apply(
            FLEET_AGENTS,
            {
                "apiVersion": "walras.dev/v1alpha1",
                "kind": "Agent",
                "metadata": {"name": agent},
                "spec": {"budget": BUDGETS[agent]},
            },
        )
        cluster = self._clusters[agent] = Cluster(await self._kubeconfig(agent))
        await cluster.apply(CONFIG_MAPS, manifests.programs())
        setup, work = self._setup, self._work
        if agent in work.indexes:
            corpus = manifests.config_map("corpus", {}, {"index.npz": work.indexes[agent]})
            await cluster.apply(CONFIG_MAPS, corpus)
            await cluster.apply(DEPLOYMENTS, manifests.search(KEEP, 1, setup.keep, KEEP_WORTH))
            await cluster.apply(DEPLOYMENTS, manifests.search(BURST, 0, setup.burst, BURST_WORTH))
            query_device_s = work.speed.query_cpu_s / work.cpu_per_device
            self._searchers[agent] = Searcher(agent, cluster, setup, query_device_s)
            self._searchers[agent].start()
        else:
            corpus = manifests.config_map("corpus", {"documents.json": work.documents})
            await cluster.apply(CONFIG_MAPS, corpus)
            await cluster.apply(CLAIMS, manifests.claim())

    async def _kubeconfig(self, agent: str) -> str:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                secret = await self._fleet.get(f"api/v1/namespaces/walras-system/secrets/agent-{agent}")
                return base64.b64decode(secret["data"]["kubeconfig"]).decode()
            except Refused as error:
                if error.status != 404 or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.05)

    async def _warm_up(self) -> None:
        deadline = time.monotonic() + READY_S
        while not all(searcher.ready for searcher in self._searchers.values()):
            if time.monotonic() > deadline:
                missing = [name for name, each in self._searchers.items() if not each.ready]
                raise NotReady(f"no search pod of {', '.join(missing)} was ready in {READY_S:.0f} s")
            await asyncio.sleep(0.1)

    async def _measure(self) -> Figures:
        before, begin, work = await self._meters(), time.monotonic(), self._work
        for agent in (*TRAIN_AGENTS, BATCH_AGENT):
            worker = Worker(
                agent, self._clusters[agent], self._setup, work.speed, work.cpu_per_device, self._server.data
            )
            self._background.append(asyncio.create_task(worker.run()))
        for searcher in self._searchers.values():
            searcher.scale()
        self._background.append(asyncio.create_task(self._glances(begin)))
        await self._play(begin)
        await asyncio.sleep(max(0.0, begin + work.seconds - time.monotonic()))
        now = time.monotonic()
        answered = [ms for each in self._searchers.values() for ms in each.latencies_ms]
        waited = [ms for each in self._searchers.values() for ms in each.give_up(now)]
        after = await self._meters()
        await self._quiet_down()
        return figures(
            before, after, answered + waited, len(waited), now - begin, len(self._server.devices),
            work.cpu_per_device, await self._audit(),
        )  # fmt: skip

    async def _play(self, begin: float) -> None:
        for arrival in self._work.arrivals:
            delay = begin + arrival.at_s - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            query = Query(begin + arrival.at_s, self._work.questions[arrival.question])
            self._searchers[arrival.agent].submit(query)

    async def _glances(self, begin: float) -> None:
        while True:
            (prices, agents, leases) = await asyncio.gather(
                self._fleet.get("walras/v1/prices"),
                self._fleet.get(FLEET_AGENTS),
                asyncio.gather(*(self._leased(agent) for agent in AGENTS)),
            )
            self._show(
                Glance(
                    self._setup.title,
                    time.monotonic() - begin,
                    self._work.seconds,
                    prices["pools"][0],
                    agents["items"],
                    list(self._searchers.values()),
                    dict(zip(AGENTS, leases, strict=True)),
                )
            )
            await asyncio.sleep(_SHOW_S)

    async def _leased(self, agent: str) -> int:
        """Thousandths of devices that an agent holds."""
        leases = await self._clusters[agent].get("apis/walras.dev/v1alpha1/gpuleases")
        return sum(
            int(device["milliGPU"])
            for lease in leases["items"]
            if lease.get("status", {}).get("phase") in ("Active", "Draining")
            for device in lease["spec"]["devices"]
        )

    # Meters

    async def _meters(self) -> Meters:
        cost = await self._fleet.get("walras/v1/cost", by="agent")
        prices = await self._fleet.get("walras/v1/prices")
        trained = [progress(self._server.data, agent) for agent in TRAIN_AGENTS]
        return Meters(
            gpu_seconds=sum(row["gpuSeconds"] for row in cost["rows"]),
            cpu_seconds=sum(row["cpuSeconds"] for row in cost["rows"]),
            tokens=sum(tokens for tokens, _ in trained),
            loss=sum(loss for _, loss in trained) / len(trained),
            documents=embedded(self._server.data),
            displacements=prices["pools"][0]["displacements"],
            busy_s=machine.busy_s(self._server.cores),
            own_s=machine.own_s(self._server.pid, self._server.cores),
            spent_micros={row["agent"]: row["chargedMicros"] for row in cost["rows"]},
        )

    async def _quiet_down(self) -> None:
        """Delete all work and wait until the last lease is settled, so that reports can be compared."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for agent, cluster in self._clusters.items():
            if agent in SEARCH_AGENTS:
                await self._searchers[agent].stop()
                await cluster.delete(f"{DEPLOYMENTS}/{KEEP}")
                await cluster.delete(f"{DEPLOYMENTS}/{BURST}")
                continue
            for each in (await cluster.get(JOBS))["items"]:
                await cluster.delete(f"{JOBS}/{each['metadata']['name']}")
        deadline = time.monotonic() + QUIET_S
        while time.monotonic() < deadline:
            if not any([await self._leased(agent) for agent in AGENTS]):
                return
            await asyncio.sleep(0.25)

    async def _audit(self) -> Audit:
        ledger: Object = await self._fleet.get("walras/v1/ledger")
        costs = {}
        for by in ("agent", "workload", "pod", "device", "lease"):
            rows = (await self._fleet.get("walras/v1/cost", by=by))["rows"]
            costs[by] = sum(int(row["chargedMicros"]) for row in rows)
        return Audit(
            ledger_micros=_micros(ledger["captured"]),
            meters_micros=_micros(ledger["metered"]),
            cost_micros=costs,
            books_balance=bool(ledger["balanced"]),
        )

    async def _close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for searcher in self._searchers.values():
            await searcher.stop()
        for cluster in (self._fleet, *self._clusters.values()):
            await cluster.close()


def _micros(credits: str) -> int:
    return int(Decimal(credits) * 1_000_000)
