"""Cards that are held out of the market: by programs that are there still, or by the operator."""

from __future__ import annotations

from typing import Any

from support.cards import Cards, play

from walras.core.money import charge
from walras.cost import usage
from walras.exchange.demand import FLEET, PODS
from walras.exchange.health import OCCUPIED
from walras.kube.policy import SLICES

RESERVE = 100_000


def test_a_program_that_does_not_die_holds_its_card_out_of_the_market_and_nobody_up() -> None:
    async def story(world: Cards) -> None:
        await world.agent("train")
        await world.pod("train", "epoch", 1000, "2.00")
        await world.step(1000)
        device = world.leases("train")[0]["spec"]["devices"][0]["device"]
        at = int(device[-1])
        node = world.node("train")["metadata"]["name"]
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
        node = world.node("train")["metadata"]["name"]
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
        await world.mig_pod("search", "query")
        await world.step(1000)
        assert world.nodes("search") == []
        assert world.taints() == {OCCUPIED: "NoSchedule"}
        assert world.exchange.treasury.held("search") == 0
        world.cards.end(4711)
        await world.look()
        await world.step(2000)
        assert len(world.instances()) == len(world.nodes("search")) == 1

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
        await world.untaint()
        await world.step(2000)
        assert len(world.nodes("search")) == 1

    play(story, "H100")


def test_a_card_that_is_to_be_emptied_keeps_its_leases_to_the_end_of_their_term() -> None:
    async def story(world: Cards) -> None:
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        await world.bind("search", "query", world.node("search")["metadata"]["name"])
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
