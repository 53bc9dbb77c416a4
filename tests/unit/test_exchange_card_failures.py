"""Cards that fail, are lost, or cannot be what their leases need: whose leases end, and what is paid."""

from __future__ import annotations

import os
import signal

import pynvml
from support.cards import Cards, a_bid, play

from walras.core.money import charge
from walras.cost import usage
from walras.exchange.demand import BIDS
from walras.exchange.health import FAILED
from walras.runtimes.gpus import machine

RESERVE = 100_000
NAME = "device.attributes['gpu.nvidia.com'].productName"


async def asks(world: Cards, agent: str) -> None:
    """A new agent that wants an instance."""
    await world.agent(agent)
    await world.mig_pod(agent, "p")


def test_a_card_that_fails_ends_its_leases_and_gives_back_what_was_not_served() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        await world.bind("search", "query", world.node("search")["metadata"]["name"])
        for _ in range(10):
            await world.step(1000)
        world.cards.xid(0, 79)
        await world.hear()
        assert world.nodes("search") == []
        treasury = world.exchange.treasury
        assert treasury.held("search") == 0
        (row,) = usage.report(world.store, by="lease").rows
        assert row["chargedMicros"] == charge(RESERVE, 500, 10_000)
        assert world.taints() == {FAILED: "NoExecute"}
        assert any(reason == "Xid79" and "local/gpu-0" in words for reason, words in world.told())
        assert any(reason == "DeviceFailed" for reason, _ in world.told("search"))
        for _ in range(3):
            await world.step(1000)
        assert usage.report(world.store, by="lease").total_micros == charge(RESERVE, 500, 10_000)
        await world.pod("search", "again", 500, "2.00")
        await world.step(1000)
        assert world.nodes("search") == [], "nothing is sold of it"
        await world.untaint()
        await world.step(2000)
        assert len(world.nodes("search")) == 1, "the operator returned it"

    play(story, "H100")


def test_what_is_lost_with_a_card_is_charged_to_that_moment_however_long_its_end_takes() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        node = world.node("search")["metadata"]["name"]
        await world.bind("search", "query", node)
        await world.step(5000)
        world.runtime.hung.add(("search", node))
        world.cards.lose(0)
        await world.look(1000)
        await world.step(30_000)
        (row,) = usage.report(world.store, by="lease").rows
        assert row["chargedMicros"] == charge(RESERVE, 1000, 6_000)
        assert any(reason == "DeviceLost" for reason, _ in world.told())

    play(story, "H100")


def test_a_lost_card_takes_only_its_own_leases_along() -> None:
    async def story(world: Cards) -> None:
        for name in ("one", "two"):
            await world.agent(name)
            await world.pod(name, "p", 1000, "2.00")
        await world.step(1000)
        first = {world.leases(name)[0]["spec"]["devices"][0]["device"]: name for name in ("one", "two")}
        world.cards.lose(0)
        await world.look()
        assert world.nodes(first["local/gpu-0"]) == []
        assert len(world.nodes(first["local/gpu-1"])) == 1
        assert world.taints(0) == {FAILED: "NoExecute"} and world.taints(1) == {}

    play(story, "H100", "H100")


def test_a_program_that_fails_and_heat_are_told_and_the_card_stays_in_use() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        world.cards.xid(0, 31)
        await world.hear()
        world.cards.throttle(0, pynvml.nvmlClocksEventReasonSwThermalSlowdown, 90)
        await world.look()
        await world.look()
        reasons = [reason for reason, _ in world.told()]
        assert "Xid31" in reasons and reasons.count("Throttled") == 1
        assert len(world.nodes("search")) == 1 and world.taints() == {}

    play(story, "H100")


def test_a_daemon_that_keeps_dying_is_a_card_that_failed() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        (uuid,) = world.fitting.device_of
        for _ in range(machine.RESTARTS_MAX + 1):
            daemon = world.machine._mps[uuid]._daemon
            assert daemon is not None
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait()
            await world.look()
        assert world.taints() == {FAILED: "NoExecute"}
        assert world.nodes("search") == []
        reasons = [reason for reason, _ in world.told()]
        assert "MpsDaemonRestarted" in reasons and "MpsDaemonDead" in reasons

    play(story, "H100")


def test_a_daemon_that_does_not_start_is_tried_again_when_the_operator_returns_its_card() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        (uuid,) = world.fitting.device_of
        daemon = world.machine._mps[uuid]
        program, daemon._program = daemon._program, ("false",)
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        assert world.taints() == {FAILED: "NoExecute"}
        assert world.nodes("search") == [] and world.exchange.treasury.held("search") == 0
        daemon._program = program
        await world.untaint()
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100")


def test_an_instance_that_cannot_be_made_costs_the_lease_that_needs_it_and_no_other() -> None:
    async def story(world: Cards) -> None:
        await asks(world, "one")
        await world.step(1000)
        await world.bind("one", "p", world.node("one")["metadata"]["name"])
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
        await asks(world, "two")
        await world.step(1000)
        await world.step(1000)
        assert world.nodes("two") == [] and world.exchange.treasury.held("two") == 0
        assert world.taints() == {FAILED: "NoSchedule"}
        assert len(world.nodes("one")) == len(world.instances()) == 1
        await world.step(30_000)
        assert len(world.nodes("one")) == 1, "it has its term"
        with world.cards.state() as state:
            state.cards[0].uncuttable = False
        await world.untaint()
        await world.step(2000)
        assert len(world.nodes("one")) == len(world.nodes("two")) == 1
        assert len(world.instances()) == 2

    play(story, "H100")


def test_a_card_that_is_lost_after_it_was_closed_ends_the_leases_that_were_spared() -> None:
    async def story(world: Cards) -> None:
        await asks(world, "one")
        await world.step(1000)
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
        await asks(world, "two")
        for _ in range(2):
            await world.step(1000)
        assert world.taints() == {FAILED: "NoSchedule"} and len(world.nodes("one")) == 1
        world.cards.lose(0)
        await world.look()
        assert world.taints() == {FAILED: "NoExecute"}
        assert world.nodes("one") == [] and world.exchange.treasury.held("one") == 0

    play(story, "H100")


def test_a_card_that_cannot_be_what_its_running_leases_need_ends_them_all_the_same() -> None:
    async def story(world: Cards) -> None:
        await asks(world, "one")
        await world.step(1000)
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
            state.cards[0].instances = []
        await asks(world, "two")
        for _ in range(3):
            await world.step(1000)
        assert world.nodes("one") == world.nodes("two") == []
        assert world.taints() == {FAILED: "NoExecute"}

    play(story, "H100")


def test_a_bid_that_chose_among_devices_is_read_again_when_one_returns() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        world.cards.lose(0)
        await world.look()
        await world.api.create("search", BIDS, a_bid(selector=f"{NAME}.contains('H100')"))
        await world.step(1000)
        assert world.nodes("search") == []
        world.cards.lose(0, lost=False)
        await world.look()
        await world.untaint()
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100", "A30")
