"""A renewal costs what the market reckoned with: a term at the new price, from the end of the old one."""

from __future__ import annotations

from support.exchange import World, play

from walras.core.clock import rfc3339
from walras.core.money import format_credits, parse_credits
from walras.exchange.demand import BIDS
from walras.exchange.podbid import PRIORITY_CLASSES
from walras.kube.record import Object


def test_an_agent_that_can_just_pay_the_next_term_goes_on() -> None:
    """0.068667 covers a minute at 4.10, the bid's own price; what is left when a minute at the reserve is
    set aside covers the next at 4.00, but not also the seconds before it."""

    async def story(world: World) -> None:
        await world.agent("poor", balance="0.068667")
        await world.agent("rich")
        await world.pod("poor", "train", 1000, "4.10")
        await world.step(1_000)
        (lease,) = world.leases("poor")
        assert lease["spec"]["price"] == "0.10"
        await world.bind("poor", "train", lease["status"]["node"])
        await world.pod("rich", "rival", 1000, "4.00")
        for _ in range(60):
            await world.step(1_000)
        (lease,) = world.leases("poor")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["price"] == "4.00"

    play(story)


async def _edit_price(world: World, agent: str, name: str, price: str) -> None:
    def change(bid: Object) -> None:
        bid["spec"]["packages"][0]["maxPrice"] = price

    await world.api.edit(agent, BIDS, "default", name, change)


async def _held(world: World, agent: str, price: str) -> None:
    """The agent's pod runs on the only device, at so much at most."""
    await world.agent(agent)
    await world.pod(agent, "train", 1000, price)
    await world.step(1_000)
    (lease,) = world.leases(agent)
    await world.bind(agent, "train", lease["status"]["node"])


def test_a_lower_price_counts_when_the_term_is_over_and_not_before() -> None:
    async def story(world: World) -> None:
        await _held(world, "holder", "4.00")
        await _edit_price(world, "holder", "train", "1.00")
        await world.agent("rival")
        await world.pod("rival", "serve", 1000, "3.00", job_class="latency")
        for _ in range(50):
            await world.step(1_000)
        (lease,) = world.leases("holder")
        assert lease["status"]["phase"] == "Active"
        for _ in range(12):
            await world.step(1_000)
        assert [each["status"]["phase"] for each in world.leases("rival")] == ["Active"]
        message = world.bid("holder", "train")["status"]
        assert message["phase"] != "Leased"

    play(story)


def test_a_holder_that_comes_to_need_it_more_keeps_it_past_its_term() -> None:
    async def story(world: World) -> None:
        await _held(world, "holder", "2.00")
        await world.agent("rival")
        await world.pod("rival", "rival", 1000, "3.00")
        await _edit_price(world, "holder", "train", "4.00")
        for _ in range(70):
            await world.step(1_000)
        (lease,) = world.leases("holder")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["price"] == "3.00"
        assert world.leases("rival") == []

    play(story)


def test_a_price_that_is_raised_within_the_term_does_not_keep_a_denser_arrival_out() -> None:
    async def story(world: World) -> None:
        await _held(world, "holder", "2.00")
        await world.step(10_000)
        await _edit_price(world, "holder", "train", "9.00")
        await world.agent("rival")
        await world.pod("rival", "serve", 1000, "3.00", job_class="latency")
        for _ in range(5):
            await world.step(1_000)
        assert [each["status"]["phase"] for each in world.leases("rival")] == ["Active"]

    play(story)


def test_a_bid_that_cannot_be_read_any_more_leaves_its_lease_worth_what_it_was() -> None:
    async def story(world: World) -> None:
        await _held(world, "holder", "4.00")

        def unreadable(bid: Object) -> None:
            bid["spec"]["packages"][0]["selector"] = "no such selector ("

        await world.api.edit("holder", BIDS, "default", "train", unreadable)
        await world.agent("rival")
        await world.pod("rival", "rival", 1000, "3.00")
        for _ in range(70):
            await world.step(1_000)
        assert [each["status"]["phase"] for each in world.leases("holder")] == ["Active"]

    play(story)


def test_a_strategy_names_what_another_term_is_worth_to_it() -> None:
    """With its deadline near, an agent gives more than it won by."""

    async def story(world: World) -> None:
        await world.agent("late", market={"strategy": "deadline", "maxPrice": "8.00"})
        urgent = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {
                "name": "urgent",
                "annotations": {"walras.dev/deadline": rfc3339(world.clock.now_ms() + 180_000)},
            },
            "value": 0,
        }
        await world.api.create("late", PRIORITY_CLASSES, urgent)
        await world.step(1_000)
        await world.pod("late", "train", 1000, "", priorityClassName="urgent")
        await world.step(1_000)
        (lease,) = world.leases("late")
        await world.bind("late", "train", lease["status"]["node"])
        won_by = _price(world, "late", "train")
        await world.agent("rival")
        await world.pod("rival", "rival", 1000, format_credits(won_by + 500_000))
        for _ in range(70):
            await world.step(1_000)
        assert [each["status"]["phase"] for each in world.leases("late")] == ["Active"]
        assert _price(world, "late", "train") > won_by

    play(story)


def _price(world: World, agent: str, name: str) -> int:
    return parse_credits(world.bid(agent, name)["spec"]["packages"][0]["maxPrice"])
