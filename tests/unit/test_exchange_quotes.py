"""A quote is what the market then does: for the agent that asks, of nobody else, at no cost to others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support import docs
from support.market import Market

from walras.core.errors import (
    AlreadyExists,
    BadRequest,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    StorageError,
    TooManyRequests,
    WalrasError,
)
from walras.core.money import charge, parse_credits
from walras.exchange.demand import BIDS
from walras.exchange.quotes import BURST, CALLERS_KEPT
from walras.exchange.turns import PACKAGES_A_TURN
from walras.kube.record import Object
from walras.market.mechanisms.registry import MECHANISMS

HTTP = docs.DOCS / "reference" / "http.md"
Story = Callable[[Market], Coroutine[Any, Any, None]]


def play(story: Story, mechanism: str = "auction", devices: int = 1) -> None:
    async def scene() -> None:
        world = Market(devices)
        await world.open()
        await world.divide(mechanism)
        try:
            await story(world)
        finally:
            await world.close()

    asyncio.run(scene())


def a_bid(price: str, milli: int = 500, job_class: str = "standard", **package: Any) -> Object:
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": "wish", "namespace": "default"},
        "spec": {
            "class": job_class,
            "packages": [{"milliGPU": milli, "maxPrice": price, "term": "60s", **package}],
        },
    }


async def crowd(world: Market) -> None:
    """One device: a holds 600 of it for up to 1.00, another bid of a's waits, b has nothing."""
    for agent in "ab":
        await world.agent(agent)
    await world.wish("a", "held", 600, max_price="1.00", term="1h", restart_cost="0.001")
    await world.seconds(2)
    await world.wish("a", "waits", 600, max_price="0.50")
    await world.seconds(8)


def test_who_waited_is_told_nothing_of_the_next_agent_of_the_name() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        async with world.exchange.turn:
            quote = asyncio.create_task(world.ask("b", "b", "quote", a_bid("5.00")))
            await asyncio.sleep(0.05)
            assert not quote.done()
            await world.api.delete_cluster("b")
            await world.api.create_cluster("b")
        with pytest.raises(NotFound):
            await quote

    play(story)


@pytest.mark.parametrize("job_class", ["standard", "latency"])
@pytest.mark.parametrize("price", ["0.05", "0.20", "0.90", "5.00"])
@pytest.mark.parametrize("milli", [300, 900])
@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_what_is_quoted_is_what_then_happens(mechanism: str, milli: int, price: str, job_class: str) -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        quote = await world.ask("b", "b", "quote", a_bid(price, milli, job_class))
        await world.api.create("b", BIDS, a_bid(price, milli, job_class))
        if job_class == "standard":
            world.exchange._tick_at_ms = world.clock.now_ms()
        await world.seconds()
        status = world.bid("b", "wish")["status"]
        if quote["outcome"] == "Refused":
            assert status["phase"] == "Refused"
            assert status["explanation"] == quote["explanation"]
            return
        (lease,) = world.leases("b")
        assert (lease["spec"]["price"], quote["milliGPU"]) == (quote["price"], milli)
        assert lease["status"]["phase"] == {"Now": "Active", "AfterNotice": "Reserved"}[quote["starts"]]
        assert world.exchange.treasury.held("b") == parse_credits(quote["cost"])
        gone = [each for each in world.leases("a") if each["status"]["phase"] == "Draining"]
        assert quote["displaces"] == (len(gone) > 0)

    play(story, mechanism)


def test_a_quote_says_what_it_would_cost_to_displace_others() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        quote = await world.ask("b", "b", "quote", a_bid("5.00", 900, "latency"))
        assert quote == {
            "apiVersion": "walras.dev/v1alpha1", "kind": "Quote", "at": quote["at"], "agent": "b",
            "class": "latency", "outcome": "Won", "package": 0, "devices": 1, "milliGPU": 900,
            "memory": quote["memory"], "price": quote["price"], "starts": "AfterNotice", "notice": "2s",
            "term": "1m", "cost": quote["cost"], "displaces": True, "compensation": "0.001",
        }  # fmt: skip
        assert parse_credits(quote["cost"]) == charge(parse_credits(quote["price"]), 900, 60_000)

    play(story)


