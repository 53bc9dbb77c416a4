"""What can be bought in the live exchange: instances, speeds, places, elastic gangs, what others sell on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.exchange import World, play

from walras.core.clock import VirtualClock, rfc3339
from walras.core.money import MICROS, charge, format_credits, parse_credits
from walras.cost import usage
from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS, POOLS
from walras.exchange.holding import LEASES
from walras.exchange.journal import journal
from walras.kube.record import Object
from walras.runtimes.environment import gpu
from walras.tenants.demands import demand_of
from walras.tenants.fit import Usage, choose, node_of

PRODUCT = "device.attributes['gpu.nvidia.com'].productName"


async def wait_for(world: World, agent: str, name: str, limits: Object, **said: str) -> None:
    """A pod that no node fits; `said` are its annotations."""
    annotations = {f"walras.dev/{key.replace('_', '-')}": text for key, text in said.items()}
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    pod = {
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
        "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]},
        "status": {"phase": "Pending", "conditions": [waits]},
    }
    await world.api.create(agent, PODS, pod)
    await world.step(1000)


async def bid(world: World, agent: str, name: str, *packages: Object, **spec: Any) -> None:
    """A Bid by hand, of the standard class if it does not say another."""
    made = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"class": "standard", "packages": [{"term": "60s", **each} for each in packages], **spec},
    }
    await world.api.create(agent, BIDS, made)
    await world.step(1000)


async def edit_pool(world: World, **spec: Any) -> None:
    await world.api.edit(FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(spec))
    await world.step(1000)


async def sell(world: World, agent: str, lease: str, price: str | None) -> None:
    def change(stored: Object) -> None:
        stored["spec"].pop("resalePrice", None)
        if price is not None:
            stored["spec"]["resalePrice"] = price

    await world.api.edit(agent, LEASES, "default", lease, change)
    await world.step()


def messages(world: World, agent: str, reason: str) -> list[str]:
    return [event["message"] for event in world.api.list(agent, "events") if event["reason"] == reason]


def packages(world: World, agent: str, name: str) -> list[Object]:
    found: list[Object] = world.bid(agent, name)["spec"]["packages"]
    return found


def refused(world: World, agent: str, name: str) -> str:
    return str(world.bid(agent, name)["status"]["explanation"]["reason"])


MIG = {"nvidia.com/mig-1g.10gb": "1"}


def test_a_pod_that_asks_for_a_mig_profile_gets_a_node_with_that_instance_and_nothing_else() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await wait_for(world, "search", "query", MIG, max_price="2.00")
        (package,) = packages(world, "search", "query")
        assert package["migProfile"] == "1g.10gb"
        assert "milliGPU" not in package
        (lease,) = world.leases("search")
        (share,) = lease["spec"]["devices"]
        assert share["mig"].startswith("1g.10gb@")
        assert (share["milliGPU"], share["memory"], share["enforcement"]) == (142, "9984Mi", "emulated")
        (node,) = world.nodes("search")
        resources = {name for name in node["status"]["allocatable"] if "/" in name}
        assert resources == {"nvidia.com/mig-1g.10gb"}
        pod = world.api.get("search", PODS, "default", "query")
        assert choose(demand_of(pod), [(node_of(node), Usage())]).node == node["metadata"]["name"]
        assert gpu(node).env["WALRAS_MILLIGPU"] == "142"
        await world.step(5000)
        (row,) = usage.report(world.store, by="device").rows
        assert (row["device"], row["mig"]) == ("local/gpu-0", share["mig"])

    play(story, "emulated:1:H100")


def test_a_device_is_cut_into_instances_that_are_never_more_than_the_device_together() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        for number in range(8):
            await wait_for(world, "search", f"query-{number}", MIG, max_price="2.00")
        cuts = [lease["spec"]["devices"][0] for lease in world.leases("search")]
        assert len({cut["mig"] for cut in cuts}) == 7
        assert sum(cut["milliGPU"] for cut in cuts) <= 1000
        assert refused(world, "search", "query-7")
        # What is cut is not sold in any other way.
        await world.pod("search", "share", 6, "9.00")
        await world.step(1000)
        assert world.bid("search", "share")["status"]["phase"] == "Refused"

    play(story, "emulated:1:H100")


def test_a_profile_that_no_device_has_is_refused_with_those_there_are() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await wait_for(world, "search", "query", {"nvidia.com/mig-1g.5gb": "1"})
        (said,) = messages(world, "search", "InvalidRequest")
        assert '"1g.5gb": there are 7g.80gb, 4g.40gb' in said
        assert "walras.dev/milligpu: 143" in said
        assert world.api.list("search", BIDS) == []
        await bid(world, "search", "own", {"migProfile": "1g.5gb", "maxPrice": "1.00"})
        explanation = world.bid("search", "own")["status"]["explanation"]
        assert explanation["reason"] == "Invalid"
        assert "there are 7g.80gb" in explanation["message"]

    play(story, "emulated:1:H100")


def test_a_pool_of_whole_devices_sells_no_instances() -> None:
    async def story(world: World) -> None:
        await edit_pool(world, sharing="whole")
        await world.agent("search")
        await wait_for(world, "search", "query", MIG)
        assert "sells whole devices" in messages(world, "search", "InvalidRequest")[0]

    play(story, "emulated:1:H100")


WHOLE = {"nvidia.com/gpu": "1"}


def test_a_pod_without_a_selector_bids_for_each_speed_in_proportion() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await wait_for(world, "train", "first", WHOLE, max_price="2.00", term="60s")
        fast, slow = packages(world, "train", "first")
        assert (fast["maxPrice"], slow["maxPrice"]) == ("2.00", "1.00")
        assert (fast["selector"][-7:], slow["selector"][-6:]) == ("== 1000", "== 500")
        await wait_for(world, "train", "second", WHOLE, max_price="2.00", term="60s")
        await wait_for(world, "train", "third", WHOLE, max_price="2.00", term="60s")
        prices = {
            lease["spec"]["devices"][0]["device"]: lease["spec"]["price"] for lease in world.leases("train")
        }
        assert prices == {"local/gpu-0": "0.10", "local/gpu-1": "0.05"}, "the reserve, by speed"
        assert world.bid("train", "third")["status"]["phase"] == "Refused"
        terms = sum(holding.cost_of_term() for holding in world.exchange.holdings.values())
        assert terms == charge(100_000, 1000, 60_000) + charge(50_000, 1000, 60_000)

    play(story, "emulated:1:H100,1:A100")


def test_a_pod_with_a_selector_names_the_price_of_what_it_selects() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        selector = f"{PRODUCT}.contains('A100')"
        await wait_for(world, "train", "own", WHOLE, max_price="2.00", selector=selector)
        (package,) = packages(world, "train", "own")
        assert (package["selector"], package["maxPrice"]) == (selector, "2.00")
        assert world.leases("train")[0]["spec"]["devices"][0]["device"] == "local/gpu-1"
        # What the agent's policy says knows of no class: it is for the unit of speed.
        await wait_for(world, "train", "policy", WHOLE, selector=selector)
        (package,) = packages(world, "train", "policy")
        assert (package["selector"], package["maxPrice"]) == (selector, "0.50")
        either = f"{PRODUCT}.contains('00')"
        await wait_for(world, "train", "either", WHOLE, selector=either)
        assert [each["maxPrice"] for each in packages(world, "train", "either")] == ["1.00", "0.50"]
        assert all(
            each["selector"].startswith(f"({either}) && ") for each in packages(world, "train", "either")
        )

    play(story, "emulated:1:H100,1:A100")


def test_of_very_many_speeds_the_fastest_eight_are_bid_for() -> None:
    models = ("B200", "H200", "H100", "A100", "A100-40GB", "L40S", "V100", "A30", "L4", "T4")

    async def story(world: World) -> None:
        await world.agent("train")
        await wait_for(world, "train", "any", WHOLE, max_price="1.00")
        assert [each["maxPrice"] for each in packages(world, "train", "any")] == [
            "2.20", "1.15", "1.00", "0.50", "0.43", "0.32", "0.25", "0.22",
        ]  # fmt: skip

    play(story, "emulated:" + ",".join(f"1:{model}" for model in models))


def test_in_a_pool_of_one_speed_a_bid_needs_no_selector_and_its_price_goes_by_that_speed() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await wait_for(world, "train", "job", WHOLE, max_price="2.00")
        (package,) = packages(world, "train", "job")
        assert "selector" not in package
        assert package["maxPrice"] == "1.00"

    play(story, "emulated:1:A100")


def test_bids_that_wait_follow_the_speeds_of_the_pool_unless_their_owner_changed_them() -> None:
    async def story(world: World) -> None:
        await world.agent("train", balance="0")
        await wait_for(world, "train", "waits", WHOLE, max_price="2.00")
        await wait_for(world, "train", "chosen", WHOLE, max_price="2.00")

        def choose_other(stored: Object) -> None:
            stored["spec"]["packages"] = [{"maxPrice": "0.70", "selector": f"{PRODUCT}.contains('H100')"}]

        await world.api.edit("train", BIDS, "default", "chosen", choose_other)
        await edit_pool(world, speeds={"A100": 800})
        assert [each["maxPrice"] for each in packages(world, "train", "waits")] == ["2.00", "1.60"]
        assert packages(world, "train", "waits")[1]["selector"].endswith("== 800")
        await edit_pool(world, speeds={"A100": 1000})
        assert [each["maxPrice"] for each in packages(world, "train", "waits")] == ["2.00"]
        assert [each["maxPrice"] for each in packages(world, "train", "chosen")] == ["0.70"]
        await world.step(3000)
        # Read anew by the market too: a selector by a speed that is gone would find no device.
        assert refused(world, "train", "waits") == "InsufficientFunds"

    play(story, "emulated:1:H100,1:A100")


def test_a_strategy_moves_the_prices_of_all_speeds() -> None:
    async def story(world: World) -> None:
        await world.agent("rich")
        await world.agent("late")
        policy = {"strategy": "deadline", "maxPrice": "2.00"}
        await world.api.edit(FLEET, AGENTS, "", "late", lambda agent: agent["spec"].update(market=policy))
        for number in range(2):
            await wait_for(world, "rich", f"holds-{number}", WHOLE, max_price="9.00", term="1h")
        deadline = rfc3339(world.clock.now_ms() + 200_000)
        await wait_for(world, "late", "waits", WHOLE, deadline=deadline, term="60s")
        seen = []
        for _ in range(100):
            await world.step(1000)
            fast, slow = (parse_credits(each["maxPrice"]) for each in packages(world, "late", "waits"))
            assert slow == fast // 2
            seen.append(fast)
        assert seen == sorted(seen)
        assert seen[-1] > 2 * seen[0]

    play(story, "emulated:1:H100,1:A100")


def test_an_elastic_gang_takes_what_there_is_and_pays_for_that() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await world.agent("other")
        await world.pod("other", "one", 1000, "9.00")
        await world.step(1000)
        shape = {"devices": 4, "devicesMin": 2, "maxPrice": "1.00"}
        await bid(world, "train", "gang", shape)
        (lease,) = world.leases("train")
        assert len(lease["spec"]["devices"]) == 2
        assert world.exchange.treasury.held("train") == charge(100_000, 2000, 60_000)
        (node,) = world.nodes("train")
        assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"
        await bid(world, "train", "rigid", {**shape, "devicesMin": 4})
        assert refused(world, "train", "rigid") == "TooLarge"

    play(story, "emulated:3")


def test_a_lease_whose_room_is_kept_for_a_gang_is_told_so() -> None:
    async def story(world: World) -> None:
        for name in ("first", "second"):
            await world.agent(name)
            await world.pod(name, "job", 1000, "0.50", "batch")
            await world.step(1000)
            await world.bind(name, "job", world.nodes(name)[0]["metadata"]["name"])
            await world.step(20_000)
        await world.agent("gang")
        await bid(world, "gang", "both", {"devices": 2, "maxPrice": "0.90"})
        for _ in range(100):
            await world.step(1000)
            if world.bid("gang", "both")["status"]["phase"] == "Leased":
                break
        assert "its room is kept for a gang" in messages(world, "first", "NotRenewed")[0]
        assert len(world.leases("gang")[0]["spec"]["devices"]) == 2

    play(story, "emulated:2")


def test_topology_decides_where_the_devices_are() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        two = {"nvidia.com/gpu": "2"}
        await wait_for(world, "train", "apart", two, topology="spread")
        assert refused(world, "train", "apart") == "TooLarge"
        await wait_for(world, "train", "linked", two, topology="nvlink")
        assert packages(world, "train", "linked")[0]["topology"] == "nvlink"
        devices = [share["device"] for share in world.leases("train")[0]["spec"]["devices"]]
        assert devices in (["local/gpu-0", "local/gpu-1"], ["local/gpu-2", "local/gpu-3"])

    play(story, "emulated:2,2")


def test_a_price_that_decays_is_worth_less_until_the_deadline() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await world.agent("other")
        await world.pod("other", "holds", 1000, "0.90")
        await world.step(1000)
        now = world.clock.now_ms()
        await wait_for(
            world, "train", "fades", WHOLE, max_price="0.80",
            decay_from=rfc3339(now), deadline=rfc3339(now + 100_000),
        )  # fmt: skip
        spec = world.bid("train", "fades")["spec"]
        assert (spec["decayFrom"], spec["deadline"]) == (rfc3339(now), rfc3339(now + 100_000))
        # It lost at first because another pays more; a tenth of it is less than the reserve.
        assert refused(world, "train", "fades") in ("Outbid", "NoCapacity")
        for _ in range(91):
            await world.step(1000)
        assert refused(world, "train", "fades") == "BelowReserve"
        for _ in range(12):
            await world.step(1000)
        assert refused(world, "train", "fades") == "Expired"

    play(story)


async def one_lease(world: World, agent: str = "holder") -> str:
    """The name of a lease of the whole device, past its quantum, for another 54 s."""
    await world.agent(agent)
    await world.pod(agent, "job", 1000, "1.00", "batch")
    await world.step(1000)
    await world.bind(agent, "job", world.nodes(agent)[0]["metadata"]["name"])
    await world.step(6000)
    return str(world.leases(agent)[0]["metadata"]["name"])


def test_a_holder_that_sells_gets_what_it_asks_and_is_told_so() -> None:
    async def story(world: World) -> None:
        lease = await one_lease(world)
        await world.agent("buyer")
        await world.pod("buyer", "urgent", 1000, "3.50")
        await world.step(1000)
        assert world.bid("buyer", "urgent")["status"]["phase"] == "Refused"
        await sell(world, "holder", lease, "3.00")
        await world.step(1000)
        (sold,) = world.leases("holder")
        assert (sold["status"]["phase"], sold["status"]["reason"]) == ("Draining", "Resold")
        (entry,) = (each for each in journal(world.store) if each.ref == f"resale of default/{lease}")
        assert (entry.debit, entry.credit) == ("agent:buyer", "agent:holder")
        # At most 2.90 an hour above its own price for what is left, after the notice, of its minute.
        assert 0 < entry.amount <= charge(2_900_000, 1000, 52_000)
        told = messages(world, "holder", "Resold")
        assert len(told) == 2, "on its bid and on its pod"
        assert all(f"{format_credits(entry.amount)} credits" in message for message in told)
        assert "deletionTimestamp" in world.api.get("holder", PODS, "default", "job")["metadata"]
        await world.step(2000)
        assert world.leases("buyer")[0]["status"]["phase"] == "Active"
        cost = charge(int(float(world.leases("buyer")[0]["spec"]["price"]) * MICROS), 1000, 60_000)
        assert cost + entry.amount <= charge(3_500_000, 1000, 60_000), "no more than it bid"

    play(story)


@pytest.mark.parametrize("price", [None, "1000000000", "6.00"])
def test_a_lease_is_not_sold_when_its_price_is_taken_back_or_more_than_anyone_pays(price: str | None) -> None:
    async def story(world: World) -> None:
        lease = await one_lease(world)
        await world.agent("buyer")
        await sell(world, "holder", lease, "3.00")
        await sell(world, "holder", lease, price)
        await world.pod("buyer", "urgent", 1000, "3.50")
        await world.step(1000)
        await world.step(1000)
        assert world.leases("holder")[0]["status"]["phase"] == "Active"
        assert world.bid("buyer", "urgent")["status"]["phase"] == "Refused"
        assert not messages(world, "holder", "Resold")

    play(story)


def test_a_price_that_is_changed_while_the_lease_is_going_changes_nothing() -> None:
    async def story(world: World) -> None:
        lease = await one_lease(world)
        await world.agent("buyer")
        await sell(world, "holder", lease, "3.00")
        await world.pod("buyer", "urgent", 1000, "3.50")
        await world.step(1000)
        before = world.exchange.treasury.balance("holder")
        await sell(world, "holder", lease, "999.00")
        await sell(world, "holder", lease, None)
        await world.step(1000)
        assert world.exchange.treasury.balance("holder") <= before
        await world.step(2000)
        assert world.leases("holder") == [] or world.leases("holder")[0]["status"]["phase"] == "Ended"
        assert world.leases("buyer")[0]["status"]["phase"] == "Active"

    play(story)


def test_what_a_holder_asks_is_kept_with_the_lease_and_holds_for_no_lease_of_that_name_elsewhere() -> None:
    async def story(world: World) -> None:
        lease = await one_lease(world)
        await world.agent("other")
        await sell(world, "holder", lease, "3.00")
        world.exchange.reload()
        (holding,) = world.exchange.holdings.values()
        assert holding.resale_micros == 3 * MICROS
        # An object that anyone made under that name is nobody's lease.
        copy = world.api.get("holder", LEASES, "default", lease)
        copy = {
            "metadata": {"name": lease, "namespace": "default"},
            "spec": {**copy["spec"], "resalePrice": "0"},
        }
        await world.api.create("other", LEASES, copy)
        await world.step(1000)
        assert holding.resale_micros == 3 * MICROS

    play(story)


@pytest.mark.parametrize("gpus", ["emulated:1:A100-40GB", "emulated:1"])
def test_after_a_start_with_other_devices_the_leases_of_the_old_ones_end(tmp_path: Path, gpus: str) -> None:
    clock = VirtualClock()

    async def before() -> None:
        world = World(tmp_path / "db", clock, "emulated:2:H100")
        await world.open()
        await world.agent("search")
        await bid(world, "search", "cut", {"migProfile": "1g.20gb", "maxPrice": "2.00"})
        await bid(world, "search", "whole", {"maxPrice": "2.00"})
        await bid(world, "search", "small", {"milliGPU": 100, "memory": "1Gi", "maxPrice": "2.00"})
        assert world.bid("search", "small")["status"]["phase"] == "Refused"
        await world.close()

    async def after() -> None:
        world = World(tmp_path / "db", clock, gpus)
        await world.open()
        await world.step(1000)
        await world.step(1000)
        assert len(messages(world, "search", "DeviceGone")) == 2
        # The market goes on with what there is.
        assert world.bid("search", "small")["status"]["phase"] in ("Leased", "Refused")
        (lease,) = (each for each in world.leases("search") if each["status"]["phase"] == "Active")
        assert lease["spec"]["bid"] in ("whole", "small")
        world.check_money()
        await world.close()

    asyncio.run(before())
    asyncio.run(after())


def test_what_the_store_kept_of_an_instance_is_read_back(tmp_path: Path) -> None:
    clock = VirtualClock()

    async def told(first: bool) -> None:
        world = World(tmp_path / "db", clock, "emulated:1:H100")
        await world.open()
        if first:
            await world.agent("search")
            await bid(world, "search", "cut", {"migProfile": "3g.40gb", "maxPrice": "2.00"})
        await world.step(1000)
        (holding,) = world.exchange.holdings.values()
        assert holding.shares[0].mig is not None
        assert holding.shares[0].mig.profile == "3g.40gb"
        assert world.leases("search")[0]["status"]["phase"] == "Active"
        await world.close()

    asyncio.run(told(first=True))
    asyncio.run(told(first=False))
