"""Credits that the operator adds: once for each id, on the record, and not above the cap by accident."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.market import Market

from walras.core.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound, StorageError, WalrasError
from walras.core.money import MICROS
from walras.kube.record import Object


def play(story: Callable[[Market], Coroutine[Any, Any, None]]) -> None:
    async def scene() -> None:
        world = Market()
        await world.open()
        try:
            await world.agent("a", balance="10", walletCap="20")
            await story(world)
            assert world.exchange.treasury.ledger.balanced()
        finally:
            await world.close()

    asyncio.run(scene())


async def grant(world: Market, credits: str, id: str, **more: Any) -> Object:
    return await world.ask("", "fleet", "grants", {"agent": "a", "credits": credits, "id": id, **more})


def test_a_grant_adds_to_the_balance_once_for_each_id_and_is_in_the_statement() -> None:
    async def story(world: Market) -> None:
        made = await grant(world, "5", "march")
        assert made == {"agent": "a", "credits": "5.00", "id": "march", "made": True, "balance": "15.00"}
        again = await grant(world, "5", "march")
        assert again == {**made, "made": False}
        assert (await grant(world, "1", "april"))["balance"] == "16.00"
        statement = await world.ask("", "fleet", "statement", account="agent:a")
        grants = [entry for entry in statement["entries"] if entry["for"] == "grant"]
        assert [(entry["with"], entry["amount"]) for entry in grants] == [("mint", "5.00"), ("mint", "1.00")]

    play(story)


def test_it_is_repeated_safely_also_when_the_cap_is_reached_and_after_reading_back() -> None:
    async def story(world: Market) -> None:
        await grant(world, "10", "march")
        world.exchange.reload()
        assert (await grant(world, "10", "march"))["made"] is False
        assert world.exchange.treasury.balance("a") == 20 * MICROS

    play(story)


def test_one_above_the_wallet_cap_is_refused_unless_it_is_forced() -> None:
    async def story(world: Market) -> None:
        with pytest.raises(Conflict, match=r"21\.00 credits, above its wallet cap of 20\.00"):
            await grant(world, "11", "march")
        assert (await grant(world, "11", "march", force=True))["balance"] == "21.00"

    play(story)


def test_an_id_stands_for_one_amount() -> None:
    async def story(world: Market) -> None:
        await grant(world, "5", "march")
        with pytest.raises(Conflict, match=r'the grant "march" was of 5\.00'):
            await grant(world, "6", "march")

    play(story)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"agent": "none"}, NotFound),
        ({"credits": "0"}, Invalid),
        ({"credits": "-1"}, Invalid),
        ({"credits": 5}, BadRequest),
        ({"id": ""}, BadRequest),
        ({"id": "a\n"}, BadRequest),
        ({"id": "x" * 65}, BadRequest),
        ({"to": "b"}, BadRequest),
        ({"agent": None}, BadRequest),
    ],
)
def test_what_is_no_grant_is_refused(change: Object, error: type[WalrasError]) -> None:
    async def story(world: Market) -> None:
        with pytest.raises(error):
            await world.ask("", "fleet", "grants", {"agent": "a", "credits": "1", "id": "x", **change})
        assert world.exchange.treasury.balance("a") == 10 * MICROS

    play(story)


def test_only_the_operator_grants() -> None:
    async def story(world: Market) -> None:
        body = {"agent": "a", "credits": "1", "id": "x"}
        for who, cluster in (("a", "a"), ("a", "fleet"), ("", "a"), ("", "*")):
            with pytest.raises(Forbidden):
                await world.ask(who, cluster, "grants", body)

    play(story)


def test_a_grant_that_the_store_refuses_was_not_made() -> None:
    async def story(world: Market) -> None:
        submit = world.store.submit

        def refuse(group: Any, done: Callable[[Exception | None], None]) -> None:
            done(StorageError("the disk is full"))

        world.store.submit = refuse  # type: ignore[method-assign]
        with pytest.raises(StorageError):
            await grant(world, "5", "march")
        world.store.submit = submit  # type: ignore[method-assign]
        assert world.exchange.treasury.balance("a") == 10 * MICROS
        assert (await grant(world, "5", "march"))["made"] is True

    play(story)


def test_grants_and_steps_at_once_keep_the_books() -> None:
    async def story(world: Market) -> None:
        await world.wish("a", "p", 1000, max_price="2.00")

        async def steps() -> None:
            for _ in range(10):
                world.clock.advance(1000)
                await world.exchange.step()

        grants = [grant(world, "0.5", f"g{number}") for number in range(10)]
        await asyncio.gather(steps(), *grants)
        was = world.exchange.treasury.balance("a")
        world.exchange.reload()
        assert world.exchange.treasury.balance("a") == was

    play(story)
