"""Replica sets keep their number of pods; deployments roll templates out over them."""

from typing import Any

import pytest
from support.world import AGENT, World, condition, pod, tell

from walras.tenants.rollout import limits, proportional, scale

DEPLOYMENTS, SETS = "deployments.apps", "replicasets.apps"
Object = dict[str, Any]


def workload(image: str = "v1", **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("")["spec"]}
    template["spec"]["containers"][0]["image"] = image
    return {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def active(world: World) -> list[Object]:
    return [each for each in world.pods() if "deletionTimestamp" not in each["metadata"]]


def image_of(obj: Object) -> str:
    return str(obj["spec"]["containers"][0]["image"])


async def run_all(world: World) -> None:
    """The kubelet starts what is bound and ends what is deleted, until nothing moves."""
    while True:
        for each in world.pods():
            if "deletionTimestamp" in each["metadata"]:
                await world.remove(each)
                break
            if each["status"]["phase"] == "Pending" and each["spec"].get("nodeName"):
                await world.run_pod(each)
                break
        else:
            return


async def change(world: World, resource: str = DEPLOYMENTS, **spec: Any) -> None:
    await world.api.edit(AGENT, resource, "default", "web", lambda it: it["spec"].update(spec))
    await world.settle()


async def set_image(world: World, image: str) -> None:
    def edit(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image

    await world.api.edit(AGENT, DEPLOYMENTS, "default", "web", edit)
    await world.settle()


def test_a_replica_set_grows_shrinks_and_replaces() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, workload(replicas=3))
        await world.settle()
        assert len(world.pods()) == 3
        await run_all(world)
        reported = world.api.get(AGENT, SETS, "default", "web")["status"]
        assert (reported["replicas"], reported["readyReplicas"], reported["availableReplicas"]) == (3, 3, 3)
        await world.end_pod(world.pods()[0], code=1)
        assert len([each for each in world.pods() if each["status"]["phase"] != "Failed"]) == 3
        await run_all(world)
        await change(world, SETS, replicas=1)
        await run_all(world)
        running = [each for each in world.pods() if each["status"]["phase"] == "Running"]
        assert len(running) == 1
        assert world.api.get(AGENT, SETS, "default", "web")["status"]["replicas"] == 1

    tell(story)


def test_a_replica_set_gives_up_pods_that_do_not_run_first() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, workload(replicas=3))
        await world.settle()
        kept, *others = world.pods()
        await world.run_pod(kept)
        for each in others:
            await world.set_status(each, reason="Starting")
        await change(world, SETS, replicas=1)
        assert [each["metadata"]["name"] for each in active(world)] == [kept["metadata"]["name"]]

    tell(story)


def test_a_replica_set_adopts_what_matches_and_is_nobodys() -> None:
    async def story(world: World) -> None:
        stray = pod("stray")
        stray["metadata"]["labels"] = {"app": "web"}
        await world.create("pods", stray)
        await world.create(SETS, workload(replicas=2))
        await world.settle()
        assert len(world.pods()) == 2
        adopted = world.api.get(AGENT, "pods", "default", "stray")["metadata"]["ownerReferences"]
        assert [owner["kind"] for owner in adopted] == ["ReplicaSet"]

    tell(story)


def test_availability_waits_for_min_ready_seconds() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, workload(replicas=1, minReadySeconds=30))
        await world.settle()
        await run_all(world)
        await world.later(29)
        assert "availableReplicas" not in world.api.get(AGENT, SETS, "default", "web")["status"]
        await world.later(1)
        assert world.api.get(AGENT, SETS, "default", "web")["status"]["availableReplicas"] == 1

    tell(story)


