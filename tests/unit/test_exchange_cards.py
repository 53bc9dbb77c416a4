"""Leases over simulated cards: made ready before they start, metered, and ended when cards fail."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pynvml
import pytest
from support.cards import Cards, cards_here, driver, play

from walras.core.clock import VirtualClock
from walras.core.money import charge
from walras.cost import usage
from walras.devices.arrangement import Arrangement
from walras.devices.mig import MigInstance
from walras.exchange.demand import BIDS, FLEET, PODS
from walras.exchange.health import FAILED, OCCUPIED
from walras.kube.policy import SLICES
from walras.runtimes.environment import gpu
from walras.runtimes.gpus import machine
from walras.runtimes.gpus.simulated_cards import SimulatedInstance

RESERVE = 100_000
NAME = "device.attributes['gpu.nvidia.com'].productName"


def the_node(world: Cards, agent: str) -> dict[str, Any]:
    (node,) = world.nodes(agent)
    return node


def instances(world: Cards, at: int = 0) -> list[MigInstance]:
    with world.cards.state() as state:
        return [each.cut for each in state.cards[at].instances]


async def mig_pod(world: Cards, agent: str, name: str, profile: str = "1g.10gb") -> None:
    await world.pod(agent, name, 0, "2.00")
    limits = {f"nvidia.com/mig-{profile}": "1"}
    pod = world.api.get(agent, PODS, "default", name)
    await world.api.delete(agent, PODS, "default", name)
    for field in ("uid", "resourceVersion", "creationTimestamp"):
        pod["metadata"].pop(field, None)
    pod["spec"]["containers"] = [{"name": "c", "resources": {"limits": limits, "requests": dict(limits)}}]
    await world.api.create(agent, PODS, pod)


def a_bid(**package: Any) -> dict[str, Any]:
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"class": "standard", "packages": [{"maxPrice": "2.00", "term": "60s", **package}]},
    }


def test_a_share_starts_when_its_daemon_answers_and_says_how_it_is_kept_apart() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["devices"][0]["enforcement"] == "mps"
        found = gpu(the_node(world, "search"))
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
            await world.bind(name, "p", the_node(world, name)["metadata"]["name"])
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
        await mig_pod(world, "search", "query")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["spec"]["devices"][0]["enforcement"] == "mig"
        (made,) = instances(world)
        assert lease["spec"]["devices"][0]["mig"] == str(made)
        assert gpu(the_node(world, "search")).env["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
        await world.bind("search", "query", the_node(world, "search")["metadata"]["name"])
        await world.api.edit(
            "search", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.step(1000)
        assert world.nodes("search") == [] and instances(world) == []

    play(story, "H100")


def test_a_whole_card_after_instances_is_whole_again() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await mig_pod(world, "search", "query")
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
            await world.bind(name, "p", the_node(world, name)["metadata"]["name"])
            world.runtime.pids[name, the_node(world, name)["metadata"]["name"]] = [100 + at]
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
            node = the_node(world, name)["metadata"]["name"]
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


def test_a_card_that_fails_ends_its_leases_and_gives_back_what_was_not_served() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        await world.bind("search", "query", the_node(world, "search")["metadata"]["name"])
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
        await world.api.edit(FLEET, SLICES, "", "local-gpus", without_taints)
        await world.step(2000)
        assert len(world.nodes("search")) == 1, "the operator returned it"

    play(story, "H100")


def without_taints(found: dict[str, Any]) -> None:
    for device in found["spec"]["devices"]:
        device.pop("taints", None)


def test_what_is_lost_with_a_card_is_charged_to_that_moment_however_long_its_end_takes() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        node = the_node(world, "search")["metadata"]["name"]
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


def test_a_program_that_does_not_die_holds_its_card_out_of_the_market_and_nobody_up() -> None:
    async def story(world: Cards) -> None:
        await world.agent("train")
        await world.pod("train", "epoch", 1000, "2.00")
        await world.step(1000)
        device = world.leases("train")[0]["spec"]["devices"][0]["device"]
        at = int(device[-1])
        node = the_node(world, "train")["metadata"]["name"]
        await world.bind("train", "epoch", node)
        world.cards.run(at, 99, 1000, 10)
        world.runtime.hung.add(("train", node))
        await world.api.edit(
            "train", PODS, "default", "epoch", lambda pod: pod["status"].update(phase="Failed")
        )
        await world.step(1000)
        assert world.leases("train")[0]["status"]["phase"] == "Ended"
        assert world.taints(at) == {OCCUPIED: "NoSchedule"}
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["spec"]["devices"][0]["device"] != device and lease["status"]["phase"] == "Active"
        await world.pod("search", "more", 1000, "2.00")
        await world.look()
        assert len(world.nodes("search")) == 1
        world.cards.end(99)
        await world.look()
        await world.step(1000)
        assert world.taints(at) == {}
        assert len(world.nodes("search")) == 2, "it is empty, and sold"

    play(story, "H100", "H100")


def test_a_lease_that_waits_for_a_card_does_not_get_it_while_a_program_there_does_not_die() -> None:
    async def story(world: Cards) -> None:
        await world.agent("train")
        await world.agent("search")
        await world.pod("train", "epoch", 1000, "0.50", "batch")
        await world.step(1000)
        node = the_node(world, "train")["metadata"]["name"]
        await world.bind("train", "epoch", node)
        world.cards.run(0, 99, 1000, 10)
        world.runtime.hung.add(("train", node))
        await world.step(6000)
        await world.pod("search", "query", 1000, "3.00", "latency")
        await world.step(1)
        assert world.leases("search")[0]["status"]["phase"] == "Reserved"
        await world.look(3000)
        assert world.leases("train")[0]["status"]["phase"] == "Ended"
        assert world.taints() == {OCCUPIED: "NoSchedule"}
        assert world.nodes("search") == [], "the card is not empty"
        world.cards.end(99)
        await world.look()
        await world.look()
        assert world.taints() == {}
        assert len(world.nodes("search")) == 1

    play(story, "H100")


def test_a_stranger_on_a_card_that_nobody_leased_keeps_it_off_the_market_until_it_goes() -> None:
    async def story(world: Cards) -> None:
        world.cards.run(0, 4711, 9000, 100)
        await world.look()
        assert world.taints() == {}, "one reading is not enough"
        await world.look()
        assert world.taints() == {OCCUPIED: "NoSchedule"}
        assert any("4711" in words for _, words in world.told())
        world.cards.end(4711)
        await world.look()
        assert world.taints() == {}

    play(story, "H100")


def test_a_mode_that_a_stranger_keeps_from_changing_holds_the_card_out_and_frees_the_bid() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        world.cards.run(0, 4711, 9000, 100)
        await mig_pod(world, "search", "query")
        await world.step(1000)
        assert world.nodes("search") == []
        assert world.taints() == {OCCUPIED: "NoSchedule"}
        assert world.exchange.treasury.held("search") == 0
        world.cards.end(4711)
        await world.look()
        await world.step(2000)
        assert len(instances(world)) == len(world.nodes("search")) == 1

    play(story, "H100")


def test_an_operators_taint_empties_a_card_and_its_end_sells_it_again() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        taint = {"key": "example.com/service", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}

        def tainted(found: dict[str, Any]) -> None:
            found["spec"]["devices"][0]["taints"] = [taint]

        await world.api.edit(FLEET, SLICES, "", "local-gpus", tainted)
        await world.step(1000)
        assert world.nodes("search") == []
        await world.api.edit(FLEET, SLICES, "", "local-gpus", without_taints)
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100")


def test_a_card_that_is_to_be_emptied_keeps_its_leases_to_the_end_of_their_term() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        await world.bind("search", "query", the_node(world, "search")["metadata"]["name"])
        taint = {"key": "example.com/service", "effect": "NoSchedule"}

        def tainted(found: dict[str, Any]) -> None:
            found["spec"]["devices"][0]["taints"] = [taint]

        await world.api.edit(FLEET, SLICES, "", "local-gpus", tainted)
        for _ in range(5):
            await world.step(10_000)
            assert len(world.nodes("search")) == 1, "its term is a minute"
        await world.pod("search", "other", 500, "9.00")
        for _ in range(3):
            await world.step(10_000)
        assert world.nodes("search") == [], "it is not renewed, and nothing else is sold of it"
        (row,) = usage.report(world.store, by="lease").rows
        assert row["chargedMicros"] == charge(RESERVE, 500, 60_000)

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
        assert not any("MPS" in name for name in gpu(the_node(world, "search")).env)

    play(story, "P100")


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
        await world.api.edit(FLEET, SLICES, "", "local-gpus", without_taints)
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100")


def test_an_instance_that_cannot_be_made_costs_the_lease_that_needs_it_and_no_other() -> None:
    async def story(world: Cards) -> None:
        await world.agent("one")
        await mig_pod(world, "one", "p")
        await world.step(1000)
        await world.bind("one", "p", the_node(world, "one")["metadata"]["name"])
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
        await world.agent("two")
        await mig_pod(world, "two", "p")
        await world.step(1000)
        await world.step(1000)
        assert world.nodes("two") == [] and world.exchange.treasury.held("two") == 0
        assert world.taints() == {FAILED: "NoSchedule"}
        assert len(world.nodes("one")) == len(instances(world)) == 1
        await world.step(30_000)
        assert len(world.nodes("one")) == 1, "it has its term"
        with world.cards.state() as state:
            state.cards[0].uncuttable = False
        await world.api.edit(FLEET, SLICES, "", "local-gpus", without_taints)
        await world.step(2000)
        assert len(world.nodes("one")) == len(world.nodes("two")) == 1
        assert len(instances(world)) == 2

    play(story, "H100")


def test_a_card_that_is_lost_after_it_was_closed_ends_the_leases_that_were_spared() -> None:
    async def story(world: Cards) -> None:
        await world.agent("one")
        await mig_pod(world, "one", "p")
        await world.step(1000)
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
        await world.agent("two")
        await mig_pod(world, "two", "p")
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
        await world.agent("one")
        await mig_pod(world, "one", "p")
        await world.step(1000)
        with world.cards.state() as state:
            state.cards[0].uncuttable = True
            state.cards[0].instances = []
        await world.agent("two")
        await mig_pod(world, "two", "p")
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
        await world.api.edit(FLEET, SLICES, "", "local-gpus", without_taints)
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100", "A30")


def test_parts_of_several_cards_are_refused_where_a_program_reaches_one_daemon() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.api.create("search", BIDS, a_bid(devices=2, milliGPU=500))
        await world.step(1000)
        assert "parts of 2 devices are not sold here" in str(world.bid("search", "b")["status"])

    play(story, "H100", "H100")


@pytest.mark.parametrize("rebooted", [False, True], ids=["after a crash", "after a reboot"])
def test_after_a_crash_cards_are_what_leases_say_before_anything_runs(tmp_path: Path, rebooted: bool) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await world.agent("search")
        await mig_pod(world, "search", "query", "2g.20gb")
        await world.step(1000)
        await world.agent("other")
        await world.pod("other", "part", 300, "2.00")
        await world.step(1000)
        assert len(world.nodes("other")) == len(world.nodes("search")) == 1

    async def after(world: Cards) -> None:
        (lease,) = world.leases("search")
        device = lease["spec"]["devices"][0]
        at = int(device["device"][-1])
        assert [str(each) for each in instances(world, at)] == [device["mig"]]
        assert gpu(the_node(world, "search")).env["CUDA_VISIBLE_DEVICES"].startswith("MIG-")
        parted = world.leases("other")[0]["spec"]["devices"][0]["device"]
        assert world.machine.arrangement(world.fitting.uuid_of[parted]).mps
        await world.step(1000)
        assert len(world.nodes("other")) == len(world.nodes("search")) == 1
        world.check_money()

    def run(story: Any) -> None:
        async def scene() -> None:
            here = machine.simulated(tmp_path / "data")
            world = Cards(tmp_path / "db", clock, cards, here)
            try:
                await world.open()
                await story(world)
            finally:
                await world.close()
                here.close()

        asyncio.run(scene())

    with driver("H100", "H100", now_ms=clock.now_ms, folder=tmp_path / "cards") as cards:
        run(before)
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
        run(after)


def test_cards_that_are_gone_at_a_start_end_their_leases(tmp_path: Path) -> None:
    clock = VirtualClock()
    for models in (("H100", "A30"), ("H100",)):
        with cards_here(*models, now_ms=clock.now_ms) as (cards, here):

            async def scene(cards: Any = cards, here: Any = here, first: bool = len(models) == 2) -> None:
                world = Cards(tmp_path / "db", clock, cards, here)
                await world.open()
                if first:
                    await world.agent("search")
                    for name in ("a", "b"):
                        await world.pod("search", name, 1000, "2.00")
                    await world.step(1000)
                    assert len(world.nodes("search")) == 2
                else:
                    await world.step(1000)
                    assert len(world.nodes("search")) == 1
                    world.check_money()
                await world.close()

            asyncio.run(scene())


def test_cards_that_come_in_another_order_keep_their_taints_and_nobody_elses_leases(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before(world: Cards) -> None:
        await world.agent("search")
        for name in ("a", "b"):
            await world.pod("search", name, 1000, "2.00")
        await world.step(1000)
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

            async def scene(here: Any, story: Any = story) -> None:
                world = Cards(tmp_path / "db", clock, cards, here)
                await world.open()
                try:
                    await story(world)
                finally:
                    await world.close()

            here = machine.simulated(tmp_path / "data")
            try:
                asyncio.run(scene(here))
            finally:
                here.close()
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
        for by_mps, story in ((True, before), (False, after)):

            async def scene(here: Any, story: Any = story) -> None:
                world = Cards(tmp_path / "db", clock, cards, here)
                await world.open()
                try:
                    await story(world)
                finally:
                    await world.close()

            here = machine.simulated(tmp_path / "data", by_mps=by_mps)
            try:
                asyncio.run(scene(here))
            finally:
                here.close()
