"""Claims of devices in a cluster: made from templates, allocated, reserved and given back."""

import asyncio
from random import Random
from typing import Any

import pytest
from support import world
from support.devices import (
    claim,
    device,
    device_class,
    device_slice,
    given,
    request,
    template,
)
from support.world import AGENT, World, scheduled

from walras.tenants.claims.placing import Placing
from walras.tenants.claims.pod import is_allocated
from walras.tenants.fit import Usage, node_of
from walras.tenants.view import ClusterView

CLAIMS = "resourceclaims.resource.k8s.io"
CLASSES = "deviceclasses.resource.k8s.io"
SLICES = "resourceslices.resource.k8s.io"
TEMPLATES = "resourceclaimtemplates.resource.k8s.io"


def node(name: str) -> dict[str, Any]:
    capacity = {"cpu": "4", "memory": "4Gi", "pods": "16"}
    return {
        "metadata": {"name": name},
        "status": {"capacity": capacity, "allocatable": dict(capacity)},
    }


async def furnish(it: World, devices: int = 1) -> None:
    """A node with devices and a class for them."""
    await it.create("nodes", node("one"))
    await it.create(CLASSES, device_class("gpu", "device.driver == 'gpu.example.com'"))
    await it.create(SLICES, device_slice("one", *(device(f"gpu-{at}") for at in range(devices))))


def using(name: str, claimed: str = "", template_name: str = "", **spec: Any) -> dict[str, Any]:
    source = {"resourceClaimName": claimed} if claimed else {"resourceClaimTemplateName": template_name}
    pod = world.pod(name, resourceClaims=[{"name": "gpu", **source}], **spec)
    pod["spec"]["containers"][0]["resources"] = {"claims": [{"name": "gpu"}]}
    return pod


def pod_of(it: World, name: str) -> dict[str, Any]:
    return it.api.get(AGENT, "pods", "default", name)


def claim_of(it: World, name: str) -> dict[str, Any]:
    return it.api.get(AGENT, CLAIMS, "default", name)


def test_a_pod_gets_a_claim_of_its_own_from_a_template_and_its_devices() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(TEMPLATES, template("one-gpu", request()))
        await it.create("pods", using("train", template_name="one-gpu"))
        await it.settle()
        pod = pod_of(it, "train")
        ((made,),) = ([each["resourceClaimName"] for each in pod["status"]["resourceClaimStatuses"]],)
        assert made.startswith("train-gpu-")
        found = claim_of(it, made)
        assert found["metadata"]["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpu"}
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", pod["metadata"]["uid"], True)
        assert found["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection"]
        assert pod["spec"]["nodeName"] == "one"
        assert given(found) == ["gpu-0"]
        (result,) = found["status"]["allocation"]["devices"]["results"]
        assert result == {
            "request": "gpu", "driver": "gpu.example.com", "pool": "one", "device": "gpu-0",
        }  # fmt: skip
        here = {"key": "metadata.name", "operator": "In", "values": ["one"]}
        assert found["status"]["allocation"]["nodeSelector"] == {
            "nodeSelectorTerms": [{"matchFields": [here]}]
        }
        reserved = {"resource": "pods", "name": "train", "uid": pod["metadata"]["uid"]}
        assert found["status"]["reservedFor"] == [reserved]

    world.tell(story)


def test_what_a_finished_pod_had_goes_to_the_next() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(TEMPLATES, template("one-gpu", request()))
        await it.create("pods", using("first", template_name="one-gpu"))
        await it.settle()
        await it.create("pods", using("second", template_name="one-gpu"))
        await it.settle()
        message = scheduled(pod_of(it, "second"))["message"]
        assert message == "0/2 nodes are available: 2 cannot allocate all claims."
        await it.end_pod(pod_of(it, "first"))
        assert pod_of(it, "second")["spec"]["nodeName"] == "one"
        owners = [each["metadata"]["ownerReferences"][0]["name"] for each in it.api.list(AGENT, CLAIMS)]
        assert owners == ["second"]

    world.tell(story)


