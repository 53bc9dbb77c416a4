"""Objects go with their owners: in the background, before them, or not at all."""

from typing import Any

from support.world import AGENT, World, job, pod, tell

Object = dict[str, Any]


def owned(name: str, *owners: Object, block: bool = True) -> Object:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references}}


def configs(world: World) -> set[str]:
    found = {each["metadata"]["name"] for each in world.api.list(AGENT, "configmaps", "default")}
    return found - {"kube-root-ca.crt"}


async def chain(world: World) -> tuple[Object, Object, Object]:
    """a owns b owns c."""
    a = await world.create("configmaps", {"metadata": {"name": "a"}})
    b = await world.create("configmaps", owned("b", a))
    c = await world.create("configmaps", owned("c", b))
    await world.settle()
    return a, b, c


def test_dependents_go_after_their_owner() -> None:
    async def story(world: World) -> None:
        await chain(world)
        await world.api.delete(AGENT, "configmaps", "default", "a")
        assert configs(world) == {"b", "c"}
        await world.settle()
        assert configs(world) == set()

    tell(story)


def test_in_the_foreground_the_owner_stays_until_its_dependents_are_gone() -> None:
    async def story(world: World) -> None:
        await chain(world)
        await world.api.edit(
            AGENT, "configmaps", "default", "c", lambda it: it["metadata"].update(finalizers=["x/hold"])
        )
        await world.api.delete(AGENT, "configmaps", "default", "a", propagation="Foreground")
        await world.settle()
        assert configs(world) == {"a", "b", "c"}
        held = world.api.get(AGENT, "configmaps", "default", "a")
        assert held["metadata"]["finalizers"] == ["foregroundDeletion"]
        await world.api.edit(
            AGENT, "configmaps", "default", "c", lambda it: it["metadata"].update(finalizers=[])
        )
        await world.settle()
        assert configs(world) == set()

    tell(story)


def test_a_dependent_that_does_not_block_does_not_hold_its_owner() -> None:
    async def story(world: World) -> None:
        a = await world.create("configmaps", {"metadata": {"name": "a"}})
        slow = owned("b", a, block=False)
        slow["metadata"]["finalizers"] = ["x/hold"]
        await world.create("configmaps", slow)
        await world.api.delete(AGENT, "configmaps", "default", "a", propagation="Foreground")
        await world.settle()
        assert configs(world) == {"b"}
        assert "deletionTimestamp" in world.api.get(AGENT, "configmaps", "default", "b")["metadata"]

    tell(story)


def test_orphans_stay_without_their_owner() -> None:
    async def story(world: World) -> None:
        await chain(world)
        await world.api.delete(AGENT, "configmaps", "default", "a", propagation="Orphan")
        await world.settle()
        assert configs(world) == {"b", "c"}
        assert "ownerReferences" not in world.api.get(AGENT, "configmaps", "default", "b")["metadata"]
        assert "ownerReferences" in world.api.get(AGENT, "configmaps", "default", "c")["metadata"]

    tell(story)


def test_an_object_with_another_owner_left_only_loses_the_reference() -> None:
    async def story(world: World) -> None:
        a = await world.create("configmaps", {"metadata": {"name": "a"}})
        b = await world.create("configmaps", {"metadata": {"name": "b"}})
        await world.create("configmaps", owned("both", a, b))
        await world.api.delete(AGENT, "configmaps", "default", "a")
        await world.settle()
        both = world.api.get(AGENT, "configmaps", "default", "both")
        assert [owner["name"] for owner in both["metadata"]["ownerReferences"]] == ["b"]
        await world.api.delete(AGENT, "configmaps", "default", "b")
        await world.settle()
        assert configs(world) == set()

    tell(story)


def test_an_owner_of_the_same_name_is_not_the_same_owner() -> None:
    async def story(world: World) -> None:
        a = await world.create("configmaps", {"metadata": {"name": "a"}})
        await world.api.delete(AGENT, "configmaps", "default", "a")
        await world.create("configmaps", {"metadata": {"name": "a"}})
        await world.create("configmaps", owned("b", a))
        await world.settle()
        assert configs(world) == {"a"}

    tell(story)


def test_an_owner_of_a_kind_that_is_not_served_is_left_alone() -> None:
    async def story(world: World) -> None:
        stranger = {"apiVersion": "x.io/v1", "kind": "Strange", "metadata": {"name": "s", "uid": "1"}}
        await world.create("configmaps", owned("b", stranger))
        await world.settle()
        assert configs(world) == {"b"}

    tell(story)


def test_a_job_deleted_in_the_foreground_waits_for_its_running_pod() -> None:
    async def story(world: World) -> None:
        await world.create("jobs.batch", job())
        await world.settle()
        (running,) = world.pods()
        await world.run_pod(running)
        await world.api.delete(AGENT, "jobs.batch", "default", "train", propagation="Foreground")
        await world.settle()
        assert len(world.api.list(AGENT, "jobs.batch")) == 1
        assert "deletionTimestamp" in world.pods()[0]["metadata"]
        await world.remove(running)
        assert world.api.list(AGENT, "jobs.batch") == [] and world.pods() == []

    tell(story)


def test_pods_of_a_node_that_is_gone_fail_and_go() -> None:
    async def story(world: World) -> None:
        await world.create("pods", pod("web"))
        await world.settle()
        await world.api.edit(
            AGENT, "pods", "default", "web", lambda it: it["metadata"].update(finalizers=["x/look"])
        )
        await world.api.edit(AGENT, "pods", "default", "web", lambda it: it["spec"].update(nodeName="lost"))
        await world.settle()
        lost = world.api.get(AGENT, "pods", "default", "web")
        assert lost["status"]["phase"] == "Failed"
        assert {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}.items() <= {
            key: value
            for each in lost["status"]["conditions"]
            if each["type"] == "DisruptionTarget"
            for key, value in each.items()
        }.items()
        await world.api.edit(AGENT, "pods", "default", "web", lambda it: it["metadata"].update(finalizers=[]))
        await world.settle()
        assert world.pods() == []

    tell(story)


def test_a_job_survives_the_loss_of_its_node() -> None:
    async def story(world: World) -> None:
        await world.create("jobs.batch", job(backoffLimit=0))
        await world.settle()
        (first,) = world.pods()
        await world.api.edit(
            AGENT, "pods", "default", first["metadata"]["name"], lambda it: it["spec"].update(nodeName="lost")
        )
        await world.settle()
        (second,) = world.pods()
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert "failed" not in world.api.get(AGENT, "jobs.batch", "default", "train")["status"]

    tell(story)


def test_objects_that_own_each_other_in_a_circle_do_not_wait_for_each_other_for_ever() -> None:
    async def story(world: World) -> None:
        _, _, last = await chain(world)
        closing = owned("a", last)["metadata"]["ownerReferences"]
        await world.api.edit(
            AGENT, "configmaps", "default", "a", lambda it: it["metadata"].update(ownerReferences=closing)
        )
        await world.api.delete(AGENT, "configmaps", "default", "a", propagation="Foreground")
        await world.settle()
        assert configs(world) == set()

    tell(story)
