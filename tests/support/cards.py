"""Simulated cards in the place of the driver's library, and worlds whose devices are such cards."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.exchange import World
from walras.core.clock import SequenceIds, VirtualClock
from walras.devices.mig import MigInstance
from walras.exchange import supply
from walras.exchange.demand import FLEET, PODS
from walras.exchange.equipment import Equipment
from walras.exchange.fitting import Fitting
from walras.exchange.health import publish
from walras.exchange.watching import Watch
from walras.kube.policy import SLICES
from walras.kube.record import Object
from walras.runtimes.gpus import machine, simulator
from walras.runtimes.gpus.machine import Machine
from walras.runtimes.gpus.simulated_cards import SimulatedCards


@contextmanager
def driver(
    *models: str, now_ms: Callable[[], int] = lambda: 0, folder: Path | None = None
) -> Iterator[SimulatedCards]:
    """The simulator as the driver of this process; the real one, if there is any, again after it."""
    cards = SimulatedCards(models, now_ms, folder)
    simulator.install(cards)
    try:
        yield cards
    finally:
        simulator.uninstall()


@contextmanager
def cards_here(
    *models: str, now_ms: Callable[[], int] = lambda: 0
) -> Iterator[tuple[SimulatedCards, Machine]]:
    """Simulated cards with the port to them, in a folder of their own."""
    with tempfile.TemporaryDirectory() as data, driver(*models, now_ms=now_ms) as cards:
        here = machine.simulated(Path(data))
        try:
            yield cards, here
        finally:
            here.close()


class Cards(World):
    """A world whose devices are simulated cards, published in the fleet as the server does."""

    def __init__(
        self,
        path: Path | str,
        clock: VirtualClock,
        cards: SimulatedCards,
        here: Machine,
        ids: SequenceIds | None = None,
    ) -> None:
        self.cards = cards
        super().__init__(path, clock, found=supply.of_machine(here), ids=ids)

    @property
    def machine(self) -> Machine:
        assert self.supply.machine is not None
        return self.supply.machine

    @property
    def equipment(self) -> Equipment:
        return self.exchange.equipment

    @property
    def fitting(self) -> Fitting:
        assert self.equipment.fitting is not None
        return self.equipment.fitting

    @property
    def watch(self) -> Watch:
        assert self.equipment.watch is not None
        return self.equipment.watch

    async def open(self) -> None:
        if not self.api.has_cluster(FLEET):
            await self.api.create_cluster(FLEET)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
            await self.api.create(FLEET, "namespaces", namespace)
        await publish(self.api, self.supply)
        await self.exchange.prepare()
        await super().open()

    async def close(self) -> None:
        await self.equipment.cancel()
        await super().close()

    async def step(self, ms: int = 0) -> None:
        """As in any world, and until cards are ready too."""
        await super().step(ms)
        for _ in range(4):
            await self.fitting.settled()
            await super().step()

    async def look(self, ms: int = 1000) -> None:
        """Time goes by, the cards are read, and what follows from it happens."""
        self.clock.advance(ms)
        await self.watch.look()
        await self.step()

    async def hear(self) -> None:
        """What the driver reports is heard, and what follows from it happens."""
        await self.watch.hear(0)
        await self.step()

    async def mig_pod(self, agent: str, name: str, profile: str = "1g.10gb") -> None:
        """As `pod`, of one MIG instance."""
        await self.pod(agent, name, 0, "2.00")
        limits = {f"nvidia.com/mig-{profile}": "1"}
        pod = self.api.get(agent, PODS, "default", name)
        await self.api.delete(agent, PODS, "default", name)
        for field in ("uid", "resourceVersion", "creationTimestamp"):
            pod["metadata"].pop(field, None)
        pod["spec"]["containers"] = [{"name": "c", "resources": {"limits": limits, "requests": dict(limits)}}]
        await self.api.create(agent, PODS, pod)

    def node(self, agent: str) -> Object:
        """The one node of the agent."""
        (node,) = self.nodes(agent)
        return node

    def instances(self, at: int = 0) -> list[MigInstance]:
        """What there is on a card."""
        with self.cards.state() as state:
            return [each.cut for each in state.cards[at].instances]

    async def untaint(self) -> None:
        """The operator returns every card to the market."""

        def change(found: Object) -> None:
            for device in found["spec"]["devices"]:
                device.pop("taints", None)

        await self.api.edit(FLEET, SLICES, "", "local-gpus", change)

    def taints(self, at: int = 0) -> dict[str, str]:
        """Effects by key of the taints of a device in the fleet."""
        found = self.api.get(FLEET, SLICES, "", "local-gpus")["spec"]["devices"][at].get("taints") or []
        return {taint["key"]: taint["effect"] for taint in found}

    def told(self, cluster: str = FLEET) -> list[tuple[str, str]]:
        """Reasons and words of a cluster's Events."""
        events: list[Object] = self.api.list(cluster, "events")
        return [(event["reason"], event.get("message") or event.get("note", "")) for event in events]


def a_bid(**package: Any) -> Object:
    """Of one package, at 2 credits for a minute."""
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"class": "standard", "packages": [{"maxPrice": "2.00", "term": "60s", **package}]},
    }


Story = Callable[[Cards], Coroutine[Any, Any, None]]


def play(story: Story, *models: str) -> None:
    """Tells a story over simulated cards; its books must balance at the end."""
    clock = VirtualClock()

    async def scene(cards: SimulatedCards, here: Machine) -> None:
        world = Cards(":memory:", clock, cards, here)
        await world.open()
        try:
            await story(world)
            world.check_money()
        finally:
            await world.close()

    with cards_here(*models, now_ms=clock.now_ms) as (cards, here):
        asyncio.run(scene(cards, here))