def test_a_claim_is_shared_by_pods_until_the_last_of_them_is_done() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("shared", request()))
        for name in ("one", "two"):
            await it.create("pods", using(name, "shared"))
        await it.settle()
        reserved = [each["name"] for each in claim_of(it, "shared")["status"]["reservedFor"]]
        assert sorted(reserved) == ["one", "two"]
        await it.end_pod(pod_of(it, "one"))
        found = claim_of(it, "shared")
        assert [each["name"] for each in found["status"]["reservedFor"]] == ["two"]
        await it.api.delete(AGENT, CLAIMS, "default", "shared")
        await it.settle()
        assert "deletionTimestamp" in claim_of(it, "shared")["metadata"]
        await it.end_pod(pod_of(it, "two"))
        assert it.api.find(AGENT, CLAIMS, "default", "shared") is None

    world.tell(story)


def test_a_claim_that_nobody_uses_any_more_is_deallocated_and_stays() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("mine", request()))
        await it.create("pods", using("train", "mine"))
        await it.settle()
        assert given(claim_of(it, "mine")) == ["gpu-0"]
        await it.end_pod(pod_of(it, "train"))
        found = claim_of(it, "mine")
        assert "allocation" not in found["status"]
        assert "finalizers" not in found["metadata"]

    world.tell(story)


def test_many_pods_at_once_never_get_the_same_device() -> None:
    async def story(it: World) -> None:
        await furnish(it, devices=3)
        await it.create(TEMPLATES, template("one-gpu", request()))
        for number in range(6):
            await it.create("pods", using(f"pod-{number}", template_name="one-gpu"))
        await it.settle()
        held = [each for found in it.api.list(AGENT, CLAIMS) for each in given(found)]
        assert sorted(held) == ["gpu-0", "gpu-1", "gpu-2"]
        assert sum(bool(pod["spec"].get("nodeName")) for pod in it.pods()) == 3

    world.tell(story)


def test_a_pod_is_told_what_of_its_claims_is_missing() -> None:
    async def story(it: World) -> None:
        def message(name: str) -> str:
            return str(scheduled(pod_of(it, name))["message"])

        await it.create("nodes", node("one"))
        await it.create("pods", using("named", "mine"))
        await it.create("pods", using("generated", template_name="one-gpu"))
        await it.settle()
        assert 'resourceclaim "mine" not found' in message("named")
        assert not scheduled(pod_of(it, "generated"))
        (event,) = it.events("FailedResourceClaimCreation")
        assert 'resource claim template "one-gpu"' in event["message"]
        await it.create(CLAIMS, claim("mine", request()))
        await it.create(TEMPLATES, template("one-gpu", request()))
        await it.settle()
        assert "request gpu: device class gpu does not exist" in message("named")
        await it.create(CLASSES, device_class("gpu"))
        await it.create(SLICES, device_slice("one", device("gpu-0"), device("gpu-1")))
        await it.settle()
        assert {pod["spec"].get("nodeName") for pod in it.pods()} == {"one"}

    world.tell(story)


def test_a_pod_without_a_claim_of_its_own_name_does_not_get_another_pods() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("stranger", request()))
        pod = using("train", template_name="one-gpu")
        pod["status"] = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "stranger"}]}
        await it.api.create(AGENT, "pods", {**pod, "metadata": {"name": "train", "namespace": "default"}})
        await it.settle()
        assert "Pod is not owner" in scheduled(pod_of(it, "train"))["message"]
        await it.create(TEMPLATES, template("one-gpu", request()))
        await it.settle()
        assert pod_of(it, "train")["spec"]["nodeName"] == "one"
        assert "status" not in claim_of(it, "stranger") or not given(claim_of(it, "stranger"))

    world.tell(story)


def test_a_pod_whose_status_says_that_it_needs_no_claim_runs_without_one() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create("pods", using("free", template_name="none"))
        await it.settle()
        await it.set_status(pod_of(it, "free"), resourceClaimStatuses=[{"name": "gpu"}])
        await it.settle()
        assert pod_of(it, "free")["spec"]["nodeName"] == "base"
        assert it.api.list(AGENT, CLAIMS) == []

    world.tell(story)