def test_a_quote_changes_nothing() -> None:
    async def story(world: Market) -> None:
        await crowd(world)

        def everything() -> Any:
            exchange = world.exchange
            return (
                [world.api.list(agent, resource) for agent in "ab" for resource in (BIDS, "events")],
                exchange.treasury.ledger.seq,
                exchange.auctioneer.carried(),
                [repr(holding) for holding in exchange.holdings.values()],
                world.api.revision("b"),
            )

        was = everything()
        for price in ("0.01", "9.00"):
            for job_class in ("latency", "batch"):
                await world.ask("b", "b", "quote", a_bid(price, job_class=job_class))
        assert everything() == was

    play(story)


def test_nothing_of_other_agents_is_told() -> None:
    async def story(world: Market) -> None:
        await world.agent("a")
        await world.agent("b")
        await world.wish("a", "classified", 700, max_price="1.234567", term="1h", restart_cost="0.654321")
        await world.seconds(8)
        await world.wish("a", "sealed", 700, max_price="0.765432")
        await world.seconds(1)
        # The price is for all to see, and is the best bid that lost.
        secrets = {"classified", "sealed", "1.234567", "0.654321", "local", "gpu-", '"a"'}
        secrets |= {lease["metadata"]["name"] for lease in world.leases("a")}
        secrets |= {lease["status"]["node"] for lease in world.leases("a")}
        for price in ("0.01", "0.50", "1.00", "9.00"):
            for job_class in ("latency", "standard"):
                quote = json.dumps(await world.ask("b", "b", "quote", a_bid(price, 300, job_class)))
                assert not [secret for secret in secrets if secret in quote]
                world.clock.advance(1000)

    play(story)


def test_the_spec_of_a_bid_will_do_and_several_packages_say_which_wins() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        spec = a_bid("0.20", 900)["spec"]
        spec["packages"] += a_bid("0.30", 200)["spec"]["packages"]
        quote = await world.ask("b", "b", "quote", spec)
        assert (quote["outcome"], quote["package"], quote["milliGPU"]) == ("Won", 1, 200)

    play(story)


def test_a_refusal_says_what_would_win() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        said = (await world.ask("b", "b", "quote", a_bid("0.05", 300)))["explanation"]
        assert said["reason"] == "BelowReserve"
        assert (await world.ask("b", "b", "quote", a_bid(said["winningPrice"], 300)))["outcome"] == "Won"

    play(story)


def test_who_has_too_many_bids_is_told_that_this_one_would_wait_its_turn() -> None:
    async def story(world: Market) -> None:
        await world.agent("a")
        for number in range(PACKAGES_A_TURN // 8):
            bid = a_bid("0.02")
            bid["metadata"]["name"] = f"bid-{number}"
            bid["spec"]["packages"] *= 8
            await world.api.create("a", BIDS, bid)
        quote = await world.ask("a", "a", "quote", a_bid("0.01"))
        assert (quote["outcome"], quote["explanation"]["reason"]) == ("Refused", "Queued")
        assert (await world.ask("a", "a", "quote", a_bid("0.30")))["outcome"] == "Won"

    play(story)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"packages": []}, Invalid, "spec.packages"),
        ({"class": "urgent"}, Invalid, "spec.class"),
        ({"packages": [{"maxPrice": "dear"}]}, Invalid, "maxPrice"),
        ({"packages": [{"maxPrice": "1", "term": "1ms"}]}, Invalid, "term"),
        ({"packages": [{"maxPrice": "1"}] * 9}, Invalid, "spec.packages"),
        ({"packages": [{"maxPrice": "1", "pool": "other"}]}, Invalid, "pool"),
        ({"packages": [{"maxPrice": "1", "selector": "device."}]}, Invalid, "selector"),
        ({"packages": [{"maxPrice": "1", "gpus": 1}]}, BadRequest, 'unknown field "spec.packages[0].gpus"'),
    ],
)
def test_a_bid_that_could_not_be_made_is_not_quoted_either(
    change: Object, error: type[WalrasError], says: str
) -> None:
    async def story(world: Market) -> None:
        await world.agent("a")
        bid = a_bid("1.00")
        bid["spec"] |= change
        with pytest.raises(error, match=says.replace("[", r"\[")):
            await world.ask("a", "a", "quote", bid)

    play(story)


