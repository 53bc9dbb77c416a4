"""Pods find nodes as soon as there is one, and say why when there is none."""

import asyncio
from typing import Any

from support.world import AGENT, CA, ENDPOINT, World, lease_node, pod, scheduled, tell

from walras.core.clock import SequenceIds
from walras.core.errors import StorageError
from walras.kube.api import Change
from walras.tenants.planes import ControlPlanes

FRACTION = {"walras.dev/milligpu": "600"}


def node_of(world: World, name: str) -> str:
    return str(world.api.get(AGENT, "pods", "default", name)["spec"].get("nodeName", ""))


def test_a_plain_pod_is_bound_to_the_base_node() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("web"))
        await world.settle()
        assert node_of(world, "web") == "base"
        assert scheduled(world.api.get(AGENT, "pods", "default", "web"))["status"] == "True"
        (event,) = world.events("Scheduled")
        assert event["message"] == "Successfully assigned default/web to base"
        assert event["involvedObject"]["name"] == "web"

    tell(story)


def test_the_refusal_is_on_the_pod_and_an_event_and_is_not_repeated() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("train", limits={"nvidia.com/gpu": "1"}))
        await world.settle()
        refused = world.api.get(AGENT, "pods", "default", "train")
        said = scheduled(refused)
        assert (said["status"], said["reason"]) == ("False", "Unschedulable")
        assert said["message"] == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        assert world.events("FailedScheduling")[0]["message"] == said["message"]
        # Other pods come and go; nothing changes for this one, so nothing is written.
        await world.create("pods", pod("web"))
        await world.settle()
        await world.api.delete(AGENT, "pods", "default", "web", grace_seconds=0)
        await world.settle()
        assert world.api.get(AGENT, "pods", "default", "train") == refused
        assert [event["count"] for event in world.events("FailedScheduling")] == [1]

    tell(story)


def test_a_lease_node_that_appears_is_used_at_once() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("train", limits=FRACTION))
        await world.settle()
        await world.api.create(AGENT, "nodes", lease_node("lease-1", milli=600, bid="train"))
        await world.settle()
        assert node_of(world, "train") == "lease-1"

    tell(story)


def test_binding_takes_one_commit_after_the_pod() -> None:
    async def story(world: World) -> None:
        commits: list[set[str]] = [set()]

        def seen(change: Change) -> None:
            if change.type == "MODIFIED" and change.object["spec"].get("nodeName"):
                commits[-1].add(change.object["metadata"]["name"])

        world.api.subscribe("pods", seen)
        await asyncio.gather(*(world.create("pods", pod(f"web-{number}")) for number in range(20)))
        # All were created in one group; the next group binds all of them.
        await world.create("configmaps", {"metadata": {"name": "next-group"}})
        await world.create("configmaps", {"metadata": {"name": "group-after"}})
        assert len(commits[-1]) == 20

    tell(story)


def test_two_pods_never_share_what_is_there_once() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        await asyncio.gather(
            world.create("pods", pod("a", limits=FRACTION)), world.create("pods", pod("b", limits=FRACTION))
        )
        await world.settle()
        bound = [name for name in ("a", "b") if node_of(world, name)]
        assert len(bound) == 1
        # The other takes the room as soon as the first has ended.
        await world.end_pod(world.api.get(AGENT, "pods", "default", bound[0]))
        assert node_of(world, "a") == node_of(world, "b") == "lease-1"

    tell(story)


def test_room_that_a_deleted_pod_leaves_is_used_only_when_it_is_gone() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        first = await world.create("pods", pod("a", limits=FRACTION))
        await world.settle()
        await world.create("pods", pod("b", limits=FRACTION))
        await world.api.delete(AGENT, "pods", "default", "a")
        await world.settle()
        assert node_of(world, "b") == ""
        await world.remove(first)
        assert node_of(world, "b") == "lease-1"

    tell(story)


def test_a_won_node_waits_for_its_pod_and_is_free_when_that_is_gone() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("older", limits=FRACTION))
        await world.create("pods", pod("winner", limits=FRACTION))
        await world.settle()
        await world.api.create(AGENT, "nodes", lease_node("lease-1", bid="winner"))
        await world.settle()
        assert node_of(world, "winner") == "lease-1" and node_of(world, "older") == ""

        await world.create("pods", pod("late", limits=FRACTION | {"cpu": "7"}))
        await world.api.create(AGENT, "nodes", lease_node("lease-2", bid="late"))
        await world.settle()
        assert node_of(world, "late") == node_of(world, "older") == ""
        await world.api.delete(AGENT, "pods", "default", "late")
        await world.settle()
        assert node_of(world, "older") == "lease-2"

    tell(story)


def test_a_priority_class_stands_for_a_number() -> None:
    async def story(world: World) -> None:
        urgent = {"metadata": {"name": "urgent"}, "value": 1000}
        await world.create("priorityclasses.scheduling.k8s.io", urgent)
        await world.create("pods", pod("a-low", limits=FRACTION, priority=1))
        await world.create("pods", pod("high", limits=FRACTION, priorityClassName="urgent"))
        await world.settle()
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        await world.settle()
        assert node_of(world, "high") == "lease-1"

    tell(story)


def test_a_commit_that_the_disk_refuses_is_tried_again() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        submit, refusals = world.api.submit, []

        def refuse(*staged: Any) -> Any:
            refusals.append(staged)
            raise StorageError("database or disk is full")

        await world.create("pods", pod("a", limits=FRACTION))
        world.api.submit = refuse  # type: ignore[method-assign,assignment]
        await world.planes.settle()
        assert refusals and node_of(world, "a") == ""
        tried = len(refusals)
        await world.planes.settle()
        assert len(refusals) == tried, "it waits before the next try"
        world.api.submit = submit  # type: ignore[method-assign]
        await world.later(1)
        assert node_of(world, "a") == "lease-1"
        # What was taken back is not counted twice.
        await world.create("pods", pod("b", limits={"walras.dev/milligpu": "400"}))
        await world.settle()
        assert node_of(world, "b") == "lease-1"

    tell(story)


