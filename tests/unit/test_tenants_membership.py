"""Whose pods are whose: what matches is taken in, what matches no longer is let go."""

from typing import Any

import pytest
from support.world import AGENT, World, condition, pod, tell

Object = dict[str, Any]
KINDS = {
    "replicasets.apps": ("apps/v1", "ReplicaSet"),
    "replicationcontrollers": ("v1", "ReplicationController"),
}


def workload(resource: str, replicas: int = 1) -> Object:
    version, kind = KINDS[resource]
    labels = {"app": "web"}
    selector = labels if kind == "ReplicationController" else {"matchLabels": labels}
    template = {"metadata": {"labels": labels}, "spec": pod("")["spec"]}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }


def labelled(name: str) -> Object:
    made = pod(name)
    made["metadata"]["labels"] = {"app": "web"}
    return made


def controllers(each: Object) -> list[str]:
    return [owner["name"] for owner in each["metadata"].get("ownerReferences", []) if owner.get("controller")]


@pytest.mark.parametrize("resource", KINDS)
def test_an_ownerless_pod_that_matches_is_taken_in(resource: str) -> None:
    async def story(world: World) -> None:
        await world.create("pods", labelled("mine"))
        await world.create(resource, workload(resource))
        await world.settle()
        assert [(each["metadata"]["name"], controllers(each)) for each in world.pods()] == [("mine", ["web"])]
        await world.create("pods", labelled("more"))
        await world.settle()
        assert len([each for each in world.pods() if "deletionTimestamp" not in each["metadata"]]) == 1

    tell(story)


@pytest.mark.parametrize("resource", KINDS)
def test_a_pod_that_matches_no_longer_is_let_go_and_replaced(resource: str) -> None:
    async def story(world: World) -> None:
        await world.create(resource, workload(resource))
        await world.settle()
        name = world.pods()[0]["metadata"]["name"]
        await world.api.edit(
            AGENT, "pods", "default", name, lambda it: it["metadata"].update(labels={"app": "debug"})
        )
        await world.settle()
        by_name = {each["metadata"]["name"]: each for each in world.pods()}
        assert len(by_name) == 2
        assert controllers(by_name.pop(name)) == []
        assert controllers(next(iter(by_name.values()))) == ["web"]

    tell(story)


@pytest.mark.parametrize("resource", KINDS)
def test_what_two_could_take_only_one_takes(resource: str) -> None:
    async def story(world: World) -> None:
        twin = workload(resource, 2)
        twin["metadata"]["name"] = "twin"
        await world.create(resource, twin)
        await world.create(resource, workload(resource, 2))
        await world.settle()
        assert sorted(len(controllers(each)) for each in world.pods()) == [1, 1, 1, 1]

    tell(story)


def test_a_replication_controller_keeps_its_number_and_tells_it() -> None:
    async def story(world: World) -> None:
        await world.create("replicationcontrollers", workload("replicationcontrollers", 2))
        await world.settle()
        for each in world.pods():
            await world.run_pod(each)
        found = world.api.get(AGENT, "replicationcontrollers", "default", "web")
        assert found["status"]["readyReplicas"] == found["status"]["replicas"] == 2
        await world.api.delete(AGENT, "replicationcontrollers", "default", "web")
        await world.settle()
        assert all("deletionTimestamp" in each["metadata"] for each in world.pods())

    tell(story)


def test_pods_that_a_quota_refuses_are_told_once_and_tried_again_later() -> None:
    async def story(world: World) -> None:
        await world.create(
            "resourcequotas",
            {"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}, "status": {"hard": {"pods": "2"}}},
        )
        await world.settle()
        await world.create("replicationcontrollers", workload("replicationcontrollers", 3))
        await world.settle()
        assert len(world.pods()) == 2
        found = world.api.get(AGENT, "replicationcontrollers", "default", "web")
        assert condition(found, "ReplicaFailure") == "True"
        await world.later(10)
        again = world.api.get(AGENT, "replicationcontrollers", "default", "web")
        assert again["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
        await world.api.edit(
            AGENT, "replicationcontrollers", "default", "web", lambda it: it["spec"].update(replicas=2)
        )
        await world.settle()
        found = world.api.get(AGENT, "replicationcontrollers", "default", "web")
        assert condition(found, "ReplicaFailure") == ""

    tell(story)


def test_pods_that_cannot_be_made_are_told_until_they_can() -> None:
    async def story(world: World) -> None:
        def quota(objects: int) -> Any:
            return lambda it: it["spec"].update(controlPlane={"quota": {"objects": objects}})

        used = world.api.state.cluster(AGENT).objects
        await world.api.edit("fleet", "agents.walras.dev", "", AGENT, quota(used + 1))
        await world.create("replicasets.apps", workload("replicasets.apps"))
        await world.settle()
        found = world.api.get(AGENT, "replicasets.apps", "default", "web")
        assert condition(found, "ReplicaFailure") == "True"
        await world.api.edit("fleet", "agents.walras.dev", "", AGENT, quota(used + 100))
        await world.later(10)
        assert len(world.pods()) == 1
        found = world.api.get(AGENT, "replicasets.apps", "default", "web")
        assert condition(found, "ReplicaFailure") == ""

    tell(story)