def test_what_is_no_bid_or_nowhere_is_refused_in_words() -> None:
    async def story(world: Market) -> None:
        await world.agent("a")
        refused: list[tuple[Any, type[WalrasError]]] = [
            ({}, Invalid),
            ({"spec": []}, WalrasError),
            ({"kind": "Pod", "spec": {}}, WalrasError),
            ({**a_bid("1.00"), "metadata": {"namespace": 7}}, BadRequest),
            ({**a_bid("1.00"), "metadata": {"namespace": "nowhere"}}, NotFound),
        ]
        for body, error in refused:
            with pytest.raises(error):
                await world.ask("a", "a", "quote", body)
            world.clock.advance(1000)
        await world.api.create("a", BIDS, a_bid("0.01"))
        with pytest.raises(AlreadyExists):
            await world.ask("a", "a", "quote", a_bid("1.00"))
        for cluster in ("fleet", "*"):
            with pytest.raises(BadRequest):
                await world.ask("", cluster, "quote", a_bid("1.00"))
        with pytest.raises(MethodNotAllowed):
            await world.ask("a", "a", "quote")
        with pytest.raises(MethodNotAllowed):
            await world.ask("a", "a", "prices", {})

    play(story)


def test_an_agent_gets_no_quote_in_the_cluster_of_another() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        for cluster in ("a", "fleet", "*", "none"):
            with pytest.raises(Forbidden):
                await world.ask("b", cluster, "quote", a_bid("1.00"))
        assert (await world.ask("", "a", "quote", a_bid("0.30", 100)))["outcome"] == "Won", "the operator may"

    play(story)


def test_a_flood_of_quotes_is_cut_off_and_holds_up_nobody_else() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        answers = await asyncio.gather(
            *(world.ask("a", "a", "quote", a_bid("0.30", 100)) for _ in range(200)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, TooManyRequests)]
        assert len(refused) >= 200 - BURST
        assert {refusal.retry_after_s for refusal in refused} == {1}
        assert all(isinstance(answer, dict) for answer in answers if answer not in refused)
        assert (await world.ask("b", "b", "quote", a_bid("0.30", 100)))["outcome"] == "Won"
        world.clock.advance(1000)
        await world.ask("a", "a", "quote", a_bid("0.30", 100))

    play(story)


def test_the_market_goes_on_while_a_quote_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        working, done = asyncio.Event(), asyncio.Event()

        async def in_a_thread(work: Callable[..., Any], *arguments: Any) -> Any:
            working.set()
            await done.wait()
            return work(*arguments)

        monkeypatch.setattr(asyncio, "to_thread", in_a_thread)
        quotes = [asyncio.create_task(world.ask("b", "b", "quote", a_bid("0.30", 100))) for _ in range(2)]
        await working.wait()
        before = world.exchange.auctioneer.prices.at_ms
        await world.seconds(3)
        assert world.exchange.auctioneer.prices.at_ms == before + 3_000
        done.set()
        assert {quote["outcome"] for quote in await asyncio.gather(*quotes)} == {"Won"}

    play(story)


def test_callers_that_ask_no_more_are_forgotten() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        quotes = world.views._quotes
        for number in range(CALLERS_KEPT + 50):
            async with quotes._admitted(f"agent-{number}"):
                pass
        world.clock.advance(60_000)
        await world.ask("b", "b", "quote", a_bid("0.30", 100))
        assert len(quotes._callers) == 1

    play(story)


def test_no_quote_is_given_on_what_the_store_has_not_taken() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        submit = world.store.submit

        def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
            done(StorageError("the disk is full"))

        world.store.submit = refuse  # type: ignore[method-assign]
        world.clock.advance(1000)
        with pytest.raises(StorageError):
            await world.exchange.step()
        with pytest.raises(WalrasError, match="refuses writes"):
            await world.ask("b", "b", "quote", a_bid("0.30", 100))
        world.store.submit = submit  # type: ignore[method-assign]
        world.exchange.reload()
        await world.ask("b", "b", "quote", a_bid("0.30", 100))

    play(story)


def test_every_key_of_a_quote_is_documented() -> None:
    async def story(world: Market) -> None:
        await crowd(world)
        keys: set[str] = set()
        for price in ("0.01", "9.00"):
            keys |= (await world.ask("b", "b", "quote", a_bid(price))).keys()
        tables = docs.rows(docs.section(HTTP, "Prices, cost, ledger, quotes and grants"))
        (row,) = (row for row in tables if row[0] == "`quote`")
        documented = set(re.findall(r"`([A-Za-z]+)`", row[2]))
        assert keys - {"apiVersion", "kind"} <= documented

    play(story)
