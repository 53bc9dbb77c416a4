"""Resource claims on the market: what they bid for, and what a lease of that publishes."""

from typing import Any

import pytest
from support.devices import claim, exactly, request
from support.exchange import World, play

from walras.exchange.demand import AGENTS, BIDS, FLEET, PODS, Bidder
from walras.tenants.claims.asks import read
from walras.tenants.claims.classes import device_classes
from walras.tenants.claims.effort import Effort
from walras.tenants.claims.pools import Pools
from walras.tenants.claims.search import Search, Taken
from walras.tenants.fit import Node

Object = dict[str, Any]

CLASSES = "deviceclasses.resource.k8s.io"
CLAIMS = "resourceclaims.resource.k8s.io"
SLICES = "resourceslices.resource.k8s.io"
GPU, MIG = "gpu.nvidia.com", "mig.nvidia.com"
MIXED = "emulated:1:H100,1:A100"
ATTRIBUTE = "device.attributes['gpu.nvidia.com']"


def gpu(name: str = "gpu", *expressions: str, **said: Any) -> Object:
    return request(name, *expressions, **{"deviceClassName": GPU, **said})


def part(**amounts: str) -> Object:
    return {"capacity": {"requests": amounts}}


async def furnish(world: World, *claims: Object) -> None:
    await world.agent("acme")
    for each in device_classes():
        await world.api.create("acme", CLASSES, each)
    for each in claims:
        await world.api.create("acme", CLAIMS, each)


