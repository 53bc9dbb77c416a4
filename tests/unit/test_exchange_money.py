"""What leases cost, over a real store: settlement, income, budgets, restarts and steps that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.exchange import World, play

from walras.core.clock import VirtualClock
from walras.core.errors import StorageError
from walras.core.money import MICROS, charge
from walras.cost import usage
from walras.exchange import leasing
from walras.exchange.demand import AGENTS, FLEET, PODS
from walras.exchange.journal import journal
from walras.kube.record import Object


def test_use_is_settled_second_by_second_and_what_is_not_used_is_given_back() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        await world.bind("search", "query", world.nodes("search")[0]["metadata"]["name"])
        for _ in range(10):
            await world.step(1000)
        paid = charge(100_000, 500, 10_000)
        assert world.exchange.treasury.balance("search") == 100 * MICROS - paid + _rebated(world, "search")
        await world.api.edit(
            "search", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.step()
        assert world.nodes("search") == []
        assert world.leases("search")[0]["status"]["phase"] == "Ended"
        assert world.exchange.treasury.held("search") == 0
        rows = usage.report(world.store, by="pod").rows
        assert [(row["pod"], row["chargedMicros"], row["gpuSeconds"]) for row in rows] == [
            ("query", paid, 5.0)
        ]

    play(story)


def _rebated(world: World, agent: str) -> int:
    return sum(
        entry.amount
        for entry in journal(world.store)
        if entry.ref == "rebate" and entry.credit == f"agent:{agent}"
    )


def test_a_new_agent_shows_its_balance_at_once() -> None:
    async def story(world: World) -> None:
        await world.agent("search", balance="3")
        assert world.api.get(FLEET, AGENTS, "", "search")["status"]["balance"] == "3.00"

    play(story)


def test_income_accrues_up_to_the_cap() -> None:
    async def story(world: World) -> None:
        await world.agent("saver", income="36/h", balance="0", walletCap="0.05")
        for _ in range(12):
            await world.step(1000)
        assert world.exchange.treasury.available("saver") == 50_000

    play(story)


def test_a_deleted_agent_loses_its_leases_and_its_credits_go_back_to_the_mint() -> None:
    async def story(world: World) -> None:
        await world.agent("gone")
        await world.pod("gone", "query", 250, "2.00")
        await world.step(1000)
        node = world.nodes("gone")[0]["metadata"]["name"]
        await world.api.delete(FLEET, AGENTS, "", "gone")
        await world.step()
        await world.step()
        assert ("gone", node) in world.runtime.stopped
        assert "gone" not in world.exchange.treasury.budgets
        assert (
            world.exchange.treasury.ledger.account("mint").balance
            == -world.exchange.treasury.ledger.account("revenue:default").balance
        )
        assert world.api.find(FLEET, AGENTS, "", "gone") is None

    play(story)


def test_money_on_hold_for_no_lease_is_free_again_after_its_time() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        treasury, now = world.exchange.treasury, world.clock.now_ms()
        treasury.hold("lost", "agent:search", "revenue:default", 5 * MICROS, now, expires_at_ms=now + 60_000)
        await world.step(59_000)
        assert "lost" in treasury.ledger.holds
        await world.step(2_000)
        (holding,) = world.exchange.holdings.values()
        assert set(treasury.ledger.holds) == {holding.hold}, "the lease, renewed meanwhile, keeps its own"
        world.check_money()

    play(story)


def test_a_lease_whose_hold_timed_out_while_the_server_was_down_still_ends_well(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before() -> None:
        world = World(tmp_path / "db", clock)
        await world.open()
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        await world.close()

    async def after() -> None:
        world = World(tmp_path / "db", clock)
        await world.open()
        await world.api.delete("search", PODS, "default", "query", grace_seconds=0)
        await world.step(1000)
        await world.step(1000)
        assert not world.exchange.treasury.ledger.holds
        assert not world.exchange.holdings
        world.check_money()
        await world.close()

    asyncio.run(before())
    clock.advance(7 * 24 * 3_600_000)
    asyncio.run(after())


def test_after_a_crash_leases_go_on_settled_to_the_last_reading_and_the_gap_is_free(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before() -> None:
        world = World(tmp_path / "db", clock)
        await world.open()
        await world.agent("search")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        await world.bind("search", "query", world.nodes("search")[0]["metadata"]["name"])
        await world.step(5000)
        # No clean stop: only what was committed is there afterwards.
        await world.close()

    async def after() -> None:
        world = World(tmp_path / "db", clock)
        await world.open()
        paid = charge(100_000, 1000, 5_000)
        assert usage.report(world.store, by="agent").total_micros == paid
        assert world.leases("search")[0]["status"]["phase"] == "Active"
        await world.step(3000)
        assert usage.report(world.store, by="agent").total_micros == charge(100_000, 1000, 8_000)
        world.check_money()
        await world.close()

    asyncio.run(before())
    clock.advance(20_000)
    asyncio.run(after())


async def refused_step(world: World) -> None:
    """A second goes by; what follows from it does not come to the disk, and is forgotten."""
    submit = world.store.submit

    def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
        done(StorageError("the disk is full"))

    world.store.submit = refuse  # type: ignore[method-assign]
    world.clock.advance(1000)
    with pytest.raises(StorageError):
        await world.exchange.step()
    world.store.submit = submit  # type: ignore[method-assign]
    world.exchange.reload()


def test_a_step_that_the_store_refuses_leaves_money_and_leases_as_they_were() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.manager.settle()
        entries = len(journal(world.store))
        await refused_step(world)
        assert len(journal(world.store)) == entries
        assert world.exchange.holdings == {}
        await world.step(1000)
        assert world.leases("search")[0]["status"]["phase"] == "Active"

    play(story)


def test_what_a_refused_step_had_dealt_with_is_dealt_with_by_the_next() -> None:
    async def story(world: World) -> None:
        await world.agent("poor", balance="0")
        await world.agent("done")
        await world.pod("done", "query", 250, "2.00")
        await world.step(1000)
        await world.bind("done", "query", world.nodes("done")[0]["metadata"]["name"])
        await world.api.edit(
            "done", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.pod("poor", "query", 250, "2.00")
        await world.manager.settle()
        await refused_step(world)
        await world.step(1000)
        assert world.bid("poor", "query")["status"]["explanation"]["reason"] == "InsufficientFunds"
        assert world.leases("done")[0]["status"]["phase"] == "Ended"

    play(story)


def test_a_lease_that_waits_for_a_device_that_is_gone_ends_though_a_step_is_refused(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def before() -> None:
        world = World(tmp_path / "db", clock, "emulated:1:H100")
        await world.open()
        await world.agent("train")
        await world.agent("search")
        await world.pod("train", "epoch", 1000, "0.50", "batch")
        await world.step(1000)
        await world.bind("train", "epoch", world.nodes("train")[0]["metadata"]["name"])
        await world.step(6000)
        await world.pod("search", "query", 1000, "3.00", "latency")
        await world.step(1)
        assert world.leases("search")[0]["status"]["phase"] == "Reserved"
        await world.close()

    async def after() -> None:
        world = World(tmp_path / "db", clock, "emulated:1:T4")
        await world.open()
        await asyncio.sleep(0)
        await refused_step(world)
        await world.step(5000)
        await world.step(5000)
        (running,) = world.exchange.holdings.values()
        assert (running.agent, running.phase) == ("search", "Active"), "it has the device that there is"
        assert list(world.exchange.treasury.ledger.holds) == [running.hold]
        world.check_money()
        await world.close()

    asyncio.run(before())
    asyncio.run(after())


def test_spend_an_hour_and_runway_are_shown_on_the_agent() -> None:
    async def story(world: World) -> None:
        await world.agent("search", balance="1")
        await world.pod("search", "query", 1000, "2.00")
        await world.step(1000)
        await world.step(2000)
        status = world.api.get(FLEET, AGENTS, "", "search")["status"]
        assert status["spendPerHour"] == "0.10"
        assert status["leases"] == 1
        assert status["runway"].endswith("h") or "h" in status["runway"]

    play(story)


def test_an_agent_of_the_same_name_begins_with_its_own_balance_and_none_of_the_leases() -> None:
    async def story(world: World) -> None:
        await world.agent("again")
        await world.pod("again", "query", 250, "2.00")
        await world.step(1000)

        def free(agent: Object) -> None:
            agent["metadata"]["finalizers"] = []

        # As an operator does who has no patience with finalizers.
        await world.api.edit(FLEET, AGENTS, "", "again", free)
        await world.api.delete(FLEET, AGENTS, "", "again")
        await world.api.delete_cluster("again")
        await world.agent("again", balance="7")
        await world.step(1000)
        assert world.exchange.treasury.balance("again") == 7 * MICROS
        assert world.exchange.treasury.held("again") == 0
        assert world.exchange.holdings == {}
        assert len(world.runtime.stopped) == 1

    play(story)


def test_revenue_is_given_back_once_more_at_a_time_that_the_clock_shows_twice() -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        treasury, now = world.exchange.treasury, world.clock.now_ms()
        for micros in (700, 900):
            treasury.transfer(f"paid:{micros}", "agent:a", "revenue:default", micros, now)
            treasury.pay_rebate("default", 1000, now)
        assert treasury.balance("a") == 100 * MICROS
        await world.step()

    play(story)


def test_a_bid_whose_device_was_lost_in_a_step_that_the_disk_refused_wins_again() -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        await world.pod("a", "p", 250, "2.00")
        await world.step(1000)
        (lost,) = world.exchange.holdings.values()
        submit = world.store.submit

        def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
            done(StorageError("the disk is full"))

        world.store.submit = refuse  # type: ignore[method-assign]
        world.exchange._emptying.begin(lost)
        leasing.lose(world.exchange._effects(), lost, world.clock.now_ms())
        world.clock.advance(1000)
        with pytest.raises(StorageError):
            await world.exchange.step()
        world.store.submit = submit  # type: ignore[method-assign]
        world.exchange.reload()
        await world.step(1000)
        await world.step(1000)
        (holding,) = world.exchange.holdings.values()
        assert holding.id != lost.id
        assert world.bid("a", "p")["status"]["phase"] == "Leased"

    play(story)
