"""Whatever is bid for, sold on and taken back in a mixed pool: devices hold what is sold, books balance."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.exchange import World, play

from walras.core.money import parse_credits
from walras.devices.mig import state_of
from walras.exchange.demand import BIDS, FLEET, POOLS
from walras.exchange.holding import LEASES
from walras.kube.record import Object

AGENTS = ("a", "b", "c")
prices = st.sampled_from(["0.05", "0.30", "0.90", "2.00", "7.50"])
shapes = st.one_of(
    st.fixed_dictionaries({"milliGPU": st.sampled_from([100, 300, 500, 1000])}),
    st.fixed_dictionaries({"migProfile": st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "1g.10gb+me"])}),
    st.fixed_dictionaries(
        {
            "devices": st.sampled_from([3, 4]),
            "devicesMin": st.sampled_from([1, 2]),
            "topology": st.sampled_from(["any", "node", "nvlink"]),
        }
    ),
    st.fixed_dictionaries({"devices": st.just(2), "migProfile": st.just("2g.20gb")}),
)
packages = st.builds(lambda shape, price: {"term": "20s", **shape, "maxPrice": price}, shapes, prices)
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("bid"),
            st.sampled_from(AGENTS),
            st.sampled_from(["latency", "standard", "batch"]),
            st.lists(packages, min_size=1, max_size=2),
        ),
        st.tuples(st.just("sell"), st.sampled_from(AGENTS), st.integers(0, 5), st.none() | prices),
        st.tuples(st.just("drop"), st.sampled_from(AGENTS), st.integers(0, 5)),
        st.tuples(st.just("speed"), st.sampled_from([250, 500, 1500])),
        st.tuples(st.just("wait"), st.sampled_from([1, 3, 19])),
    ),
    min_size=10,
    max_size=40,
)


async def do(world: World, number: int, what: str, *how: Any) -> None:
    match what, how:
        case "bid", (agent, job_class, some):
            made = {
                "metadata": {"name": f"b{number}", "namespace": "default"},
                "spec": {"class": job_class, "packages": some},
            }
            await world.api.create(agent, BIDS, made)
        case "sell", (agent, which, price) if world.leases(agent):
            leases = world.leases(agent)
            name = leases[which % len(leases)]["metadata"]["name"]

            def ask(lease: Object) -> None:
                lease["spec"].pop("resalePrice", None)
                lease["spec"] |= {"resalePrice": price} if price else {}

            await world.api.edit(agent, LEASES, "default", name, ask)
        case "drop", (agent, which) if bids := world.api.list(agent, BIDS):
            await world.api.delete(agent, BIDS, "default", bids[which % len(bids)]["metadata"]["name"])
        case "speed", (speed,):
            await world.api.edit(
                FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(speeds={"A100": speed})
            )
        case "wait", (seconds,):
            await world.step(seconds * 1000)
    await world.step(500)


def check_devices(world: World) -> None:
    """By plain addition, what runs or drains on each device fits it, and is cut or shared, not both."""
    supplied = {device.id: device for device in world.exchange._supply.devices}
    on = defaultdict(list)
    for holding in world.exchange.holdings.values():
        if holding.phase in ("Active", "Draining"):
            for share in holding.shares:
                on[share.device].append(share)
    for name, shares in on.items():
        device = supplied[name]
        assert sum(share.milli for share in shares) <= 1000, shares
        assert sum(share.memory_mib for share in shares) <= device.memory_mib, shares
        cuts = [share.mig for share in shares if share.mig is not None]
        assert len(cuts) in (0, len(shares)), shares
        if cuts:
            assert device.mig is not None
            state_of(device.mig, cuts)


def check_leases(world: World) -> None:
    """Each is one of its bid's packages, at no more than that pays."""
    for holding in world.exchange.holdings.values():
        assert holding.price_micros <= holding.worth_micros
        assert holding.term_ms == 20_000
        profiles = {share.mig.profile if share.mig else "" for share in holding.shares}
        assert len(profiles) == 1
        assert len({share.device for share in holding.shares}) == len(holding.shares)
        bid = world.api.find(holding.agent, BIDS, "default", holding.bid)
        if bid is not None:
            assert any(
                _is(package, holding.shares, holding.worth_micros) for package in bid["spec"]["packages"]
            )


def _is(package: Object, shares: Any, worth_micros: int) -> bool:
    devices: int = package.get("devices", 1)
    counts = range(package.get("devicesMin", devices), devices + 1)
    profile = shares[0].mig.profile if shares[0].mig else ""
    alike = profile == package.get("migProfile", "")
    milli = package.get("milliGPU", 1000)
    return (
        alike
        and len(shares) in counts
        and worth_micros == parse_credits(package["maxPrice"])
        and (bool(profile) or all(share.milli == milli for share in shares))
    )


@settings(max_examples=40, deadline=None)
@given(steps)
def test_devices_hold_what_is_sold_and_books_balance(plan: list[tuple[Any, ...]]) -> None:
    async def story(world: World) -> None:
        await world.api.edit(
            FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(minimumQuantum="0s")
        )
        for name in AGENTS:
            await world.agent(name, balance="3")
        for number, step in enumerate(plan):
            await do(world, number, *step)
            check_devices(world)
            check_leases(world)

    play(story, "emulated:2:H100,1:A100")