def test_administrators_need_the_label_of_their_namespace() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("user", request()))
        await it.create(CLAIMS, claim("admin", request(adminAccess=True)))
        await it.create("pods", using("train", "user"))
        await it.settle()
        await it.create("pods", using("watch", "admin"))
        await it.settle()
        assert "admin access to devices" in scheduled(pod_of(it, "watch"))["message"]

        def label(found: dict[str, Any]) -> None:
            found["metadata"].setdefault("labels", {})["resource.kubernetes.io/admin-access"] = "true"

        await it.api.edit(AGENT, "namespaces", "", "default", label)
        await it.create("pods", using("watch-too", "admin"))
        await it.settle()
        assert pod_of(it, "watch-too")["spec"]["nodeName"] == "one"
        (result,) = claim_of(it, "admin")["status"]["allocation"]["devices"]["results"]
        assert (result["device"], result["adminAccess"]) == ("gpu-0", True)

    world.tell(story)


def test_a_pod_bound_past_the_scheduler_may_use_what_its_claim_holds() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("shared", request()))
        await it.create("pods", using("first", "shared"))
        await it.settle()
        await it.create("pods", using("bound", "shared", nodeName="one"))
        await it.settle()
        reserved = [each["name"] for each in claim_of(it, "shared")["status"]["reservedFor"]]
        assert reserved == ["first", "bound"]

    world.tell(story)


NVIDIA = "gpu.nvidia.com"


def part(name: str, milli: int, memory: str = "1Gi") -> dict[str, Any]:
    return claim(name, request(capacity={"requests": {"milliGPU": str(milli), "memory": memory}}))


async def lease(it: World, devices: int = 1) -> None:
    """The node of a lease with what it publishes, as the exchange makes them."""
    made = world.lease_node("lease-1", milli=1000)
    for field in ("capacity", "allocatable"):
        made["status"][field] |= {
            "nvidia.com/gpu": str(devices),
            "walras.dev/milligpu": str(1000 * devices),
            "walras.dev/gpu-memory-mib": str(16384 * devices),
        }
    await it.create("nodes", made)
    await it.create(CLASSES, device_class("gpu"))
    policy = {"default": "1000", "validRange": {"min": "1"}}
    shared = {
        "allowMultipleAllocations": True,
        "capacity": {
            "milliGPU": {"value": "1000", "requestPolicy": policy},
            "memory": {"value": "16Gi", "requestPolicy": {"default": "16Gi", "validRange": {"min": "1Mi"}}},
        },
    }
    each = (device(f"gpu-{at}", **shared) for at in range(devices))
    await it.create(SLICES, device_slice("lease-1", *each, driver=NVIDIA))


def limits(name: str, milli: int) -> dict[str, Any]:
    return world.pod(name, limits={"walras.dev/milligpu": str(milli), "walras.dev/gpu-memory-mib": "1024"})


def on(it: World, name: str) -> str:
    return str(pod_of(it, name)["spec"].get("nodeName", ""))


def test_a_lease_of_one_device_serves_limits_and_claims_and_no_part_twice() -> None:
    async def story(it: World) -> None:
        await lease(it)
        for each in (part("half", 500), part("quarter", 250)):
            await it.create(CLAIMS, each)
        await it.create("pods", using("a", "half"))
        await it.create("pods", limits("b", 250))
        await it.settle()
        assert on(it, "a") == on(it, "b") == "lease-1"
        await it.create("pods", limits("c", 300))
        await it.settle()
        assert "Insufficient walras.dev/milligpu" in scheduled(pod_of(it, "c"))["message"]
        await it.create("pods", using("d", "quarter"))
        await it.settle()
        assert on(it, "d") == "lease-1", "a quarter is left"
        await it.end_pod(pod_of(it, "b"))
        assert on(it, "c") == "", "it is less than it asks for"
        await it.end_pod(pod_of(it, "a"))
        assert on(it, "c") == "lease-1", "the claim gave its half back"

    world.tell(story)


def test_a_claim_has_nothing_of_a_device_that_pods_have_by_their_limits() -> None:
    async def story(it: World) -> None:
        await lease(it)
        await it.create(CLAIMS, part("most", 800))
        await it.create(CLAIMS, part("memory", 100, "15.5Gi"))
        await it.create("pods", limits("by-limits", 300))
        await it.settle()
        for name, claimed in (("a", "most"), ("b", "memory")):
            await it.create("pods", using(name, claimed))
            await it.settle()
            assert "cannot allocate all claims" in scheduled(pod_of(it, name))["message"]
        await it.end_pod(pod_of(it, "by-limits"))
        assert on(it, "a") == "lease-1"

    world.tell(story)


