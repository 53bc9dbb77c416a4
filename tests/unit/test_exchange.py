"""From demand to leases, over a real store: bids, nodes, notice, refusals, renewal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.exchange import World, container, play

from walras.core.money import MICROS, charge
from walras.exchange import effects
from walras.exchange.demand import BIDS, FLEET, PODS, POOLS, pods_with_nodes
from walras.exchange.health import publish
from walras.kube.api import API
from walras.kube.policy import SLICES
from walras.kube.record import Object


def test_a_pending_pod_becomes_a_bid_a_lease_and_a_node_with_what_was_won() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        bid = world.bid("search", "query")
        assert bid["spec"]["class"] == "standard"
        assert bid["status"]["phase"] == "Leased"
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Active"
        assert lease["spec"]["devices"][0]["milliGPU"] == 250
        assert lease["spec"]["devices"][0]["enforcement"] == "emulated"
        (node,) = world.nodes("search")
        assert node["status"]["capacity"]["walras.dev/milligpu"] == "250"
        assert node["metadata"]["labels"]["walras.dev/bid"] == "query"
        # The term is paid for before it starts, at the reserve price because nobody else bids.
        assert world.exchange.treasury.held("search") == charge(100_000, 250, 60_000)

    play(story)


def test_a_latency_bid_displaces_a_training_lease_at_once_with_notice_to_its_pod() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await world.agent("search")
        await world.pod("train", "epoch", 1000, "0.50", "batch")
        await world.step(1000)
        await world.bind("train", "epoch", world.nodes("train")[0]["metadata"]["name"])
        await world.step(6000)
        await world.pod("search", "query", 500, "3.00", "latency")
        await world.step(1)
        (training,) = world.leases("train")
        assert training["status"]["phase"] == "Draining"
        pod = world.api.get("train", PODS, "default", "epoch")
        assert pod["metadata"]["deletionGracePeriodSeconds"] == 2
        assert {"DisruptionTarget"} <= {condition["type"] for condition in pod["status"]["conditions"]}
        assert world.leases("search")[0]["status"]["phase"] == "Reserved"
        assert world.nodes("search") == []
        await world.step(2000)
        assert ("train", training["status"]["node"]) in world.runtime.stopped
        assert world.leases("search")[0]["status"]["phase"] == "Active"
        assert len(world.nodes("search")) == 1
        assert world.nodes("train") == []

    play(story)


def test_a_bid_that_comes_as_the_market_clears_wins_once() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.step(5)
        await world.pod("search", "query", 500, "3.00", "latency")
        await world.step(1000)
        (lease,) = world.leases("search")
        (bid,) = [bid for _, bid in world.api.everywhere(BIDS)]
        assert bid["status"] == {"phase": "Leased", "lease": lease["metadata"]["name"]}
        assert len(world.nodes("search")) == 1

    play(story)


def test_a_device_is_never_sold_twice_while_a_lease_drains() -> None:
    async def story(world: World) -> None:
        for name in ("train", "search", "other"):
            await world.agent(name)
        await world.pod("train", "epoch", 1000, "0.50", "batch")
        await world.step(7000)
        await world.pod("search", "query", 1000, "3.00", "latency")
        await world.step(1)
        await world.pod("other", "late", 100, "9.00", "latency")
        await world.step(500)
        active = [
            lease
            for agent in ("train", "search", "other")
            for lease in world.leases(agent)
            if lease["status"]["phase"] in ("Active", "Draining")
        ]
        assert sum(lease["spec"]["devices"][0]["milliGPU"] for lease in active) <= 1000

    play(story)


def test_a_refused_bid_says_why_and_what_would_have_won() -> None:
    async def story(world: World) -> None:
        await world.agent("train")
        await world.agent("poor", balance="0.000001")
        await world.pod("train", "big", 1000, "0.50")
        await world.step(1000)
        await world.pod("poor", "wish", 100, "5.00")
        await world.pod("train", "cheap", 100, "0.01")
        await world.step(1000)
        assert world.bid("poor", "wish")["status"]["explanation"]["reason"] == "InsufficientFunds"
        cheap = world.bid("train", "cheap")["status"]
        assert cheap["phase"] == "Refused"
        assert cheap["explanation"]["reason"] == "BelowReserve"
        assert cheap["explanation"]["clearingPrice"] == "0.10"

    play(story)


def test_a_pod_that_would_not_fit_what_it_could_win_is_told_so_and_bids_nothing() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "hungry", 250, "2.00", containers=[container(250, cpu="64")])
        await world.pod("search", "picky", 250, "2.00", nodeSelector={"walras.dev/enforcement": "mig"})
        await world.step(1000)
        mig = {"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}}}
        await world.pod("search", "cut", 0, "2.00", containers=[mig])
        await world.step(1000)
        said = {
            event["involvedObject"]["name"]: event["message"] for event in world.api.list("search", "events")
        }
        assert "walras.dev/milligpu: 143" in said["cut"]
        assert "Insufficient cpu" in said["hungry"]
        assert "node affinity/selector" in said["picky"]
        assert world.leases("search") == []

    play(story)


def test_an_ended_lease_can_be_looked_at_for_ten_minutes() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        await world.api.edit(
            "search", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.step(1000)
        assert world.leases("search")[0]["status"]["phase"] == "Ended"
        await world.step(540_000)
        assert len(world.leases("search")) == 1
        await world.step(120_000)
        assert world.leases("search") == []

    play(story)


def test_of_many_losers_each_is_told_in_turn_what_would_have_won() -> None:
    async def story(world: World) -> None:
        await world.agent("many")
        await world.pod("many", "holds", 1000, "3.00")
        await world.step(1000)
        names = [f"wants-{number}" for number in range(20)]
        for name in names:
            await world.pod("many", name, 500, "0.20", "latency")
        for _ in range(16):
            await world.step(1000)
        told = [world.bid("many", name)["status"]["explanation"] for name in names]
        assert all("winningPrice" in explanation for explanation in told), told

    play(story)


def test_what_became_of_its_bid_is_told_on_the_pod_too() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "cheap", 250, "0.01")
        await world.pod("search", "fair", 250, "1.00")
        await world.step(1000)
        said = {
            (event["involvedObject"]["kind"], event["involvedObject"]["name"], event["reason"])
            for event in world.api.list("search", "events")
        }
        assert {("Pod", "cheap", "BelowReserve"), ("Bid", "cheap", "BelowReserve")} <= said
        assert {("Pod", "fair", "Won"), ("Bid", "fair", "Won")} <= said

    play(story)


def test_a_lease_is_renewed_while_its_pod_runs() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        node = world.nodes("search")[0]["metadata"]["name"]
        await world.bind("search", "query", node)
        for _ in range(130):
            await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Active"
        assert lease["status"]["node"] == node
        assert lease["status"]["meteredSeconds"] >= 125

    play(story)


def test_a_price_that_rises_above_a_bid_ends_its_lease_at_the_end_of_its_term() -> None:
    async def story(world: World) -> None:
        await world.agent("cheap")
        await world.agent("dear")
        await world.pod("cheap", "epoch", 1000, "0.50")
        await world.step(1000)
        await world.bind("cheap", "epoch", world.nodes("cheap")[0]["metadata"]["name"])
        await world.pod("dear", "epoch", 1000, "2.00")
        for _ in range(50):
            await world.step(1000)
        assert world.leases("cheap")[0]["status"]["phase"] == "Active"
        for _ in range(15):
            await world.step(1000)
        assert world.nodes("cheap") == []
        assert world.leases("dear")[0]["status"]["phase"] == "Active"
        events = [event for event in world.api.list("cheap", "events") if event["reason"] == "PriceRose"]
        assert events

    play(story)


def test_a_fifo_pool_serves_in_order_of_arrival_and_charges_nothing() -> None:
    async def story(world: World) -> None:
        await world.api.edit(
            FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(mechanism="fifo", sharing="whole")
        )
        await world.agent("first")
        await world.agent("second")
        await world.pod("first", "long", 250, "0.50")
        await world.step(1000)
        await world.pod("second", "urgent", 250, "9.00", "latency")
        await world.step(7000)
        assert world.leases("first")[0]["spec"]["devices"][0]["milliGPU"] == 1000
        assert world.leases("second") == []
        assert world.exchange.treasury.balance("first") == 100 * MICROS
        assert world.bid("second", "urgent")["status"]["phase"] == "Refused"

    play(story)


def test_an_agent_may_bid_for_itself_by_attributes_of_the_device() -> None:
    async def story(world: World) -> None:
        await world.agent("expert")
        package = {"maxPrice": "1.00", "milliGPU": 100, "term": "10s"}
        wanted = "device.attributes['gpu.nvidia.com'].productName == 'Emulated'"
        for name, selector in (("fits", wanted), ("none", "device.driver == 'amd.com'"), ("broken", "((")):
            await world.api.create(
                "expert",
                BIDS,
                {
                    "apiVersion": "walras.dev/v1alpha1",
                    "kind": "Bid",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"class": "standard", "packages": [package | {"selector": selector}]},
                },
            )
        await world.step(1000)
        assert world.bid("expert", "fits")["status"]["phase"] == "Leased"
        assert world.bid("expert", "none")["status"]["explanation"]["reason"] == "NoDevice"
        assert world.bid("expert", "broken")["status"]["explanation"]["reason"] == "Invalid"

    play(story)


def test_a_bid_that_its_pod_could_not_mean_is_refused_in_words_on_the_pod() -> None:
    async def story(world: World) -> None:
        await world.agent("odd")
        await world.pod("odd", "vip", 250, "2.00")

        def mean(pod: Object) -> None:
            # What admission looks at are annotations; a label has nobody to ask.
            del pod["metadata"]["annotations"]["walras.dev/class"]
            pod["metadata"]["labels"] = {"walras.dev/class": "vip"}

        await world.api.edit("odd", PODS, "default", "vip", mean)
        await world.manager.settle()
        await world.api.delete("odd", BIDS, "default", "vip")
        await world.step(1000)
        assert world.leases("odd") == []
        said = [event["message"] for event in world.api.list("odd", "events")]
        assert any('spec.class: Unsupported value: "vip"' in message for message in said), said

    play(story)


def test_a_pod_that_waits_bids_again_when_its_bid_is_deleted() -> None:
    async def story(world: World) -> None:
        await world.agent("poor", balance="0")
        await world.pod("poor", "query", 250, "2.00")
        await world.step(1000)
        first = world.bid("poor", "query")["metadata"]["uid"]
        await world.api.delete("poor", BIDS, "default", "query")
        await world.step(1000)
        assert world.bid("poor", "query")["metadata"]["uid"] != first

    play(story)


def test_without_its_pool_object_the_market_goes_on_by_the_default_rules() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.api.delete(FLEET, POOLS, "", "default")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        assert world.leases("search")[0]["status"]["phase"] == "Active"

    play(story)


def test_new_rules_hold_at_once_however_long_the_old_tick_was() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.api.edit(FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(tick="1m"))
        await world.step()
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        assert world.leases("search") == []
        await world.api.edit(FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(tick="1s"))
        await world.step()
        assert world.leases("search")[0]["status"]["phase"] == "Active"

    play(story)


def test_a_clock_that_is_set_back_does_not_stop_the_market() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.step(1000)
        world.clock.at_ms -= 3_600_000
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        assert world.leases("search")[0]["status"]["phase"] == "Active"

    play(story)


def test_a_lease_is_there_to_be_seen_for_as_long_as_it_lasts() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        await world.bind("search", "query", world.nodes("search")[0]["metadata"]["name"])
        await world.api.delete("search", BIDS, "default", "query")
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Active"
        # Nothing that a garbage collector would take it away for.
        assert "ownerReferences" not in lease["metadata"]
        await world.api.delete("search", PODS, "default", "query", grace_seconds=0)
        await world.step(1000)
        assert world.leases("search") == world.nodes("search") == []
        assert world.exchange.treasury.held("search") == 0

    play(story)


def test_a_lease_that_has_ended_stays_as_long_as_its_bid() -> None:
    async def story(world: World) -> None:
        await world.agent("search")
        await world.pod("search", "query", 250, "2.00")
        await world.step(1000)
        await world.api.edit(
            "search", PODS, "default", "query", lambda pod: pod["status"].update(phase="Succeeded")
        )
        await world.step(1000)
        (lease,) = world.leases("search")
        assert lease["status"]["phase"] == "Ended"
        (owner,) = lease["metadata"]["ownerReferences"]
        assert owner["uid"] == world.bid("search", "query")["metadata"]["uid"]

    play(story)


def test_a_selector_that_would_take_the_servers_memory_is_refused_in_words() -> None:
    async def story(world: World) -> None:
        await world.agent("greedy")
        doubling = "['aaaa']" + ".map(a, a+a+a+a+a+a+a+a+a+a)" * 9 + ".size() > 0"
        package = {"maxPrice": "1.00", "milliGPU": 100, "selector": doubling}
        bid = {
            "metadata": {"name": "bomb", "namespace": "default"},
            "spec": {"class": "standard", "packages": [package]},
        }
        await world.api.create("greedy", BIDS, bid)
        await world.step(1000)
        assert "cost limit exceeded" in world.bid("greedy", "bomb")["status"]["explanation"]["message"]

    play(story)


def test_an_agent_with_more_bids_than_the_market_looks_at_waits_for_itself_alone() -> None:
    async def story(world: World) -> None:
        await world.agent("flood")
        await world.agent("calm")
        for number in range(400):
            package = {"maxPrice": f"{number % 9 + 1}", "milliGPU": 900}
            await world.api.create(
                "flood",
                BIDS,
                {
                    "metadata": {"name": f"b{number}", "namespace": "default"},
                    "spec": {"class": "batch", "packages": [package]},
                },
            )
        await world.pod("calm", "query", 100, "0.50")
        await world.step(1000)
        assert world.bid("calm", "query")["status"]["phase"] == "Leased"
        phases = [bid["status"]["explanation"]["reason"] for bid in world.api.list("flood", BIDS)
                  if "explanation" in bid.get("status", {})]  # fmt: skip
        assert "Queued" in phases and len(phases) > 256
        # The one that pays most is not among those that wait.
        (lease,) = world.leases("flood")
        assert int(lease["spec"]["bid"][1:]) % 9 == 8

    play(story)


def test_a_lost_lease_whose_node_cannot_be_stopped_is_told_once_and_tried_again_later() -> None:
    async def story(world: World) -> None:
        await publish(world.api, world.supply)
        await world.agent("search")
        await world.pod("search", "query", 500, "2.00")
        await world.step(1000)
        node = world.nodes("search")[0]["metadata"]["name"]
        world.runtime.hung.add(("search", node))

        def tainted(found: Object) -> None:
            found["spec"]["devices"][0]["taints"] = [{"key": "example.com/service", "effect": "NoExecute"}]

        await world.api.edit(FLEET, SLICES, "", "local-gpus", tainted)
        await world.step(1)
        await world.step(1)
        assert world.runtime.stopped == [("search", node)]
        await world.step(1000)
        assert len(world.runtime.stopped) == 2
        world.runtime.hung.clear()
        await world.step(1000)
        assert world.nodes("search") == []

    play(story)


def test_a_step_looks_at_an_agents_pods_once_however_many_leases_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []

    def count(api: API, cluster: str) -> Iterator[Object]:
        looked.append(cluster)
        return pods_with_nodes(api, cluster)

    async def story(world: World) -> None:
        await world.agent("a")
        for at in range(5):
            await world.pod("a", f"p{at}", 100, "2.00")
        await world.step(1000)
        assert len(world.nodes("a")) == 5
        looked.clear()
        world.clock.advance(1000)
        await world.exchange.step()
        assert looked == ["a"]

    monkeypatch.setattr(effects, "pods_with_nodes", count)
    play(story)


def test_pods_that_wait_are_passed_over_whatever_their_texts_say() -> None:
    async def story(world: World) -> None:
        await world.agent("a")
        for name in ("waits", "placed"):
            await world.pod("a", name, 100, "2.00")
        said = {"note": '"nodeName":"lease-x"'}
        await world.api.edit("a", PODS, "default", "waits", lambda pod: pod["metadata"].update(labels=said))
        await world.bind("a", "placed", "lease-y")
        assert [pod["metadata"]["name"] for pod in pods_with_nodes(world.api, "a")] == ["placed"]

    play(story)
