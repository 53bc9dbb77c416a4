"""Stateful sets: one pod an ordinal, in order, with claims of its own, updated from the last one down."""

from typing import Any

import pytest
from support.world import AGENT, World, pod, tell

from walras.tenants import stateful_claims
from walras.tenants.stateful_plan import ordinal_of

SETS, CLAIMS, REVISIONS = "statefulsets.apps", "persistentvolumeclaims", "controllerrevisions.apps"
Object = dict[str, Any]


def stateful(image: str = "v1", *, claims: bool = False, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": pod("")["spec"]}
    template["spec"]["containers"][0]["image"] = image
    if claims:
        asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": asked}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": template,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            **spec,
        },
    }


def names(world: World) -> list[str]:
    return [each["metadata"]["name"] for each in world.pods()]


def reported(world: World) -> Object:
    found: Object = world.api.get(AGENT, SETS, "default", "db")["status"]
    return found


async def change(world: World, **spec: Any) -> None:
    await world.api.edit(AGENT, SETS, "default", "db", lambda it: it["spec"].update(spec))
    await world.settle()


async def set_image(world: World, image: str) -> None:
    def edit(owner: Object) -> None:
        owner["spec"]["template"]["spec"]["containers"][0]["image"] = image

    await world.api.edit(AGENT, SETS, "default", "db", edit)
    await world.settle()


async def kubelet(world: World) -> None:
    """Starts what is bound and ends what is deleted, until nothing moves."""
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


def images(world: World) -> dict[str, str]:
    return {each["metadata"]["name"]: each["spec"]["containers"][0]["image"] for each in world.pods()}


def test_each_pod_waits_for_the_one_before_and_leaves_in_reverse() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=3))
        await world.settle()
        assert names(world) == ["db-0"]
        await world.run_pod(world.pods()[0])
        assert names(world) == ["db-0", "db-1"]
        await world.settle()
        assert names(world) == ["db-0", "db-1"]
        await kubelet(world)
        assert names(world) == ["db-0", "db-1", "db-2"]
        assert (reported(world)["replicas"], reported(world)["readyReplicas"]) == (3, 3)
        await change(world, replicas=1)
        assert [
            each["metadata"]["name"] for each in world.pods() if "deletionTimestamp" in each["metadata"]
        ] == ["db-2"]
        await kubelet(world)
        assert names(world) == ["db-0"]

    tell(story)


def test_pods_have_a_name_that_stays_and_say_which_they_are() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=1, ordinals={"start": 5}))
        await world.settle()
        first = world.pods()[0]
        assert first["metadata"]["name"] == "db-5"
        assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("db-5", "db")
        labels = first["metadata"]["labels"]
        assert labels["statefulset.kubernetes.io/pod-name"] == "db-5"
        assert labels["apps.kubernetes.io/pod-index"] == "5"
        assert labels["controller-revision-hash"] == reported(world)["updateRevision"]
        await world.end_pod(first, code=1)
        again = world.pods()[0]
        assert (again["metadata"]["name"], again["status"]["phase"]) == ("db-5", "Pending")
        assert again["metadata"]["uid"] != first["metadata"]["uid"]

    tell(story)


def test_parallel_sets_wait_for_nobody() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=3, podManagementPolicy="Parallel"))
        await world.settle()
        assert names(world) == ["db-0", "db-1", "db-2"]
        await change(world, replicas=0)
        await kubelet(world)
        assert names(world) == []

    tell(story)


def test_an_update_goes_from_the_last_down_to_the_partition_and_back() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=3))
        await world.settle()
        await kubelet(world)
        await change(world, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
        await set_image(world, "v2")
        await kubelet(world)
        assert images(world) == {"db-0": "v1", "db-1": "v1", "db-2": "v2"}
        status = reported(world)
        assert (status["updatedReplicas"], status["currentReplicas"]) == (1, 2)
        assert status["currentRevision"] != status["updateRevision"]
        # A pod below the partition comes back as it was.
        await world.api.delete(AGENT, "pods", "default", "db-0", grace_seconds=0)
        await world.settle()
        await kubelet(world)
        assert images(world)["db-0"] == "v1"
        await change(world, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        await kubelet(world)
        assert set(images(world).values()) == {"v2"}
        assert reported(world)["currentRevision"] == reported(world)["updateRevision"]
        await set_image(world, "v1")
        await kubelet(world)
        assert set(images(world).values()) == {"v1"}
        # Going back takes the old revision again, with a higher number.
        revisions = world.api.list(AGENT, REVISIONS, "default")
        assert sorted(each["revision"] for each in revisions) == [2, 3]

    tell(story)


def test_on_delete_leaves_old_pods_until_somebody_deletes_them() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=2, updateStrategy={"type": "OnDelete"}))
        await world.settle()
        await kubelet(world)
        await set_image(world, "v2")
        await kubelet(world)
        assert set(images(world).values()) == {"v1"}
        await world.api.delete(AGENT, "pods", "default", "db-0", grace_seconds=0)
        await world.settle()
        assert images(world) == {"db-0": "v2", "db-1": "v1"}

    tell(story)