async def waiting(world: World, name: str, *claims: str, message: str = "", **said: str) -> None:
    """A pod that no node of the agent meets."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    annotations = {"walras.dev/max-price": "2.00", "walras.dev/term": "60s", **said}
    named = [{"name": f"c{at}", "resourceClaimName": each} for at, each in enumerate(claims)]
    await world.api.create(
        "acme",
        PODS,
        {
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {"containers": [{"name": "main"}], "resourceClaims": named},
            "status": {"phase": "Pending", "conditions": [condition]},
        },
    )
    await world.manager.settle()


def packages(world: World, name: str) -> list[Object]:
    found: list[Object] = world.bid("acme", name)["spec"]["packages"]
    return found


def bids(world: World) -> list[str]:
    return [bid["metadata"]["name"] for bid in world.api.list("acme", BIDS)]


def event(world: World, name: str, reason: str = "InvalidRequest") -> str:
    return " ".join(
        each["message"]
        for each in world.api.list("acme", "events")
        if each["reason"] == reason and each["involvedObject"]["name"] == name
    )


def test_a_claim_of_a_gpu_bids_for_one_and_the_lease_that_it_wins_meets_it() -> None:
    async def story(world: World) -> None:
        wanted = claim("mine", gpu())
        await furnish(world, wanted)
        await waiting(world, "train", "mine")
        (package,) = packages(world, "train")
        assert (package["devices"], package["milliGPU"], package["maxPrice"]) == (1, 1000, "2.00")
        assert "selector" not in package
        await world.step(1000)
        (node,) = world.nodes("acme")
        (published,) = world.api.list("acme", SLICES)
        assert published["spec"]["nodeName"] == node["metadata"]["name"]
        assert published["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
        assert published["spec"]["driver"] == "gpu.nvidia.com"
        (device,) = published["spec"]["devices"]
        assert device["name"] == "gpu-0"
        assert device["attributes"]["type"] == {"string": "gpu"}
        assert device["attributes"]["emulated"] == {"bool": True}
        assert device["attributes"]["cudaComputeCapability"] == {"version": "0.0.0"}
        assert device["capacity"]["memory"]["value"] == "16384Mi"
        classes = {each["metadata"]["name"]: each for each in device_classes()}
        place = Node(node["metadata"]["name"], {}, (), {}, ())
        pools = Pools([published]).on(place)
        assert Search([read(wanted, classes.get)], pools, Taken(), Effort()).run() is not None

    play(story)


def test_the_slices_go_with_the_lease() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("mine", gpu()))
        await waiting(world, "train", "mine")
        await world.step(1000)
        assert len(world.api.list("acme", SLICES)) == 1
        await world.api.delete("acme", PODS, "default", "train", grace_seconds=0)
        for _ in range(4):
            await world.step(1000)
        assert not world.nodes("acme")
        assert not world.api.list("acme", SLICES)

    play(story)


def test_a_part_of_a_gpu_is_asked_for_by_its_capacity() -> None:
    async def story(world: World) -> None:
        await furnish(
            world,
            claim("quarter", gpu(**part(milliGPU="250", memory="2Gi"))),
            claim("whole", gpu()),
        )
        await waiting(world, "infer", "quarter")
        (package,) = packages(world, "infer")
        assert (package["milliGPU"], package["memory"]) == (250, "2Gi")
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        place = Node(published["spec"]["nodeName"], {}, (), {}, ())
        classes = {each["metadata"]["name"]: each for each in device_classes()}

        def meets(name: str) -> bool:
            asked = read(world.api.get("acme", CLAIMS, "default", name), classes.get)
            return Search([asked], Pools([published]).on(place), Taken(), Effort()).run() is not None

        assert meets("quarter")
        # A share is not what somebody gets who asks for a GPU.
        assert not meets("whole")

    play(story)


def test_selectors_of_claims_become_products_that_the_market_sells() -> None:
    async def story(world: World) -> None:
        fast = f"{ATTRIBUTE}.cudaComputeCapability.isGreaterThan(semver('8.5.0'))"
        large = "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0"
        await furnish(world, claim("fast", gpu("gpu", fast)), claim("large", gpu("gpu", large)))
        await waiting(world, "train", "fast")
        (package,) = packages(world, "train")
        assert package["selector"] == f"{ATTRIBUTE}.productName in ['Emulated NVIDIA H100 80GB HBM3']"
        await waiting(world, "any", "large")
        assert [each["selector"] for each in packages(world, "any")] == [
            f"{ATTRIBUTE}.speedMilli == 1000",
            f"{ATTRIBUTE}.speedMilli == 500",
        ]
        await world.step(1000)
        assert "H100" in str(world.nodes("acme")[0]["metadata"]["labels"]["nvidia.com/gpu.product"])

    play(story, MIXED)


def test_a_claim_of_one_device_by_its_uuid_bids_for_that_one() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("that", gpu("gpu", f"{ATTRIBUTE}.uuid == 'emulated-local-1'")))
        await waiting(world, "train", "that")
        (package,) = packages(world, "train")
        assert package["selector"] == f"{ATTRIBUTE}.uuid in ['emulated-local-1']"
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        assert [each["name"] for each in published["spec"]["devices"]] == ["gpu-1"]

    play(story, "emulated:2")


def test_instances_are_claimed_by_their_profile_and_without_one_the_smallest_is() -> None:
    async def story(world: World) -> None:
        wanted = f"{ATTRIBUTE}.profile == '2g.20gb'"
        await furnish(
            world,
            claim("two", request("mig", wanted, deviceClassName=MIG)),
            claim("any", request("mig", deviceClassName=MIG)),
        )
        await waiting(world, "train", "two")
        (package,) = packages(world, "train")
        assert package["migProfile"] == "2g.20gb"
        assert "milliGPU" not in package
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        (device,) = published["spec"]["devices"]
        assert device["name"].startswith("gpu-0-mig-2g20gb-")
        assert device["attributes"]["profile"] == {"string": "2g.20gb"}
        assert "allowMultipleAllocations" not in device
        await waiting(world, "small", "any")
        assert packages(world, "small")[0]["migProfile"] == "1g.10gb"

    play(story, "emulated:1:H100")


def test_alternatives_of_a_request_are_packages_of_one_bid() -> None:
    async def story(world: World) -> None:
        h100 = f"{ATTRIBUTE}.productName.contains('H100')"
        either: Object = {
            "name": "gpu",
            "firstAvailable": [
                {"name": "fast", **exactly(h100, deviceClassName=GPU)},
                {"name": "two", **exactly(deviceClassName=GPU, count=2)},
                {"name": "never", **exactly("device.driver == 'x'", deviceClassName=GPU)},
            ],
        }
        await furnish(world, claim("either", either))
        await waiting(world, "train", "either")
        found = [(each["devices"], each.get("selector", "")) for each in packages(world, "train")]
        assert found[0] == (1, f"{ATTRIBUTE}.productName in ['Emulated NVIDIA H100 80GB HBM3']")
        assert {each[0] for each in found[1:]} == {2}

    play(story, MIXED)


def test_several_claims_of_a_pod_are_one_package_where_they_ask_for_the_same() -> None:
    async def story(world: World) -> None:
        await furnish(
            world,
            claim("one", gpu(count=2)),
            claim("two", gpu()),
            claim("three", gpu()),
            claim("part", gpu(**part(milliGPU="100"))),
        )
        await waiting(world, "train", "one", "two")
        (package,) = packages(world, "train")
        assert (package["devices"], package["topology"]) == (3, "node")
        await waiting(world, "mixed", "three", "part")
        assert "use a pod for each" in event(world, "mixed")
        assert bids(world) == ["train"]

    play(story, "emulated:4")


def test_what_no_bid_can_win_is_said_on_the_pod() -> None:
    async def story(world: World) -> None:
        every = {
            "all": gpu(allocationMode="All"),
            "admin": gpu(adminAccess=True),
            "other": gpu("gpu", f"{ATTRIBUTE}.productName == 'B200'"),
            "fails": gpu("gpu", f"{ATTRIBUTE}.colour == 'red'"),
            "cores": gpu(**part(cores="3")),
            "much": gpu(**part(milliGPU="2000")),
            "none": gpu(deviceClassName="none"),
            "apart": gpu(count=2),
        }
        constraint = {"distinctAttribute": "gpu.nvidia.com/productName"}
        await furnish(
            world,
            *(
                claim(name, asked, constraints=[constraint] if name == "apart" else [])
                for name, asked in every.items()
            ),
        )
        said = {
            "all": "say a count instead of All",
            "admin": "devices that a node has already",
            "other": "no device of this pool satisfies it; there are emulated",
            "fails": "no such key: colour",
            "cores": "no device of this pool satisfies it",
            "much": "milliGPU is at most 1000",
            "none": "device class none does not exist",
            "apart": "constraints ask for more than that",
        }
        for name, expected in said.items():
            await waiting(world, f"pod-{name}", name)
            assert expected in event(world, f"pod-{name}"), name
        assert bids(world) == []

    play(story, "emulated:2")


def test_nobody_bids_for_claims_that_are_not_there_or_are_met() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("met", gpu()), claim("open", gpu()))

        def meet(found: Object) -> None:
            found["status"] = {"allocation": {"devices": {"results": []}}}

        await world.api.edit("acme", CLAIMS, "default", "met", meet)
        await waiting(world, "shares", "met")
        await waiting(world, "lost", "open", message='resourceclaim "open" not found.')
        await waiting(world, "torn", "met", "open")
        assert bids(world) == []
        assert "holds devices of a node where its other claims cannot be met" in event(world, "torn")

    play(story)


def test_of_pods_that_share_a_claim_the_first_bids_and_another_when_it_is_gone() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("shared", gpu()))
        await waiting(world, "first", "shared")
        world.clock.advance(1000)
        await waiting(world, "second", "shared")
        assert bids(world) == ["first"]
        await world.api.delete("acme", PODS, "default", "first", grace_seconds=0)
        await world.step(10_000)
        assert bids(world) == ["second"]

    play(story)


def test_a_pod_of_an_agent_that_is_gone_does_not_bid_for_claims_of_the_next_of_the_name() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("shared", gpu()))
        await waiting(world, "first", "shared")
        assert bids(world) == ["first"]
        await world.api.delete_cluster("acme")
        await world.api.delete(FLEET, AGENTS, "", "acme")
        await world.step()
        await furnish(world, claim("shared", gpu()))
        await waiting(world, "second", "shared")
        assert bids(world) == ["second"]

    play(story)


def test_claims_for_unequal_parts_win_one_share_of_a_device_that_has_them_all() -> None:
    async def story(world: World) -> None:
        await furnish(
            world,
            claim("small", gpu(**part(milliGPU="250", memory="2Gi"))),
            claim("large", gpu(**part(milliGPU="700", memory="6Gi"))),
            claim("rest", gpu(**part(milliGPU="100", memory="1Gi"))),
            claim("greedy", gpu(**part(milliGPU="100"))),
        )
        await waiting(world, "train", "small", "large")
        (package,) = packages(world, "train")
        assert (package["milliGPU"], package["memory"], package.get("devices", 1)) == (950, "8Gi", 1)
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        both = [
            read(world.api.get("acme", CLAIMS, "default", name), lambda name: classes(world)[name])
            for name in ("small", "large")
        ]
        node = Node(published["spec"]["nodeName"], {}, (), {}, ())
        picks = Search(both, Pools([published]).on(node), Taken(), Effort()).run()
        assert picks is not None
        assert [int((each.part or {})["milliGPU"]) for (each,) in picks] == [250, 700]
        for name, other in (("more", "rest"), ("unsaid", "greedy")):
            await world.api.create("acme", CLAIMS, claim(name, gpu(**part(milliGPU="950", memory="2Gi"))))
            await waiting(world, name, name, other)
            assert "parts of one device that name their memory" in event(world, name)

    def classes(world: World) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in world.api.list("acme", CLASSES)}

    play(story)


def test_whose_bid_a_shared_claim_is_is_known_again_after_a_start() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("shared", gpu()))
        await waiting(world, "first", "shared")
        await waiting(world, "second", "shared")
        await world.exchange.stop()
        world.exchange._arrivals.bidder = Bidder(
            world.api, world.exchange._recorder, world.supply, world.exchange.auctioneer.proxy
        )
        await world.exchange.open()
        for name in ("second", "first"):
            await world.api.edit("acme", PODS, "default", name, touch)
        await world.step(10_000)
        assert bids(world) == ["first"]

    def touch(pod: Object) -> None:
        pod["metadata"].setdefault("labels", {})["touched"] = "true"

    play(story)


def test_a_pod_that_cannot_bid_for_a_shared_claim_leaves_that_to_another() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("shared", gpu()))
        await waiting(world, "first", "shared", **{"walras.dev/max-price": "dear"})
        await waiting(world, "second", "shared")
        assert bids(world) == ["second"]

    play(story)


@pytest.mark.parametrize("shared", [True, False], ids=["one claim", "a claim each"])
def test_who_bids_for_claims_is_told_without_looking_at_all_pods_for_each(shared: bool) -> None:
    async def story(world: World) -> None:
        await furnish(world, *(claim(f"c{at}", gpu()) for at in range(1 if shared else 40)))
        listed, plain = 0, world.api.list

        def count(cluster: str, resource: str, namespace: str = "") -> list[Object]:
            nonlocal listed
            found = plain(cluster, resource, namespace)
            listed += len(found) if resource == PODS else 0
            return found

        world.api.list = count  # type: ignore[method-assign]
        for at in range(40):
            await waiting(world, f"p{at}", "c0" if shared else f"c{at}")
        assert len(bids(world)) == (1 if shared else 40)
        assert listed <= 40

    play(story)


def test_a_pod_may_narrow_its_claims_devices_and_name_a_price_for_them() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("fast", gpu("gpu", f"{ATTRIBUTE}.productName.contains('H100')")))
        own = f"{ATTRIBUTE}.index == 0"
        await waiting(world, "train", "fast", **{"walras.dev/selector": own})
        (package,) = packages(world, "train")
        products = f"{ATTRIBUTE}.productName in ['Emulated NVIDIA H100 80GB HBM3']"
        assert (package["selector"], package["maxPrice"]) == (f"({own}) && {products}", "2.00")

    play(story, MIXED)


def test_a_lease_that_was_won_without_slices_has_them_after_the_next_start() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("mine", gpu()))
        await waiting(world, "train", "mine")
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        await world.api.delete("acme", SLICES, "", published["metadata"]["name"])
        await world.exchange.stop()
        await world.exchange.open()
        (again,) = world.api.list("acme", SLICES)
        assert again["spec"] == published["spec"]

    play(story)


def test_parts_of_a_whole_lease_are_claimed_until_it_has_no_more() -> None:
    async def story(world: World) -> None:
        await furnish(world, claim("whole", gpu()))
        await waiting(world, "train", "whole")
        await world.step(1000)
        (published,) = world.api.list("acme", SLICES)
        place = Node(published["spec"]["nodeName"], {}, (), {}, ())
        classes = {each["metadata"]["name"]: each for each in device_classes()}

        def room_for(*parts: str) -> bool:
            claims = [
                claim(f"c{at}", gpu(**part(milliGPU=milli, memory="1Gi"))) for at, milli in enumerate(parts)
            ]
            asked = [read(each, classes.get) for each in claims]
            return Search(asked, Pools([published]).on(place), Taken(), Effort()).run() is not None

        assert room_for("250", "250", "500")
        assert not room_for("250", "250", "501")
        # Nobody gets a part of nothing: the least is a thousandth and a MiB.
        assert not room_for("1000", "0")

    play(story)


def test_a_resource_that_a_class_stands_for_is_bid_for_as_a_claim_of_that_class() -> None:
    async def story(world: World) -> None:
        await furnish(world)
        h100 = f"device.driver == 'gpu.nvidia.com' && {ATTRIBUTE}.productName.contains('H100')"
        spec = {"selectors": [{"cel": {"expression": h100}}], "extendedResourceName": "example.com/fast"}
        await world.api.create("acme", CLASSES, {"metadata": {"name": "fast"}, "spec": spec})
        await waiting(world, "none")
        assert bids(world) == []

        def ask(found: Object) -> None:
            found["spec"]["containers"][0]["resources"] = {"limits": {"example.com/fast": "1"}}

        await world.api.edit("acme", PODS, "default", "none", ask)
        await world.manager.settle()
        (package,) = packages(world, "none")
        assert package["selector"] == f"{ATTRIBUTE}.productName in ['Emulated NVIDIA H100 80GB HBM3']"

    play(story, MIXED)
