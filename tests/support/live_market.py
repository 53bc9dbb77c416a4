"""What befalls a live exchange, told to one server after the other on the same data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from support.exchange import World
from support.market_events import NAMES, Event
from support.promises import Promises
from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import AlreadyExists, Conflict, Invalid, NotFound, ServiceUnavailable, StorageError
from walras.exchange.auctioneer import decide
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS, POOLS
from walras.exchange.health import publish
from walras.exchange.holding import LEASES
from walras.kube.policy import SLICES
from walras.kube.record import Key, Object


class Teller:
    """One server after the other on the same data, with the same clock."""

    def __init__(self, path: Path, gpus: str) -> None:
        self._path, self._gpus = path, gpus
        self._clock, self._ids = VirtualClock(), SequenceIds()
        self._held_up: set[tuple[str, str]] = set()
        self._promises = Promises()
        self.steps = 0

    async def open(self) -> None:
        self.world = World(self._path, self._clock, self._gpus, ids=self._ids)
        self.world.runtime.slow = self._held_up
        world = self.world
        if not world.api.has_cluster(FLEET):
            await world.api.create_cluster(FLEET)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
            await world.api.create(FLEET, "namespaces", namespace)
        await publish(world.api, world.supply)
        await world.exchange.prepare()
        await world.open()

    async def close(self) -> None:
        """As after a crash: what was not stored is gone."""
        await self.world.exchange._emptying.cancel()
        await self.world.close()

    async def tell(self, what: str, *how: Any) -> None:
        """One event, and what it leads to by itself; the market's turn is an event of its own."""
        match what, how:
            case "step", (ms,):
                self._clock.advance(ms)
                await self.step()
            case "back", (ms,):
                # Somebody sets the machine's clock.
                self._clock.at_ms -= ms
            case "refused", ():
                await self._refused()
                self.world.exchange.reload()
            case "crash", (in_step,):
                if in_step:
                    await self._refused()
                await self.close()
                await self.open()
            case "stop", ():
                await self.world.exchange.stop()
                await self.world.close()
                await self.open()
            case "race", (first, event):
                await self._race(first, *event)
            case _:
                await self._try(self._act(what, *how))
        await self.world.manager.settle()
        await asyncio.sleep(0)

    async def step(self) -> None:
        """The market's turn, and what follows from it in the clusters."""
        await self.world.manager.settle()
        await self.world.exchange.step()
        self.steps += 1
        await self._tidy()
        await self.world.manager.settle()
        await asyncio.sleep(0)

    async def _refused(self) -> None:
        """A step that the disk does not take."""
        store = self.world.store
        submit = store.submit

        def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
            done(StorageError("the disk is full"))

        store.submit = refuse  # type: ignore[method-assign]
        try:
            await self.world.exchange.step()
        except StorageError:
            return
        finally:
            store.submit = submit  # type: ignore[method-assign]

    async def _race(self, first: bool, what: str, *how: Any) -> None:
        """An event on its way to the disk while the market has its turn, staged before it or after it."""
        step = self.world.exchange.step()
        event = self._try(self._act(what, *how))
        both = (event, step) if first else (step, event)
        # Nothing that an agent does makes a step fail: that would hold up everybody.
        await asyncio.gather(*map(asyncio.ensure_future, both))
        self.steps += 1
        await self._tidy()

    async def _try(self, act: Coroutine[Any, Any, Any]) -> None:
        try:
            await act
        except (AlreadyExists, NotFound, Conflict, Invalid, ServiceUnavailable):
            return

    async def _act(self, what: str, *how: Any) -> None:
        api = self.world.api
        match what, how:
            case "join", (name,) if api.find(FLEET, AGENTS, "", name) is None:
                if api.has_cluster(name):
                    await api.delete_cluster(name)
                await api.create_cluster(name)
                namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
                await api.create(name, "namespaces", namespace)
                await api.create(FLEET, AGENTS, _agent(name))
            case "leave", (name,):
                await api.delete(FLEET, AGENTS, "", name)
            case "vanish", (name,):
                tx = api.transaction()
                tx.drop(Key(FLEET, AGENTS, "", name))
                await tx.commit()
            case "pool", (change,):
                await api.edit(FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(change))
            case "taint", (index, effect):
                await api.edit(FLEET, SLICES, "", "local-gpus", lambda found: _taint(found, index, effect))
            case "slow", (agent,) if api.has_cluster(agent):
                self._held_up |= {(agent, node["metadata"]["name"]) for node in self.world.nodes(agent)}
            case "freed", ():
                self._held_up.clear()
                self.world.runtime.freed.set()
                self.world.runtime.freed.clear()
            case _, (agent, *more) if api.has_cluster(agent):
                await self._act_of(agent, what, *more)

    async def _act_of(self, agent: str, what: str, *how: Any) -> None:
        api = self.world.api
        match what, how:
            case "bid", (name, job_class, spec):
                made = {
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"class": job_class, **spec},
                }
                await api.create(agent, BIDS, made)
            case "edit", (name, price):

                def dearer(bid: Object) -> None:
                    bid["spec"]["packages"][0]["maxPrice"] = price

                await api.edit(agent, BIDS, "default", name, dearer)
            case "drop", (name,):
                await api.delete(agent, BIDS, "default", name)
            case "again", (name, job_class, spec):
                await api.delete(agent, BIDS, "default", name)
                await self._act_of(agent, "bid", name, job_class, spec)
            case "sell", (at, price) if leases := self.world.leases(agent):
                name = leases[at % len(leases)]["metadata"]["name"]

                def ask(lease: Object) -> None:
                    lease["spec"].pop("resalePrice", None)
                    lease["spec"] |= {"resalePrice": price} if price else {}

                await api.edit(agent, LEASES, "default", name, ask)
            case "unlease", (at,) if leases := self.world.leases(agent):
                await api.delete(agent, LEASES, "default", leases[at % len(leases)]["metadata"]["name"])
            case "ask", (job_class, spec):
                asked = {"metadata": {"name": "ask", "namespace": "default"}}
                async with self.world.exchange.turn:
                    decide(self.world.exchange.ask(agent, asked | {"spec": {"class": job_class, **spec}}))
            case "grant", (micros,):
                await self.world.exchange.grant(agent, micros, str(self.steps), force=True)
            case _:
                await self._act_on_pods(agent, what, *how)

    async def _act_on_pods(self, agent: str, what: str, *how: Any) -> None:
        api = self.world.api
        match what, how:
            case "pod", (name, milli, price, job_class):
                await self.world.pod(agent, name, milli, price, job_class)
            case "bind", ():
                await self._bind(agent)
            case "ended", (name,):
                await api.edit(
                    agent, PODS, "default", name, lambda pod: pod["status"].update(phase="Succeeded")
                )
            case "renew", (name, milli, price, job_class):
                await api.delete(agent, PODS, "default", name, grace_seconds=0)
                await self.world.pod(agent, name, milli, price, job_class)
            case "remove", (name,):
                await api.delete(agent, PODS, "default", name, grace_seconds=0)

    async def _bind(self, agent: str) -> None:
        """As the agent's scheduler would: a pod goes to the node that its bid won, if that takes pods."""
        for node in self.world.nodes(agent):
            name = node["metadata"]["labels"]["walras.dev/bid"]
            pod = self.world.api.find(agent, PODS, "default", name)
            if pod is not None and not pod["spec"].get("nodeName") and not node["spec"].get("unschedulable"):
                await self.world.bind(agent, name, node["metadata"]["name"])

    async def _tidy(self) -> None:
        """As other controllers do: pods go with their node, clusters with their agent."""
        api = self.world.api
        for agent in NAMES:
            if not api.has_cluster(agent):
                continue
            if api.find(FLEET, AGENTS, "", agent) is None:
                await api.delete_cluster(agent)
                continue
            nodes = {node["metadata"]["name"] for node in self.world.nodes(agent)}
            for pod in list(api.list(agent, PODS)):
                if (on := pod["spec"].get("nodeName")) and on not in nodes:
                    await api.delete(agent, PODS, "default", pod["metadata"]["name"], grace_seconds=0)

    def check(self) -> None:
        self._promises.check(self.world)

    async def leave(self) -> None:
        """In the end nobody is held up, no device is off the market and nobody wants any: nothing is left."""
        api = self.world.api
        await self.tell("freed")
        for at in range(3):
            await self.tell("taint", at, "")
        await self._wait(12)
        for agent in filter(api.has_cluster, NAMES):
            for resource in (PODS, BIDS):
                for each in list(api.list(agent, resource)):
                    await self._try(
                        api.delete(agent, resource, "default", each["metadata"]["name"], grace_seconds=0)
                    )
        await self._wait(5)
        assert not self.world.exchange.holdings
        assert not self.world.exchange.treasury.ledger.holds
        self.check()
        self.world.check_money()

    async def _wait(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.tell("step", 2000)
        self.check()


def _agent(name: str) -> Object:
    market = {"strategy": "pacing", "maxPrice": "4.00"} if name == NAMES[-1] else {}
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {"budget": {"income": "2/h", "balance": "3", "walletCap": "5"}, "market": market},
    }


def _taint(found: Object, index: int, effect: str) -> None:
    device = found["spec"]["devices"][index % len(found["spec"]["devices"])]
    device.pop("taints", None)
    if effect:
        device["taints"] = [{"key": "example.com/service", "effect": effect}]


async def tell(path: Path, story: Sequence[Event]) -> None:
    """Tells a story and checks after each event; then whoever was held up is not, and books balance."""
    teller = Teller(path, "emulated:2:H100,1:A100")
    await teller.open()
    try:
        for name in NAMES[:2]:
            await teller.tell("join", name)
        await teller.step()
        for event in story:
            await teller.tell(*event)
            teller.check()
        await teller.leave()
    finally:
        await teller.close()