def test_a_deployment_becomes_available() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=2))
        await world.settle()
        assert condition(world.api.get(AGENT, DEPLOYMENTS, "default", "web"), "Available") == "False"
        await run_all(world)
        made = world.api.get(AGENT, DEPLOYMENTS, "default", "web")
        assert condition(made, "Available") == "True" and condition(made, "Progressing") == "True"
        reported = made["status"]
        assert (reported["replicas"], reported["updatedReplicas"], reported["availableReplicas"]) == (2, 2, 2)
        assert "unavailableReplicas" not in reported
        assert reported["observedGeneration"] == made["metadata"]["generation"]
        (one,) = world.api.list(AGENT, SETS)
        assert one["metadata"]["name"].startswith("web-")
        assert one["metadata"]["labels"]["pod-template-hash"] in one["metadata"]["name"]
        assert {each["metadata"]["labels"]["app"] for each in world.pods()} == {"web"}

    tell(story)


def test_a_rolling_update_stays_within_surge_and_unavailability() -> None:
    async def story(world: World) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}
        await world.create(DEPLOYMENTS, workload(replicas=4, strategy=strategy))
        await world.settle()
        await run_all(world)
        await set_image(world, "v2")
        steps = 0
        while True:
            pods = active(world)
            running = [each for each in pods if each["status"]["phase"] == "Running"]
            assert len(pods) <= 5 and len(running) >= 3
            going = [each for each in world.pods() if "deletionTimestamp" in each["metadata"]]
            starting = [each for each in pods if each["status"]["phase"] == "Pending"]
            if going:
                await world.remove(going[0])
            elif starting:
                await world.run_pod(starting[0])
            else:
                break
            steps += 1
            assert steps < 50
        assert [image_of(each) for each in world.pods()] == ["v2"] * 4
        assert sorted(each["spec"]["replicas"] for each in world.api.list(AGENT, SETS)) == [0, 4]

    tell(story)


def test_a_broken_template_does_not_take_the_old_pods_down() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=4, progressDeadlineSeconds=60))
        await world.settle()
        await run_all(world)
        await set_image(world, "broken")
        await world.later(59)
        made = world.api.get(AGENT, DEPLOYMENTS, "default", "web")
        assert condition(made, "Available") == "True" and condition(made, "Progressing") == "True"
        await world.later(2)
        made = world.api.get(AGENT, DEPLOYMENTS, "default", "web")
        assert condition(made, "Progressing") == "False"
        old = [each for each in active(world) if image_of(each) == "v1"]
        assert len(old) >= 3 and all(each["status"]["phase"] == "Running" for each in old)

    tell(story)


def test_recreate_starts_nothing_before_the_last_old_pod_is_gone() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=2, strategy={"type": "Recreate"}))
        await world.settle()
        await run_all(world)
        await set_image(world, "v2")
        old = world.pods()
        assert {image_of(each) for each in old} == {"v1"} and active(world) == []
        await world.remove(old[0])
        assert {image_of(each) for each in world.pods()} == {"v1"}
        await world.remove(old[1])
        assert [image_of(each) for each in world.pods()] == ["v2", "v2"]

    tell(story)


def test_a_rollback_uses_the_old_replica_set_again() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=1))
        await world.settle()
        await run_all(world)
        await set_image(world, "v2")
        await run_all(world)
        await set_image(world, "v1")
        await run_all(world)
        assert [image_of(each) for each in world.pods()] == ["v1"]
        sets = world.api.list(AGENT, SETS)
        revisions = {
            each["spec"]["template"]["spec"]["containers"][0]["image"]: each["metadata"]["annotations"][
                "deployment.kubernetes.io/revision"
            ]
            for each in sets
        }
        assert len(sets) == 2 and revisions == {"v1": "3", "v2": "2"}

    tell(story)


def test_old_revisions_are_forgotten_beyond_the_limit() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=1, revisionHistoryLimit=1))
        await world.settle()
        for image in ("v2", "v3", "v4"):
            await run_all(world)
            await set_image(world, image)
        await run_all(world)
        images = {
            each["spec"]["template"]["spec"]["containers"][0]["image"] for each in world.api.list(AGENT, SETS)
        }
        assert images == {"v3", "v4"}

    tell(story)