def test_what_a_claim_is_on_its_way_to_hold_is_nobody_elses_already() -> None:
    async def story(it: World) -> None:
        await lease(it)
        await it.create(CLAIMS, part("mine", 700))
        store, waiting = it.api.store, list[Any]()
        submit = store.submit
        store.submit = lambda group, done: waiting.append((group, done))  # type: ignore[method-assign]
        result = {
            "request": "gpu", "driver": NVIDIA, "pool": "lease-1", "device": "gpu-0", "shareID": "s",
            "consumedCapacity": {"milliGPU": "700", "memory": "1Gi"},
        }  # fmt: skip

        def allocate(found: dict[str, Any]) -> None:
            found["status"] = {"allocation": {"devices": {"results": [result]}}}

        staged = asyncio.ensure_future(it.api.edit(AGENT, CLAIMS, "default", "mine", allocate))
        await asyncio.sleep(0)
        assert not is_allocated(claim_of(it, "mine")) and not staged.done()
        place, usage = node_of(it.api.get(AGENT, "nodes", "", "lease-1")), Usage()
        Placing(it.api, AGENT, it.api.transaction(), ClusterView()).look([(place, usage)])
        assert usage.claimed == (700, 1024, "")
        store.submit = submit  # type: ignore[method-assign]
        for group, done in waiting:
            submit(group, done)
        await staged

    world.tell(story)


@pytest.mark.parametrize("first", ["limits", "claims"])
def test_a_lease_of_several_devices_serves_limits_or_claims_whoever_comes_first(first: str) -> None:
    async def story(it: World) -> None:
        await lease(it, devices=2)
        await it.create(CLAIMS, part("mine", 500))
        pods = {"limits": limits("limits", 500), "claims": using("claims", "mine")}
        last = "claims" if first == "limits" else "limits"
        for each in (first, last):
            await it.create("pods", pods[each])
            await it.settle()
        assert on(it, first) == "lease-1"
        said = {"limits": "Insufficient walras.dev/milligpu", "claims": "devices pods have by their limits"}
        assert said[last] in scheduled(pod_of(it, last))["message"]
        await it.end_pod(pod_of(it, first))
        assert on(it, last) == "lease-1"

    world.tell(story)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_pod_whose_limits_and_extended_resources_are_of_one_lease_has_no_part_twice(devices: int) -> None:
    async def story(it: World) -> None:
        await lease(it, devices)
        fast = device_class("fast", f"device.driver == '{NVIDIA}'", extendedResourceName="example.com/fast")
        await it.create(CLASSES, fast)
        pod = limits("both", 500)
        pod["spec"]["containers"][0]["resources"]["limits"]["example.com/fast"] = "1"
        await it.create("pods", pod)
        await it.settle()
        assert "cannot allocate all claims" in scheduled(pod_of(it, "both"))["message"]
        assert it.api.list(AGENT, CLAIMS) == []

    world.tell(story)


@pytest.mark.parametrize("seed", range(5))
def test_whoever_comes_and_goes_a_device_is_never_given_twice(seed: int) -> None:
    rng = Random(seed)

    def taken(it: World) -> int:
        by_claims = sum(
            int(result["consumedCapacity"]["milliGPU"])
            for each in it.api.list(AGENT, CLAIMS)
            for result in each.get("status", {}).get("allocation", {}).get("devices", {}).get("results", ())
        )
        by_limits = sum(
            int(pod["spec"]["containers"][0]["resources"].get("limits", {}).get("walras.dev/milligpu", 0))
            for pod in it.pods()
            if pod["spec"].get("nodeName") and pod["status"].get("phase") != "Succeeded"
        )
        return by_claims + by_limits

    async def story(it: World) -> None:
        await lease(it)
        full = 0
        for at in range(40):
            milli = rng.choice((100, 250, 400))
            match rng.randrange(3):
                case 0:
                    await it.create("pods", limits(f"p{at}", milli))
                case 1:
                    await it.create(CLAIMS, part(f"c{at}", milli))
                    await it.create("pods", using(f"p{at}", f"c{at}"))
                case _ if running := [
                    pod
                    for pod in it.pods()
                    if pod["spec"].get("nodeName") and pod["status"].get("phase") != "Succeeded"
                ]:
                    await it.end_pod(rng.choice(running))
            if rng.random() < 0.7:
                await it.settle()
            assert taken(it) <= 1000
            full += taken(it) > 750
        assert full, "it was nearly full at times"

    world.tell(story)