def test_several_may_be_replaced_at_once_where_the_set_says_so() -> None:
    async def story(world: World) -> None:
        rolling = {"partition": 0, "maxUnavailable": "50%"}
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        await world.create(
            SETS, stateful(replicas=4, podManagementPolicy="Parallel", updateStrategy=strategy)
        )
        await world.settle()
        await kubelet(world)
        await set_image(world, "v2")
        going = [each["metadata"]["name"] for each in world.pods() if "deletionTimestamp" in each["metadata"]]
        assert going == ["db-2", "db-3"]

    tell(story)


def test_history_beyond_its_limit_is_forgotten_but_not_what_is_in_use() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=1, revisionHistoryLimit=1))
        await world.settle()
        await kubelet(world)
        for image in ("v2", "v3", "v4"):
            await set_image(world, image)
            await kubelet(world)
        assert len(world.api.list(AGENT, REVISIONS, "default")) == 2

    tell(story)


def test_every_ordinal_has_claims_that_outlive_its_pod() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=2, claims=True))
        await world.settle()
        await kubelet(world)
        claims = [each["metadata"]["name"] for each in world.api.list(AGENT, CLAIMS, "default")]
        assert claims == ["data-db-0", "data-db-1"]
        volumes = world.pods()[1]["spec"]["volumes"]
        assert volumes[0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
        await change(world, replicas=1)
        await kubelet(world)
        assert len(world.api.list(AGENT, CLAIMS, "default")) == 2
        await world.api.delete(AGENT, SETS, "default", "db")
        await world.settle()
        await kubelet(world)
        assert len(world.api.list(AGENT, CLAIMS, "default")) == 2

    tell(story)


def test_claims_go_with_pod_and_set_where_the_policy_says_so() -> None:
    async def story(world: World) -> None:
        policy = {"whenScaled": "Delete", "whenDeleted": "Delete"}
        await world.create(
            SETS, stateful(replicas=2, claims=True, persistentVolumeClaimRetentionPolicy=policy)
        )
        await world.settle()
        await kubelet(world)
        await change(world, replicas=1)
        await kubelet(world)
        assert [each["metadata"]["name"] for each in world.api.list(AGENT, CLAIMS, "default")] == [
            "data-db-0"
        ]
        await world.api.delete(AGENT, SETS, "default", "db")
        await world.settle()
        await kubelet(world)
        assert world.api.list(AGENT, CLAIMS, "default") == []

    tell(story)


def test_orphans_of_its_name_are_taken_in_and_pods_that_match_no_longer_let_go() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, stateful(replicas=1))
        await world.settle()
        await kubelet(world)
        uid = world.pods()[0]["metadata"]["uid"]
        await world.api.delete(AGENT, SETS, "default", "db", propagation="Orphan")
        await world.settle()
        assert "ownerReferences" not in world.pods()[0]["metadata"]
        made = await world.create(SETS, stateful(replicas=1))
        await world.settle()
        assert world.pods()[0]["metadata"]["uid"] == uid
        assert world.pods()[0]["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        # The revision that was left behind is the new set's too.
        assert len(world.api.list(AGENT, REVISIONS, "default")) == 1
        await world.api.edit(
            AGENT, "pods", "default", "db-0", lambda it: it["metadata"].update(labels={"app": "else"})
        )
        await world.settle()
        assert "ownerReferences" not in world.pods()[0]["metadata"]

    tell(story)


def test_a_pod_of_somebody_else_with_the_name_is_told_and_waited_for() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("db-0"))
        await world.create(SETS, stateful(replicas=1))
        await world.settle()
        assert len(world.pods()) == 1
        assert 'pods "db-0" already exists' in world.events("FailedCreate")[0]["message"]
        await world.api.delete(AGENT, "pods", "default", "db-0", grace_seconds=0)
        await world.later(10)
        assert world.pods()[0]["metadata"]["labels"]["app"] == "db"

    tell(story)


@pytest.mark.parametrize(
    ("name", "ordinal"),
    [("db-0", 0), ("db-12", 12), ("db-00", None), ("db", None), ("web-1", None), ("db-x", None)],
)
def test_only_exact_names_have_an_ordinal(name: str, ordinal: int | None) -> None:
    assert ordinal_of("db", name) == ordinal


def test_a_claim_that_another_controller_has_is_left_alone() -> None:
    owner = {**stateful(claims=True), "metadata": {"name": "db", "namespace": "default", "uid": "s"}}
    owner["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete"}
    mine = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "uid": "p"}, "spec": {}}
    other = {"apiVersion": "x/v1", "kind": "X", "name": "x", "uid": "x", "controller": True}
    claim: Object = {"metadata": {"name": "data-db-0", "ownerReferences": [other]}}
    assert stateful_claims.owned(claim, owner, mine, in_range=True) is None
    claim["metadata"]["ownerReferences"] = []
    wanted = stateful_claims.owned(claim, owner, mine, in_range=True)
    assert wanted is not None
    assert [each["uid"] for each in wanted] == ["s"]
