"""Leases over simulated cards: made ready before they start, kept apart, metered."""

from __future__ import annotations

import signal
import subprocess

import msgspec
import pytest
from support.cards import Cards, a_bid, play

from walras.cost import usage
from walras.devices.arrangement import Arrangement
from walras.exchange.demand import BIDS, PODS
from walras.runtimes.environment import gpu


def test_a_share_starts_when_its_daemon_answers_and_says_how_it_is_kept_apart() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["devices"][0]["enforcement"] == "mps"
        found = gpu(world.node("search"))
        (uuid,) = world.fitting.device_of
        assert found.env["CUDA_VISIBLE_DEVICES"] == uuid
        assert found.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "25"
        assert "/dev/nvidia0" in found.devices
        assert world.machine.arrangement(uuid).mps and world.machine.arrangement(uuid).one_process
        (written,) = (world.machine.data / "cdi").iterdir()
        (device,) = msgspec.json.decode(written.read_bytes())["devices"]
        assert f"CUDA_VISIBLE_DEVICES={uuid}" in device["containerEdits"]["env"]
        assert len(device["containerEdits"]["mounts"]) == 2

    play(story, "H100")


def test_the_daemon_goes_with_the_last_share_of_its_card() -> None:
    async def story(world: Cards) -> None:
        (uuid,) = world.fitting.device_of
        for name in ("one", "two"):
            await world.agent(name)
            await world.pod(name, "p", 400, "2.00")
        await world.step(1000)
        for name, left in (("one", True), ("two", False)):
            await world.bind(name, "p", world.node(name)["metadata"]["name"])
            await world.api.edit(
                name, PODS, "default", "p", lambda pod: pod["status"].update(phase="Succeeded")
            )
            await world.step(1000)
            assert world.machine.arrangement(uuid).mps is left
        assert not world.machine.arrangement(uuid).one_process
        assert list((world.machine.data / "cdi").iterdir()) == []

    play(story, "H100")


def test_an_instance_is_made_before_its_node_is_there_and_destroyed_when_it_is_idle() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.mig_pod("search", "query")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["spec"]["devices"][0]["enforcement"] == "mig"
        (made,) = world.instances()
        assert lease["spec"]["devices"][0]["mig"] == str(made)
        assert gpu(world.node("search")).env["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
        await world.bind("search", "query", world.node("search")["metadata"]["name"])
        await world.api.edit(
            "search", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.step(1000)
        assert world.nodes("search") == [] and world.instances() == []

    play(story, "H100")


def test_a_whole_card_after_instances_is_whole_again() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.mig_pod("search", "query")
        await world.step(1000)
        await world.agent("train")
        await world.pod("train", "epoch", 1000, "9.00", "latency")
        await world.step(6000)
        await world.step(6000)
        (lease,) = world.leases("train")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["devices"][0]["enforcement"] == "exclusive"
        (uuid,) = world.fitting.device_of
        assert not world.machine.arrangement(uuid).mig

    play(story, "H100")


def test_use_of_a_card_is_told_in_cost_as_far_as_the_driver_tells_it() -> None:
    async def story(world: Cards) -> None:
        for at, name in enumerate(("one", "two")):
            await world.agent(name)
            await world.pod(name, "p", 400, "2.00")
            await world.step(1000)
            await world.bind(name, "p", world.node(name)["metadata"]["name"])
            world.runtime.pids[name, world.node(name)["metadata"]["name"]] = [100 + at]
            world.cards.run(0, 100 + at, 1024, 30 * (at + 1))
        await world.look(0)
        for _ in range(10):
            await world.look(1000)
        rows = {row["agent"]: row for row in usage.report(world.store, by="agent").rows}
        assert rows["one"]["gpuBusySeconds"] == pytest.approx(3.0, abs=0.4)
        assert rows["two"]["gpuBusySeconds"] == pytest.approx(6.0, abs=0.7)
        assert rows["one"]["gpuMemoryGibHours"] == pytest.approx(10 / 3600, rel=0.15)
        # 547 W at nine tenths of the card's time, a third of it the first one's.
        assert rows["one"]["gpuWattHours"] == pytest.approx(547 * 10 / 3600 / 3, rel=0.15)
        assert rows["two"]["gpuWattHours"] == pytest.approx(2 * rows["one"]["gpuWattHours"], rel=0.05)

    play(story, "H100")


def test_who_keeps_more_memory_of_a_shared_card_than_its_part_is_ended_and_nobody_else() -> None:
    async def story(world: Cards) -> None:
        programs = {}
        for at, name in enumerate(("modest", "greedy")):
            await world.agent(name)
            await world.pod(name, "p", 400, "2.00")
            await world.step(1000)
            node = world.node(name)["metadata"]["name"]
            await world.bind(name, "p", node)
            programs[name] = subprocess.Popen(["sleep", "600"])  # noqa: ASYNC220
            world.runtime.pids[name, node] = [programs[name].pid]
            # A card has 81559 MiB, and a lease of two fifths of it 32623.
            world.cards.run(0, programs[name].pid, (32_000, 34_000)[at])
        await world.look()
        assert programs["greedy"].poll() is None, "it may let go of it yet"
        await world.look()
        assert programs["greedy"].wait(10) == -signal.SIGKILL
        assert programs["modest"].poll() is None
        (words,) = {words for reason, words in world.told("greedy") if reason == "GpuMemoryExceeded"}
        assert "34000 MiB of local/gpu-0, where the lease has 32623" in words
        assert world.leases("greedy")[0]["status"]["phase"] == "Active", "its pod may start again"
        programs["modest"].kill()
        programs["modest"].wait()

    play(story, "H100")


def test_time_slices_need_no_daemon_and_keep_the_card_as_it_is() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["spec"]["devices"][0]["enforcement"] == "timeslice"
        (uuid,) = world.fitting.device_of
        assert world.machine.arrangement(uuid) == Arrangement()
        assert not any("MPS" in name for name in gpu(world.node("search")).env)

    play(story, "P100")


def test_parts_of_several_cards_are_refused_where_a_program_reaches_one_daemon() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.api.create("search", BIDS, a_bid(devices=2, milliGPU=500))
        await world.step(1000)
        assert "parts of 2 devices are not sold here" in str(world.bid("search", "b")["status"])

    play(story, "H100", "H100")
