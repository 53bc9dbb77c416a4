"""Cards at a start of the server: what leases say they are, gone, or in another order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.cards import Cards, Story, driver

from walras.core.clock import VirtualClock
from walras.exchange.health import FAILED
from walras.runtimes.environment import gpu
from walras.runtimes.gpus import machine
from walras.runtimes.gpus.machine import Machine
from walras.runtimes.gpus.simulated_cards import SimulatedCards, SimulatedInstance


def tell(
    story: Story, folder: Path, clock: VirtualClock, cards: SimulatedCards, *, by_mps: bool = True
) -> None:
    """Tells a story to a server that starts on what the last one in that folder left."""

    async def scene(here: Machine) -> None:
        world = Cards(folder / "db", clock, cards, here)
        try:
            await world.open()
            await story(world)
        finally:
            await world.close()

    here = machine.simulated(folder / "data", by_mps=by_mps)
    try:
        asyncio.run(scene(here))
    finally:
        here.close()


async def lease_both(world: Cards) -> None:
    """An agent that gets two cards whole."""
    await world.agent("search")
    for name in ("a", "b"):
        await world.pod("search", name, 1000, "2.00")
    await world.step(1000)


@pytest.mark.parametrize("rebooted", [False, True], ids=["after a crash", "after a reboot"])
def test_after_a_crash_cards_are_what_leases_say_before_anything_runs(tmp_path: Path, rebooted: bool) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await world.agent("search")
        await world.mig_pod("search", "query", "2g.20gb")
        await world.step(1000)
        await world.agent("other")
        await world.pod("other", "part", 300, "2.00")
        await world.step(1000)
        assert len(world.nodes("other")) == len(world.nodes("search")) == 1

    async def after(world: Cards) -> None:
        (lease,) = world.leases("search")
        device = lease["spec"]["devices"][0]
        at = int(device["device"][-1])
        assert [str(each) for each in world.instances(at)] == [device["mig"]]
        assert gpu(world.node("search")).env["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
        parted = world.leases("other")[0]["spec"]["devices"][0]["device"]
        assert world.machine.arrangement(world.fitting.uuid_of[parted]).mps
        await world.step(1000)
        assert len(world.nodes("other")) == len(world.nodes("search")) == 1
        world.check_money()

    with driver("H100", "H100", now_ms=clock.now_ms, folder=tmp_path / "cards") as cards:
        tell(before, tmp_path, clock, cards)
        with cards.state() as state:
            for card in state.cards:
                if rebooted:
                    card.mig = card.pending_mig = False
                    card.instances = []
                elif card.mig:
                    # What an earlier server began to make and did not finish.
                    card.instances.append(
                        SimulatedInstance(9, "1g.10gb", 0 if card.has_room("1g.10gb", 0) else 6)
                    )
        tell(after, tmp_path, clock, cards)


def test_cards_that_are_gone_at_a_start_end_their_leases(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await lease_both(world)
        assert len(world.nodes("search")) == 2

    async def after(world: Cards) -> None:
        await world.step(1000)
        assert len(world.nodes("search")) == 1
        world.check_money()

    for models, story in ((("H100", "A30"), before), (("H100",), after)):
        with driver(*models, now_ms=clock.now_ms) as cards:
            tell(story, tmp_path, clock, cards)


def test_cards_that_come_in_another_order_keep_their_taints_and_nobody_elses_leases(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await lease_both(world)
        world.cards.xid(0, 79)
        await world.hear()
        assert world.taints(0) == {FAILED: "NoExecute"}
        (node,) = world.nodes("search")
        await world.bind("search", node["metadata"]["labels"]["walras.dev/bid"], node["metadata"]["name"])
        await world.manager.settle()

    async def after(world: Cards) -> None:
        assert (world.taints(0), world.taints(1)) == ({}, {FAILED: "NoExecute"}), "it is number 1 now"
        (lost,) = world.exchange.holdings.values()
        assert (lost.shares[0].device, lost.reason) == ("local/gpu-1", "DeviceGone")
        await world.step(1000)
        await world.step(1000)
        (running,) = world.exchange.holdings.values()
        assert (running.shares[0].device, running.phase) == ("local/gpu-0", "Active")
        world.check_money()

    with driver("H100", "H100", now_ms=clock.now_ms, folder=tmp_path / "cards") as cards:
        for story in (before, after):
            tell(story, tmp_path, clock, cards)
            with cards.state() as state:
                state.cards.reverse()


def test_a_card_is_sold_on_when_a_start_keeps_its_parts_apart_in_another_way(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "part", 300, "2.00")
        await world.step(1000)
        assert world.leases("search")[0]["spec"]["devices"][0]["enforcement"] == "mps"

    async def after(world: Cards) -> None:
        await world.step(1000)
        await world.step(7000)
        assert world.taints() == {}, "nothing is wrong with the card"
        (lease,) = (each for each in world.leases("search") if each["status"]["phase"] == "Active")
        assert lease["spec"]["devices"][0]["enforcement"] == "timeslice"
        world.check_money()

    with driver("H100", now_ms=clock.now_ms) as cards:
        tell(before, tmp_path, clock, cards)
        tell(after, tmp_path, clock, cards, by_mps=False)
