"""Pods by limits and by claims in agents' clusters, whatever befalls them: no share is given twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.live_clusters import Clusters
from support.promises import Promises

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import AlreadyExists, NotFound
from walras.core.quantity import parse_quantity
from walras.exchange.audit import audit
from walras.exchange.demand import BIDS, FLEET, PODS
from walras.kube.policy import SLICES
from walras.kube.record import Object
from walras.tenants.claims.pod import CLAIM_TEMPLATES, RESOURCE_CLAIMS, is_allocated
from walras.tenants.claims.result import results_of

AGENTS = ("a", "b")
MILLI = "walras.dev/milligpu"
Event = tuple[Any, ...]


def story(seed: int) -> list[Event]:
    rng = Random(seed)
    kinds = ("step", "limits", "template", "shared", "ended", "delete", "taint", "unclaim", "crash")

    def event() -> Event:
        agent, name = rng.choice(AGENTS), f"p{rng.randrange(6)}"
        how = rng.choice(("0.30", "0.90", "2.00", "7.50")), rng.choice(("latency", "standard", "batch"))
        (kind,) = rng.choices(kinds, (45, 15, 14, 10, 8, 8, 4, 2, 2))
        match kind:
            case "step":
                return kind, rng.choice((0, 500, 1000, 1000, 3000, 19_000))
            case "limits" | "template":
                return kind, agent, name, *how, rng.choice((100, 250, 400, 500, 1000))
            case "shared":
                return kind, agent, name, *how, rng.choice(("s0", "s1"))
            case "delete":
                return kind, agent, name, rng.choice((0, 5))
            case "taint":
                return kind, rng.randrange(3), rng.choice(("", "", "NoSchedule", "NoExecute"))
            case "unclaim":
                return kind, agent, rng.choice(("s0", "s1"))
            case "crash":
                return (kind,)
        return kind, agent, name

    return [event() for _ in range(rng.randint(20, 60))]


def a_claim(milli: int) -> Object:
    capacity = {"requests": {"milliGPU": str(milli), "memory": "2Gi"}}
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1}
    return {"devices": {"requests": [{"name": "gpu", "exactly": {**exactly, "capacity": capacity}}]}}


def a_pod(name: str, price: str, job_class: str, *, milli: int = 0, **claim: str) -> Object:
    limits = {MILLI: str(milli)}
    resources: Object = {"limits": limits, "requests": limits} if milli else {"claims": [{"name": "gpu"}]}
    claims = [{"name": "gpu", **claim}] if claim else []
    said = {"walras.dev/class": job_class, "walras.dev/max-price": price, "walras.dev/term": "20s"}
    return {
        "metadata": {"name": name, "annotations": said},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "none", "resources": resources}],
            "resourceClaims": claims,
        },
    }


class Teller:
    """One server after the other on the same data."""

    def __init__(self, path: Path) -> None:
        self._path, self._clock, self._ids = path, VirtualClock(), SequenceIds()
        self._promises = Promises()

    async def open(self) -> None:
        self.world = Clusters(self._path, self._clock, self._ids, "emulated:2:H100,1:A100")
        await self.world.open()

    async def begin(self) -> None:
        await self.open()
        for agent in AGENTS:
            await self.world.agent(agent)
            for name, milli in (("s0", 250), ("s1", 600)):
                await self._claim(agent, name, milli)
        await self.world.step(1000)

    async def tell(self, what: str, *how: Any) -> None:
        world = self.world
        match what, how:
            case "step", (ms,):
                await world.step(ms)
            case "limits", (agent, name, price, job_class, milli):
                await world.create(agent, PODS, a_pod(name, price, job_class, milli=milli))
            case "template", (agent, name, price, job_class, milli):
                made = f"t{milli}"
                if world.api.find(agent, CLAIM_TEMPLATES, "default", made) is None:
                    spec = {"metadata": {"name": made}, "spec": {"spec": a_claim(milli)}}
                    await world.create(agent, CLAIM_TEMPLATES, spec)
                pod = a_pod(name, price, job_class, resourceClaimTemplateName=made)
                await world.create(agent, PODS, pod)
            case "shared", (agent, name, price, job_class, claim):
                await world.create(agent, PODS, a_pod(name, price, job_class, resourceClaimName=claim))
            case "ended", (agent, name):
                await world.api.edit(agent, PODS, "default", name, _ended)
            case "delete", (agent, name, grace_seconds):
                await world.api.delete(agent, PODS, "default", name, grace_seconds=grace_seconds)
            case "taint", (at, effect):
                await world.api.edit(FLEET, SLICES, "", "local-gpus", lambda found: _taint(found, at, effect))
            case "unclaim", (agent, name):
                await world.api.delete(agent, RESOURCE_CLAIMS, "default", name)
                await world.planes.settle()
                await self._claim(agent, name, 250)
            case "crash", ():
                await world.close()
                await self.open()
        await self.world.planes.settle()

    async def _claim(self, agent: str, name: str, milli: int) -> None:
        await self.world.create(agent, RESOURCE_CLAIMS, {"metadata": {"name": name}, "spec": a_claim(milli)})

    def check(self) -> None:
        """No share serves limits and a claim at once."""
        world = self.world
        for holding in world.exchange.holdings.values():
            given = sum(
                parse_quantity(pod["spec"]["containers"][0]["resources"].get("limits", {}).get(MILLI, "0"))
                for pod in world.api.list(holding.agent, PODS)
                if pod["spec"].get("nodeName") == holding.node and pod["status"].get("phase") != "Succeeded"
            )
            given += sum(
                parse_quantity(result["consumedCapacity"]["milliGPU"])
                for claim in world.api.list(holding.agent, RESOURCE_CLAIMS)
                for result in results_of(claim)
                if result["pool"] == holding.node
            )
            assert given <= holding.milli

    async def leave(self) -> None:
        """In the end nobody wants anything, and nothing is held: everybody can have a device again."""
        world = self.world
        for at in range(3):
            await self.tell("taint", at, "")
        for agent in AGENTS:
            for pod in list(world.api.list(agent, PODS)):
                await self.tell("delete", agent, pod["metadata"]["name"], 0)
        for _ in range(8):
            await world.step(5000)
        self._promises.check(world)
        assert not world.exchange.holdings
        for agent in AGENTS:
            assert not world.api.list(agent, BIDS)
            assert not any(map(is_allocated, world.api.list(agent, RESOURCE_CLAIMS)))
            await self.tell("limits", agent, "last", "9.00", "standard", 1000)
        for _ in range(4):
            await world.step(1000)
        for agent in AGENTS:
            assert world.api.get(agent, PODS, "default", "last")["spec"].get("nodeName")
        assert audit(world.store).fault is None


def _ended(pod: Object) -> None:
    if pod["spec"].get("nodeName"):
        pod["status"]["phase"] = "Succeeded"


def _taint(found: Object, at: int, effect: str) -> None:
    device = found["spec"]["devices"][at]
    device.pop("taints", None)
    if effect:
        device["taints"] = [{"key": "example.com/service", "effect": effect}]


async def told(path: Path, events: Sequence[Event]) -> None:
    teller = Teller(path)
    await teller.begin()
    try:
        for event in events:
            try:
                await teller.tell(*event)
            except (AlreadyExists, NotFound):
                continue
            teller.check()
            if event[0] in ("step", "crash"):
                teller._promises.check(teller.world)
        await teller.leave()
    finally:
        await teller.world.close()


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_whatever_pods_ask_for_no_share_is_given_twice_and_all_of_it_comes_back(
    first: int, tmp_path: Path
) -> None:
    for seed in range(first, first + 5):
        asyncio.run(told(tmp_path / f"{seed}.db", story(seed)))