def test_a_restart_knows_what_is_taken() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        await world.create("pods", pod("a", limits=FRACTION))
        await world.settle()
        await world.planes.stop()
        await world.create("pods", pod("b", limits=FRACTION))
        await world.create("pods", pod("c", limits={"walras.dev/milligpu": "400"}))
        again = ControlPlanes(world.api, world.clock, SequenceIds(), endpoint=ENDPOINT, ca_pem=CA)
        await again.start()
        await again.settle()
        assert node_of(world, "c") == "lease-1" and node_of(world, "b") == ""
        await again.stop()

    tell(story)


def test_priority_goes_first() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("a-low", limits=FRACTION, priority=1))
        await world.create("pods", pod("high", limits=FRACTION, priority=100))
        await world.settle()
        await world.api.create(AGENT, "nodes", lease_node("lease-1"))
        await world.settle()
        assert node_of(world, "high") == "lease-1" and node_of(world, "a-low") == ""

    tell(story)


def test_taints_keep_pods_away_until_they_go() -> None:
    async def story(world: World) -> None:
        taint = {"key": "maintenance", "effect": "NoSchedule"}
        await world.api.edit(AGENT, "nodes", "", "base", lambda node: node["spec"].update(taints=[taint]))
        await world.create("pods", pod("web"))
        await world.create("pods", pod("patient", tolerations=[{"operator": "Exists"}]))
        await world.settle()
        said = scheduled(world.api.get(AGENT, "pods", "default", "web"))["message"]
        assert said == "0/1 nodes are available: 1 node(s) had untolerated taint {maintenance: }."
        assert node_of(world, "patient") == "base"
        await world.api.edit(AGENT, "nodes", "", "base", lambda node: node["spec"].pop("taints"))
        await world.settle()
        assert node_of(world, "web") == "base"

    tell(story)


def test_other_schedulers_and_gated_pods_are_left_alone() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("theirs", schedulerName="mine"))
        await world.create("pods", pod("gated", schedulingGates=[{"name": "wait"}]))
        await world.settle()
        for name in ("theirs", "gated"):
            assert not node_of(world, name)
            assert not scheduled(world.api.get(AGENT, "pods", "default", name))
        await world.api.edit(AGENT, "pods", "default", "gated", lambda it: it["spec"].pop("schedulingGates"))
        await world.settle()
        assert node_of(world, "gated") == "base"

    tell(story)


def test_a_nonsense_request_says_so() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("p", limits={"walras.dev/gpu-memory-mib": "100"}))
        await world.settle()
        said = scheduled(world.api.get(AGENT, "pods", "default", "p"))
        assert said["message"] == (
            "walras.dev/gpu-memory-mib needs walras.dev/milligpu or nvidia.com/gpu beside it"
        )

    tell(story)


def test_a_pod_waits_for_its_claim() -> None:
    async def story(world: World) -> None:
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}
        await world.create("pods", pod("p", volumes=[volume]))
        await world.settle()
        said = scheduled(world.api.get(AGENT, "pods", "default", "p"))["message"]
        assert said == '0/1 nodes are available: persistentvolumeclaim "disk" not found.'
        await world.create(
            "persistentvolumeclaims",
            {"metadata": {"name": "disk"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        )
        await world.settle()
        assert node_of(world, "p") == "base"
        claim = world.api.get(AGENT, "persistentvolumeclaims", "default", "disk")
        assert claim["status"]["phase"] == "Bound"
        assert claim["status"]["capacity"] == {"storage": "1Gi"}

    tell(story)


def test_clusters_do_not_see_each_others_nodes() -> None:
    async def story(world: World) -> None:
        await world.api.create("zoo", "nodes", lease_node("lease-1"))
        await world.create("pods", pod("p", limits=FRACTION))
        await world.settle()
        assert node_of(world, "p") == ""

    tell(story, agents=(AGENT, "zoo"))


def test_a_thousand_pods_that_cannot_run_do_not_hold_up_another_cluster() -> None:
    async def story(world: World) -> None:
        transaction = world.api.transaction()
        for number in range(1000):
            flood = pod(f"flood-{number}", limits=FRACTION)
            flood["metadata"]["namespace"] = "default"
            transaction.create(AGENT, "pods", flood)
        flooded = asyncio.create_task(transaction.commit())
        web = await world.create("pods", pod("web"), cluster="zoo")
        await flooded
        turns = 0
        while not world.api.get("zoo", "pods", "default", web["metadata"]["name"])["spec"].get("nodeName"):
            turns += 1
            await world.create("configmaps", {"metadata": {"name": f"turn-{turns}"}})
        refused = [each for each in world.pods() if scheduled(each)]
        assert len(refused) < 1000
        await world.settle()
        assert all(scheduled(each)["reason"] == "Unschedulable" for each in world.pods())

    tell(story, agents=(AGENT, "zoo"))


def test_a_pod_that_claims_devices_waits_instead_of_running_without_them() -> None:
    async def story(world: World) -> None:
        claim = {"name": "gpu", "resourceClaimTemplateName": "one"}
        await world.create("pods", pod("train", resourceClaims=[claim]))
        await world.settle()
        train = world.api.get(AGENT, "pods", "default", "train")
        # Not a word before its claims are there, as of a gated pod.
        assert not train["spec"].get("nodeName") and not scheduled(train)

    tell(story)