def test_a_paused_deployment_rolls_nothing_out_but_scales() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=1))
        await world.settle()
        await run_all(world)
        await change(world, paused=True)
        await set_image(world, "v2")
        await change(world, replicas=2)
        await run_all(world)
        assert [image_of(each) for each in world.pods()] == ["v1", "v1"]
        await change(world, paused=False)
        await run_all(world)
        assert [image_of(each) for each in world.pods()] == ["v2", "v2"]

    tell(story)


def test_scaling_and_deleting() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=1))
        await world.settle()
        await change(world, replicas=3)
        assert len(active(world)) == 3
        await change(world, replicas=0)
        await run_all(world)
        assert world.pods() == []
        await change(world, replicas=2)
        await world.api.delete(AGENT, DEPLOYMENTS, "default", "web")
        await world.settle()
        await run_all(world)
        assert world.pods() == [] and world.api.list(AGENT, SETS) == []

    tell(story)


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 3, (1, 0)),
        ("25%", "25%", 10, (3, 2)),
        (0, 0, 5, (0, 1)),
        (2, "50%", 5, (2, 2)),
    ],
)
def test_percentages_round_in_favour_of_availability(
    surge: Any, unavailable: Any, replicas: int, expected: tuple[int, int]
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    assert limits({"replicas": replicas, "strategy": {"rollingUpdate": rolling}}) == expected


def replica_set(replicas: int, available: int) -> Object:
    return {"spec": {"replicas": replicas}, "status": {"availableReplicas": available}}


def test_pods_that_never_came_up_give_way_first() -> None:
    spec = {"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
    wanted = scale(spec, replica_set(1, 0), [replica_set(4, 4), replica_set(2, 0)], gone=False)
    assert wanted == [1, 4, 0]


def test_replica_sets_that_nobody_controls_are_taken_in_again() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=2))
        await world.settle()
        await run_all(world)
        before = {each["metadata"]["uid"] for each in world.pods()}
        await world.api.delete(AGENT, DEPLOYMENTS, "default", "web", propagation="Orphan")
        await world.settle()
        (orphan,) = world.api.list(AGENT, SETS, "default")
        assert "ownerReferences" not in orphan["metadata"]
        made = await world.create(DEPLOYMENTS, workload(replicas=2))
        await world.settle()
        (again,) = world.api.list(AGENT, SETS, "default")
        assert again["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        assert {each["metadata"]["uid"] for each in world.pods()} == before

    tell(story)


def set_of(replicas: int, desired: int, most: int) -> Object:
    remembered = {"desired-replicas": str(desired), "max-replicas": str(most)}
    annotations = {f"deployment.kubernetes.io/{name}": value for name, value in remembered.items()}
    return {"metadata": {"name": "x", "annotations": annotations}, "spec": {"replicas": replicas}}


ROLLING: Object = {"strategy": {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}}


@pytest.mark.parametrize(
    ("replicas", "new", "old", "expected"),
    [
        # The sizes that Kubernetes' own conformance test of proportional scaling expects.
        (30, 5, [8], [13, 20]),
        (10, 5, [8], None),
        (0, 5, [8], [0, 0]),
        (30, 13, [], None),
        (5, 5, [8], [3, 5]),
    ],
)
def test_a_deployment_that_is_scaled_in_a_rollout_scales_its_sets_in_proportion(
    replicas: int, new: int, old: list[int], expected: list[int] | None
) -> None:
    sets = [set_of(size, 10, 13) for size in (new, *old)]
    assert proportional({"replicas": replicas, **ROLLING}, sets[0], sets[1:]) == expected


def test_scaling_in_a_rollout_that_is_stuck_divides_what_is_added() -> None:
    async def story(world: World) -> None:
        await world.create(DEPLOYMENTS, workload(replicas=10, **ROLLING))
        await world.settle()
        await run_all(world)
        await set_image(world, "broken")
        sizes = [each["spec"]["replicas"] for each in world.api.list(AGENT, SETS, "default")]
        assert sorted(sizes) == [5, 8]
        await change(world, replicas=30)
        sizes = [each["spec"]["replicas"] for each in world.api.list(AGENT, SETS, "default")]
        assert sorted(sizes) == [13, 20]

    tell(story)
