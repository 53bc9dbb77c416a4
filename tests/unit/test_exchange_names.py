"""Who takes the name of another has neither its lease nor its money, and is not taken for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.exchange import World, play

from walras.core.errors import NotFound
from walras.core.money import MICROS
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS
from walras.exchange.holding import LEASES
from walras.kube.record import Key, Object


def a_bid(price: str = "2.00", milli: int = 400, job_class: str = "standard") -> Object:
    return {
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {
            "class": job_class,
            "packages": [{"milliGPU": milli, "maxPrice": price, "term": "60s"}],
        },
    }


async def again(world: World, **how: Any) -> None:
    """The bid is taken back, and another one made by its name."""
    await world.api.delete("a", BIDS, "default", "b")
    await world.api.create("a", BIDS, a_bid(**how))


def test_a_bid_made_by_the_name_of_one_that_won_wins_for_itself_and_the_other_lease_ends() -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        await world.api.create("a", BIDS, a_bid(milli=400))
        await world.step(1000)
        (first,) = world.exchange.holdings.values()
        await again(world, milli=300)
        await world.step(1000)
        (second,) = world.exchange.holdings.values()
        assert (first.milli, second.milli) == (400, 300)
        assert world.bid("a", "b")["status"]["lease"] == second.name
        assert world.exchange.treasury.ledger.holds.keys() == set(second.holds)

    play(story)


def test_a_notice_to_a_lease_does_not_concern_a_bid_that_has_its_bids_name_by_now() -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        await world.agent("other")
        await world.api.create("a", BIDS, a_bid("0.50", 1000, "batch"))
        await world.step(1000)
        (lease,) = world.leases("a")
        world.runtime.slow.add(("a", lease["status"]["node"]))
        await again(world, price="0.40", milli=1000)
        await world.step(6000)
        assert [each["status"]["phase"] for each in world.leases("a")] == ["Active"]
        await world.pod("other", "query", 1000, "3.00", "latency")
        await world.step(1)
        assert (
            world.api.get("a", LEASES, "default", lease["metadata"]["name"])["status"]["phase"] == "Draining"
        )
        assert world.bid("a", "b")["status"]["phase"] == "Refused"
        world.runtime.slow.clear()
        world.runtime.freed.set()

    play(story)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_bid_that_is_replaced_while_the_market_decides_wins_by_what_it_says_then(first: bool) -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        await world.api.create("a", BIDS, a_bid("9.00", 700))
        await world.manager.settle()
        world.clock.advance(1000)

        def cheaper(bid: Object) -> None:
            bid["spec"]["packages"] = [{"milliGPU": 200, "maxPrice": "0.30", "term": "60s"}]

        edit = world.api.edit("a", BIDS, "default", "b", cheaper)
        turn = world.exchange.step()
        both = (edit, turn) if first else (turn, edit)
        await asyncio.gather(*map(asyncio.ensure_future, both))
        await world.step(1000)
        (holding,) = world.exchange.holdings.values()
        assert (holding.milli, holding.worth_micros) == ((200, 300_000) if first else (700, 9 * MICROS))

    play(story)


def test_an_agent_by_the_name_of_one_whose_leases_still_end_buys_nothing_on_its_account() -> None:
    async def story(world: World) -> None:
        await world.agent("a", balance="50")
        await world.pod("a", "p", 500, "2.00")
        await world.step(1000)
        (holding,) = world.exchange.holdings.values()
        world.runtime.slow.add(("a", holding.node))
        gone = world.api.transaction()
        gone.drop(Key(FLEET, AGENTS, "", "a"))
        await gone.commit()
        await world.api.delete_cluster("a")
        await world.step(1000)
        await world.agent("a", balance="7")
        await world.api.create("a", BIDS, a_bid())
        await world.step(3000)
        assert list(world.exchange.holdings.values()) == [holding]
        with pytest.raises(NotFound):
            await world.exchange.grant("a", MICROS, "gift", force=True)
        world.runtime.slow.clear()
        world.runtime.freed.set()
        await world.step(1000)
        await world.step(1000)
        (lease,) = world.leases("a")
        assert lease["status"]["phase"] == "Active"
        assert world.exchange.treasury.balance("a") <= 7 * MICROS
        assert world.api.list("a", PODS) == []

    play(story)
