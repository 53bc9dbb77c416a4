"""What a market remembers outlives the server: prices, pacing, what mechanisms and gangs count on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.market import Market

from walras.core.clock import VirtualClock
from walras.core.errors import StorageError
from walras.core.money import MICROS, parse_credits
from walras.devices.mig import MigInstance
from walras.exchange.carried import Carried, Pace, Shelf
from walras.exchange.demand import AGENTS, FLEET
from walras.market.slow import Slow
from walras.market.types import Escrow, Memory, Share

LATENCY: dict[str, Any] = {"class": "latency"}
Story = Callable[[Market], Coroutine[Any, Any, None]]


def play(path: Path, *stories: Story, mechanism: str = "auction", stop: bool = False) -> None:
    """Each story on a server of its own, one after the other on the same data."""
    clock = VirtualClock()

    async def scene(story: Story, first: bool) -> None:
        world = Market(1, path, clock)
        await world.open()
        if first:
            await world.divide(mechanism)
        try:
            await story(world)
            if stop:
                await world.exchange.stop()
        finally:
            await world.close()

    for number, story in enumerate(stories):
        asyncio.run(scene(story, number == 0))


@pytest.mark.parametrize("stop", [False, True], ids=["after a crash", "after a stop"])
def test_the_price_and_what_a_mechanism_remembers_are_there_after_a_restart(
    tmp_path: Path, stop: bool
) -> None:
    seen: list[Carried] = []

    async def before(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        await world.wish("a", "p", 600, max_price="3.00")
        await world.wish("b", "q", 600, max_price="2.00")
        await world.seconds(20)
        seen.append(world.exchange.auctioneer.carried())

    async def after(world: Market) -> None:
        seen.append(world.exchange.auctioneer.carried())

    play(tmp_path / "db", before, after, mechanism="karma", stop=stop)
    was, now = seen
    assert was.memory.amounts.keys() == {"a", "b"}
    assert now == was


def test_what_is_posted_after_a_restart_is_what_was_posted_before(tmp_path: Path) -> None:
    posted: list[int] = []

    async def before(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        await world.wish("a", "p", 600, max_price="3.00", term="1h")
        await world.wish("b", "q", 600, max_price="2.00")
        await world.seconds(120)
        posted.append(world.exchange.auctioneer.prices.slow.posted_micros)
        assert posted[0] > MICROS // 10, "it rose from the reserve"

    async def after(world: Market) -> None:
        await world.agent("c")
        await world.wish("c", "now", 400, max_price="2.50", **LATENCY)
        await world.seconds()
        (lease,) = world.leases("c")
        assert parse_credits(lease["spec"]["price"]) == posted[0], "before any clearing of this server"

    play(tmp_path / "db", before, after)


def test_an_agent_that_paced_goes_on_pacing(tmp_path: Path) -> None:
    async def before(world: Market) -> None:
        await world.agent("a", {"strategy": "pacing", "maxPrice": "8.00"}, income="0.1/h", balance="5")
        await world.agent("b")
        await world.wish("b", "rival", 1000, max_price="9.00", restart_cost="50", term="1h")
        await world.seconds(2)
        spend = world.exchange.treasury
        spend.transfer("spend", "agent:a", "revenue:default", MICROS, world.clock.now_ms())
        await world.seconds(30)
        pace = world.exchange.auctioneer.carried().pacing["a"]
        assert pace.mu > 0

    async def after(world: Market) -> None:
        await world.wish("a", "p", 500)
        assert 0.1 < float(world.price("a", "p")) < 4, "the first bid of this server is shaded already"

    play(tmp_path / "db", before, after)


@pytest.mark.parametrize("mechanism", ["karma", "fairshare"])
def test_nothing_is_remembered_of_an_agent_for_the_next_of_its_name(tmp_path: Path, mechanism: str) -> None:
    async def before(world: Market) -> None:
        await world.agent("a", {"strategy": "pacing", "maxPrice": "8.00"}, income="0.1/h", balance="5")
        await world.agent("b")
        await world.wish("b", "q", 400, max_price="2.00")
        await world.wish("a", "p", 600, max_price="3.00")
        await world.seconds(10)
        remembered = world.exchange.auctioneer.carried()
        assert "a" in remembered.memory.amounts and "a" in remembered.pacing
        # Between two clearings.
        await world.api.delete_cluster("a")
        await world.api.delete(FLEET, AGENTS, "", "a")
        await world.step()
        assert world.api.find(FLEET, AGENTS, "", "a") is None
        remembered = world.exchange.auctioneer.carried()
        assert "a" not in remembered.memory.amounts and "a" not in remembered.pacing
        assert "b" in remembered.memory.amounts
        await world.agent("a")

    async def after(world: Market) -> None:
        remembered = world.exchange.auctioneer.carried()
        assert "a" not in remembered.memory.amounts and "a" not in remembered.pacing

    play(tmp_path / "db", before, after, mechanism=mechanism)


def test_a_clearing_alone_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    async def story(world: Market) -> None:
        await world.agent("a")
        await world.seconds(10)
        was, submit, groups = world.exchange.auctioneer.carried(), world.store.submit, []

        def count(group: Any, done: Callable[[Exception | None], None]) -> None:
            groups.append(group)
            submit(group, done)

        world.store.submit = count  # type: ignore[method-assign]
        await world.seconds(4)
        assert world.exchange.auctioneer.carried().memory.at_ms == was.memory.at_ms + 4_000
        assert groups == [], "no agent was paid, no lease ran"

    play(tmp_path / "db", story, mechanism="karma")


def test_a_step_that_the_store_refused_is_forgotten_with_what_it_carried(tmp_path: Path) -> None:
    async def story(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        await world.wish("a", "p", 600, max_price="3.00")
        await world.seconds(3)
        was = world.exchange.auctioneer.carried()
        await world.wish("b", "q", 600, max_price="2.00")
        world.clock.advance(1000)
        submit = world.store.submit

        def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
            done(StorageError("the disk is full"))

        world.store.submit = refuse  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            await world.exchange.step()
        world.store.submit = submit  # type: ignore[method-assign]
        assert world.exchange.auctioneer.prices.price_micros > was.price_micros
        world.exchange.reload()
        assert world.exchange.auctioneer.carried() == was

    play(tmp_path / "db", story)


def test_all_that_is_carried_is_read_back_as_it_was(tmp_path: Path) -> None:
    kept = Carried(
        at_ms=5_000,
        price_micros=7,
        slow=Slow(8, 9, 4_000),
        memory=Memory("karma", 5_000, {"a": -3, "b": 10**18}),
        escrows=(
            Escrow("a/default/gang", 1, (Share("n/gpu-0", 1000, 0, MigInstance("1g.10gb", 2)),), 9_000),
        ),
        pacing={"a": Pace(250_000, 5_000, 12)},
    )

    async def story(world: Market) -> None:
        tx = world.api.transaction()
        Shelf(world.store, "other").store(tx, kept.at_ms, lambda: kept)
        await tx.commit()
        assert Shelf(world.store, "other").read() == kept
        assert Shelf(world.store, "third").read() == Carried()

    play(tmp_path / "db", story)


def test_what_cannot_be_read_begins_anew_and_the_server_starts(tmp_path: Path) -> None:
    async def before(world: Market) -> None:
        tx = world.api.transaction()
        tx.execute("INSERT OR REPLACE INTO markets VALUES (?, ?)", [("default", b'{"price_micros": "dear"}')])
        await tx.commit()

    async def after(world: Market) -> None:
        assert world.exchange.auctioneer.carried() == Carried()
        await world.agent("a")
        await world.wish("a", "p", 600)
        await world.seconds(2)
        assert world.phases("a") == ["Active"]

    play(tmp_path / "db", before, after)


def test_room_that_is_kept_for_a_large_bid_is_kept_over_a_restart_and_from_those_that_arrive(
    tmp_path: Path,
) -> None:
    """Two halves end one after the other: the first that ends is kept free until the other has ended too."""
    kept: list[Any] = []

    async def before(world: Market) -> None:
        for agent in ("small", "large", "late"):
            await world.agent(agent)
        await world.wish("small", "one", 500, max_price="1.00", term="20s")
        await world.seconds(8)
        await world.wish("small", "two", 500, max_price="1.00", term="20s")
        await world.seconds(2)
        await world.wish("large", "all", 1000, max_price="2.00")
        await world.seconds(1)
        kept.extend(world.exchange.auctioneer.carried().escrows)
        assert [each.bid for each in kept] == ["large/default/all"]
        await world.seconds(12)
        assert sorted(world.phases("small")) == ["Active", "Ended"]

    async def after(world: Market) -> None:
        assert [each.bid for each in world.exchange.auctioneer.carried().escrows] == ["large/default/all"]
        await world.wish("late", "quick", 500, max_price="1.50", term="1h", **LATENCY)
        await world.seconds()
        assert world.phases("late") == []
        await world.seconds(20)
        assert world.phases("large") == ["Active"]

    play(tmp_path / "db", before, after)