def test_a_pod_that_asks_by_limits_and_by_claims_is_told_to_choose() -> None:
    async def story(it: World) -> None:
        await furnish(it)
        await it.create(CLAIMS, claim("mine", request()))
        pod = using("both", "mine")
        pod["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
        await it.create("pods", pod)
        await it.settle()
        assert "by limits of its containers or by resource claims" in scheduled(pod_of(it, "both"))["message"]

    world.tell(story)


def test_a_search_that_is_given_up_is_said_on_the_pod_and_others_are_served() -> None:
    async def story(it: World) -> None:
        await it.create("nodes", node("one"))
        await it.create(CLASSES, device_class("gpu"))
        many = [device(f"d{at}", attributes={"numa": at % 7}) for at in range(64)]
        await it.create(SLICES, device_slice("one", *many))
        hard = {"distinctAttribute": "gpu.example.com/numa"}
        await it.create(CLAIMS, claim("hard", request(count=8), constraints=[hard]))
        await it.create(CLAIMS, claim("easy", request()))
        await it.create("pods", using("greedy", "hard"))
        await it.create("pods", using("modest", "easy"))
        await it.settle()
        assert "given up after 20000 steps" in scheduled(pod_of(it, "greedy"))["message"]
        assert pod_of(it, "modest")["spec"]["nodeName"] == "one"

    world.tell(story)


def test_every_cluster_has_the_classes_of_gpus() -> None:
    async def story(it: World) -> None:
        names = [each["metadata"]["name"] for each in it.api.list(AGENT, CLASSES)]
        assert names == ["gpu.nvidia.com", "mig.nvidia.com"]

    world.tell(story)


def asking(name: str, resource: str, count: int = 1, **spec: Any) -> dict[str, Any]:
    return world.pod(name, limits={resource: str(count)}, **spec)


def test_a_resource_that_a_class_stands_for_is_had_by_a_claim() -> None:
    async def story(it: World) -> None:
        await furnish(it, devices=2)
        await it.create(CLASSES, device_class("fast", extendedResourceName="example.com/fast"))
        await it.create("pods", asking("train", "example.com/fast", 2))
        await it.settle()
        pod = pod_of(it, "train")
        assert pod["spec"]["nodeName"] == "one"
        said = pod["status"]["extendedResourceClaimStatus"]
        assert said["requestMappings"] == [
            {
                "containerName": "main",
                "resourceName": "example.com/fast",
                "requestName": "container-0-request-0",
            }
        ]
        found = claim_of(it, said["resourceClaimName"])
        assert found["metadata"]["name"].startswith("train-extended-resources-")
        assert found["metadata"]["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
        assert given(found) == ["gpu-0", "gpu-1"]
        assert [each["name"] for each in found["status"]["reservedFor"]] == ["train"]
        await it.create("pods", asking("next", "deviceclass.resource.kubernetes.io/fast"))
        await it.settle()
        assert "cannot allocate all claims" in scheduled(pod_of(it, "next"))["message"]
        await it.end_pod(pod)
        assert pod_of(it, "next")["spec"]["nodeName"] == "one"
        assert it.api.find(AGENT, CLAIMS, "default", said["resourceClaimName"]) is None

    world.tell(story)


def test_a_resource_that_a_node_has_is_the_nodes_whatever_classes_there_are() -> None:
    async def story(it: World) -> None:
        having = node("one")
        having["status"]["allocatable"]["example.com/fast"] = "1"
        await it.create("nodes", having)
        await it.create(CLASSES, device_class("fast", extendedResourceName="example.com/fast"))
        for name in ("first", "second"):
            await it.create("pods", asking(name, "example.com/fast"))
        await it.settle()
        assert pod_of(it, "first")["spec"]["nodeName"] == "one"
        assert "extendedResourceClaimStatus" not in pod_of(it, "first")["status"]
        assert "Insufficient example.com/fast" in scheduled(pod_of(it, "second"))["message"]

    world.tell(story)
