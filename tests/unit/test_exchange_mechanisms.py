"""A pool's mechanism and an agent's strategy, from the objects that name them to leases and bids."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.market import Market

from walras.core.clock import rfc3339
from walras.core.money import MICROS, parse_credits
from walras.exchange.demand import AGENTS, FLEET, POOLS
from walras.exchange.holding import LEASES
from walras.exchange.podbid import PRIORITY_CLASSES
from walras.kube.registry_builtin import walras_kinds
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.strategies.registry import STRATEGIES

LATENCY: dict[str, Any] = {"class": "latency"}


def play(story: Callable[[Market], Coroutine[Any, Any, None]], mechanism: str, devices: int = 1) -> None:
    async def scene() -> None:
        world = Market(devices)
        await world.open()
        await world.divide(mechanism)
        try:
            await story(world)
            assert world.exchange.treasury.ledger.balanced()
        finally:
            await world.close()

    asyncio.run(scene())


def names(kind: str, *path: str) -> set[str]:
    raw: Any = next(each.raw_schema for each in walras_kinds() if each.kind == kind)
    for name in ("spec", *path):
        raw = raw["properties"][name]
    return set(raw["enum"])


def test_a_pool_may_name_every_mechanism_and_an_agent_every_strategy() -> None:
    assert names("Pool", "mechanism") == set(MECHANISMS)
    assert names("Agent", "market", "strategy") == set(STRATEGIES)


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_under_every_mechanism_a_pod_wins_its_lease_and_keeps_it(mechanism: str) -> None:
    async def story(world: Market) -> None:
        await world.agent("a", income="4/h")
        await world.wish("a", "p", 500, term="10s")
        await world.seconds(30)
        assert world.phases("a") == ["Active"]
        free = mechanism not in ("auction", "posted", "proportional")
        assert (world.exchange.treasury.ledger.account("revenue:default").credits_posted == 0) is free

    play(story, mechanism)


def test_a_priority_class_preempts_with_notice() -> None:
    async def story(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        high = {"metadata": {"name": "high"}, "value": 1000}
        await world.api.create("b", PRIORITY_CLASSES, high)
        await world.wish("a", "low")
        await world.seconds(6)
        await world.wish("b", "high", spec={"priorityClassName": "high"})
        await world.seconds(1)
        assert world.bid("b", "high")["spec"]["priority"] == 1000
        held = world.api.list("a", LEASES)[0]["status"]
        assert (held["phase"], held["reason"]) == ("Draining", "Preempted")
        await world.seconds(3)
        assert world.phases("b") == ["Active"]
        await world.wish("a", "back", spec={"priority": 1001})
        await world.seconds(6)
        assert "Active" in world.phases("a") and world.phases("b") == ["Ended"]

    play(story, "priority")


def test_a_static_part_is_all_that_an_agent_gets() -> None:
    async def story(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        for name in ("one", "two"):
            await world.wish("a", name)
        await world.seconds(2)
        assert world.phases("a") == ["Active"]
        assert {world.bid("a", name)["status"]["phase"] for name in ("one", "two")} == {"Leased", "Refused"}
        assert world.reason("a", "two") == "OverShare"

    play(story, "static", devices=2)


def test_by_drf_who_has_most_gives_way_at_the_end_of_a_term() -> None:
    async def story(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        for name in ("one", "two"):
            await world.wish("a", name, term="10s")
        await world.seconds(2)
        await world.wish("b", "late")
        await world.seconds(8)
        drained = [each["status"] for each in world.api.list("a", LEASES) if "reason" in each["status"]]
        assert [each["reason"] for each in drained] == ["NotRenewed"]
        await world.seconds(4)
        assert world.phases("b") == ["Active"]

    play(story, "drf", devices=2)


def test_what_a_mechanism_remembers_reaches_its_next_clearing() -> None:
    """a uses 750 milli-GPU more than its guarantee for ten seconds, of which b lends 250."""

    async def story(world: Market) -> None:
        for agent in "ab":
            await world.agent(agent)
        await world.wish("a", "p")
        await world.seconds(1)
        before = world.exchange.auctioneer.carried().memory
        await world.seconds(10)
        after = world.exchange.auctioneer.carried().memory
        spent = before.amounts["a"] - after.amounts["a"]
        earned = after.amounts["b"] - before.amounts["b"]
        assert after.at_ms - before.at_ms == 10_000
        assert (spent, earned) == ((750 - 250) * 10_000, (250 + 250) * 10_000)

    play(story, "karma")


def test_pacing_shades_what_a_pod_bids_that_names_no_price() -> None:
    """An income of 0.10 an hour and leases at 4.00: bids fall, and those that wait are written anew."""

    async def story(world: Market) -> None:
        policy = {"strategy": "pacing", "maxPrice": "8.00"}
        await world.agent("a", policy, income="0.1/h", balance="5")
        await world.agent("b")
        await world.wish("b", "rival", 1000, max_price="4.00", restart_cost="50")
        await world.seconds(2)
        assert world.phases("b") == ["Active"]
        await world.wish("a", "first", 500)
        await world.wish("a", "named", 500, max_price="3.50")
        assert world.price("a", "first") == "8.00"
        await world.seconds(30)
        # Nothing was spent yet, so nothing is shaded.
        assert world.price("a", "first") == "8.00"
        account = world.exchange.treasury
        account.transfer("spend", "agent:a", "revenue:default", MICROS, world.clock.now_ms())
        await world.seconds(30)
        assert float(world.price("a", "first")) < 4.00
        assert world.price("a", "named") == "3.50"

    play(story, "auction")


def test_a_deadline_raises_the_bid_as_it_comes_near() -> None:
    async def story(world: Market) -> None:
        await world.agent("a", {"strategy": "deadline", "maxPrice": "8.00"})
        await world.agent("b")
        await world.wish("b", "rival", max_price="9.00", term="1h")
        await world.seconds(2)
        deadline = rfc3339(world.clock.now_ms() + 200_000)
        await world.wish("a", "p", deadline=deadline, term="60s")
        prices = [world.price("a", "p")]
        for _ in range(3):
            await world.seconds(50)
            prices.append(world.price("a", "p"))
        assert [float(price) for price in prices] == sorted(float(price) for price in prices)
        # At the value, but for a last step that is not worth writing.
        assert prices[0] == "0.10" and 8 >= float(prices[-1]) > 7.84

    play(story, "auction")


def test_without_money_the_reserve_is_bid_and_the_market_says_what_is_missing() -> None:
    async def story(world: Market) -> None:
        await world.agent("a", {"strategy": "pacing", "maxPrice": "8.00"}, balance="0")
        await world.wish("a", "p")
        await world.seconds(1)
        assert (world.price("a", "p"), world.reason("a", "p")) == ("0.10", "InsufficientFunds")

    play(story, "auction")


def test_a_guarantee_that_others_use_earns_what_they_pay() -> None:
    """In a pool that one agent has to itself, at one price, half of what it pays is the owner's."""

    async def story(world: Market) -> None:
        await world.agent("owner", guaranteed=500)
        await world.agent("user")
        await world.wish("user", "p", 1000, term="60s")
        await world.seconds(61)
        treasury = world.exchange.treasury
        paid = treasury.ledger.account("revenue:default").credits_posted
        shared = treasury.ledger.account("revenue:default").debits_posted
        assert 0 < shared <= paid
        earned = treasury.balance("owner") - 100 * MICROS
        # Half by the guarantee, a quarter by weight; every payment of 13 rounds once.
        assert abs(earned - shared * 3 // 4) <= 13
        budget: dict[str, Any] = {"income": "0/h", "guaranteed": 1000}
        await world.api.edit(FLEET, AGENTS, "", "user", lambda agent: agent["spec"].update(budget=budget))
        was = treasury.balance("owner")
        await world.seconds(60)
        shared = treasury.ledger.account("revenue:default").debits_posted - shared
        # 1500 of 1000 are guaranteed: a third is the owner's, and nothing goes by weight.
        assert abs(treasury.balance("owner") - was - shared // 3) <= 13

    play(story, "auction")


def test_karma_goes_by_what_an_agent_is_guaranteed() -> None:
    async def story(world: Market) -> None:
        await world.agent("a", guaranteed=800)
        await world.agent("b", guaranteed=0)
        await world.wish("a", "p", 800)
        await world.seconds(1)
        before = world.exchange.auctioneer.carried().memory
        await world.seconds(10)
        after = world.exchange.auctioneer.carried().memory
        # Nothing is borrowed; what nobody is guaranteed is given by weight.
        gained = {agent: after.amounts[agent] - before.amounts[agent] for agent in "ab"}
        assert gained == {"a": 100 * 10_000, "b": 100 * 10_000}

    play(story, "karma")


def test_the_posted_price_follows_the_market_slowly_and_is_what_arrivals_pay() -> None:
    async def story(world: Market) -> None:
        for agent in "abc":
            await world.agent(agent)
        await world.wish("a", "p", 600, max_price="3.00", term="1h")
        await world.wish("b", "q", 600, max_price="2.00")
        await world.seconds(61)
        pool = world.api.get(FLEET, POOLS, "", "default")["status"]
        assert parse_credits(pool["price"]) > MICROS, "the best that lost"
        assert 100_000 < parse_credits(pool["postedPrice"]) <= 105_000, "at most 5 % a minute"
        assert pool["reserve"] == "0.10"
        (shown,) = (await world.ask("c", "c", "prices"))["pools"]
        assert (shown["price"], shown["reserve"]) == (pool["price"], "0.10")
        assert 100_000 < parse_credits(shown["postedPrice"]) <= 105_000
        await world.wish("c", "now", 300, max_price="2.50", **LATENCY)
        (lease,) = world.leases("c")
        assert 100_000 < parse_credits(lease["spec"]["price"]) <= 105_000

    play(story, "auction")


def test_the_reserve_rises_while_the_pool_is_full_and_what_is_below_it_is_refused() -> None:
    async def story(world: Market) -> None:
        await world.api.edit(
            FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(reservePriceMax="0.20")
        )
        await world.agent("a")
        await world.agent("b")
        await world.wish("a", "p", 950, max_price="3.00", term="1h")
        await world.seconds(300)
        reserve = world.exchange.auctioneer.prices.slow.reserve_micros
        assert 115_000 < reserve < 130_000, "five minutes at 5 %"
        await world.wish("b", "q", 50, max_price="0.11")
        await world.seconds(1)
        assert world.reason("b", "q") == "BelowReserve"
        await world.api.edit(FLEET, POOLS, "", "default", lambda pool: pool["spec"].pop("reservePriceMax"))
        await world.seconds(1)
        assert world.exchange.auctioneer.prices.slow.reserve_micros == 100_000
        assert world.phases("b") == ["Active"]

    play(story, "auction")
