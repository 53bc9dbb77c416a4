"""A renewal costs what the market reckoned with: a term at the new price, from the end of the old one."""

from __future__ import annotations

from support.exchange import World, play


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
