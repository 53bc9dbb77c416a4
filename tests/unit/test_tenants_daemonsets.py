"""Daemon sets: one pod on every node that takes it, replaced a few at a time."""

from typing import Any

from support.world import AGENT, World, lease_node, pod, tell

SETS, REVISIONS = "daemonsets.apps", "controllerrevisions.apps"
Object = dict[str, Any]
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}


def daemon(image: str = "v1", *, limits: Object | None = None, **spec: Any) -> Object:
    template_spec = {"spec": {**pod("", limits=limits)["spec"], **spec.pop("template", {})}}
    template = {"metadata": {"labels": {"app": "log"}}, **template_spec}
    template["spec"]["containers"][0]["image"] = image
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "log"},
        "spec": {
            "selector": {"matchLabels": {"app": "log"}},
            "template": template,
            "updateStrategy": ROLLING,
            **spec,
        },
    }


def node(name: str, **spec: Any) -> Object:
    capacity = {"cpu": "1", "memory": "1Gi", "pods": "16"}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"capacity": capacity, "allocatable": dict(capacity)},
    }


async def nodes(world: World, *names: str) -> None:
    for name in names:
        await world.create("nodes", node(name))
    await world.settle()


def on(world: World) -> dict[str, list[Object]]:
    """Pods that stay, by the node that they are on."""
    found: dict[str, list[Object]] = {}
    for each in world.pods():
        if "deletionTimestamp" not in each["metadata"]:
            found.setdefault(each["spec"].get("nodeName", ""), []).append(each)
    return found


def reported(world: World) -> Object:
    found: Object = world.api.get(AGENT, SETS, "default", "log")["status"]
    return found


async def set_image(world: World, image: str) -> None:
    def edit(owner: Object) -> None:
        owner["spec"]["template"]["spec"]["containers"][0]["image"] = image

    await world.api.edit(AGENT, SETS, "default", "log", edit)
    await world.settle()


async def kubelet_once(world: World) -> bool:
    for each in world.pods():
        if "deletionTimestamp" in each["metadata"]:
            await world.remove(each)
            return True
        if each["status"]["phase"] == "Pending" and each["spec"].get("nodeName"):
            await world.run_pod(each)
            return True
    return False


async def kubelet(world: World) -> None:
    while await kubelet_once(world):
        pass


def images(world: World) -> set[str]:
    return {each["spec"]["containers"][0]["image"] for each in world.pods()}


def test_every_node_gets_one_and_a_new_one_too() -> None:
    async def story(world: World) -> None:
        await nodes(world, "n1", "n2")
        await world.create(SETS, daemon())
        await world.settle()
        await kubelet(world)
        assert {name: len(pods) for name, pods in on(world).items()} == {"base": 1, "n1": 1, "n2": 1}
        status = reported(world)
        assert (status["desiredNumberScheduled"], status["numberReady"], status["numberAvailable"]) == (
            3,
            3,
            3,
        )
        await nodes(world, "n3")
        await kubelet(world)
        assert len(on(world)["n3"]) == 1
        await world.api.delete(AGENT, "nodes", "", "n3")
        await world.settle()
        assert "n3" not in on(world)
        assert reported(world)["desiredNumberScheduled"] == 3

    tell(story)


def test_nodes_are_chosen_by_labels_and_taints() -> None:
    async def story(world: World) -> None:
        await nodes(world, "n1", "n2")
        await world.create(SETS, daemon(template={"nodeSelector": {"colour": "green"}}))
        await world.settle()
        assert on(world) == {}

        def green(it: Object) -> None:
            it["metadata"]["labels"]["colour"] = "green"

        await world.api.edit(AGENT, "nodes", "", "n1", green)
        await world.settle()
        await kubelet(world)
        assert list(on(world)) == ["n1"]
        taint = {"key": "broken", "effect": "NoSchedule"}
        await world.api.edit(AGENT, "nodes", "", "n1", lambda it: it["spec"].update(taints=[taint]))
        await world.settle()
        # What runs may stay, but counts as misplaced.
        assert list(on(world)) == ["n1"]
        assert (reported(world)["numberMisscheduled"], reported(world)["desiredNumberScheduled"]) == (1, 0)
        taint["effect"] = "NoExecute"
        await world.api.edit(AGENT, "nodes", "", "n1", lambda it: it["spec"].update(taints=[dict(taint)]))
        await world.settle()
        await kubelet(world)
        assert on(world) == {}

    tell(story)


def test_a_cordoned_node_keeps_its_daemon() -> None:
    async def story(world: World) -> None:
        await nodes(world, "n1")
        await world.api.edit(AGENT, "nodes", "", "n1", lambda it: it["spec"].update(unschedulable=True))
        await world.create(SETS, daemon())
        await world.settle()
        assert "n1" in on(world)

    tell(story)


def test_a_lease_is_left_to_the_pod_that_won_it() -> None:
    async def story(world: World) -> None:
        await world.create("nodes", lease_node("lease-1"))
        await world.create(SETS, daemon())
        await world.settle()
        assert list(on(world)) == ["base"]

    tell(story)


def test_an_update_takes_one_at_a_time_and_goes_back_to_the_same_revision() -> None:
    async def story(world: World) -> None:
        await nodes(world, "n1", "n2")
        await world.create(SETS, daemon())
        await world.settle()
        await kubelet(world)
        await set_image(world, "v2")
        while True:
            running = [each for each in world.pods() if each["status"]["phase"] == "Running"]
            assert sum("deletionTimestamp" not in each["metadata"] for each in running) >= 2
            if not await kubelet_once(world):
                break
        assert images(world) == {"v2"}
        assert reported(world)["updatedNumberScheduled"] == 3
        hashes = {each["metadata"]["labels"]["controller-revision-hash"] for each in world.pods()}
        assert len(hashes) == 1
        await set_image(world, "v1")
        await kubelet(world)
        assert sorted(each["revision"] for each in world.api.list(AGENT, REVISIONS, "default")) == [2, 3]

    tell(story)


def test_a_rollback_midway_touches_no_pod_that_was_not_updated() -> None:
    async def story(world: World) -> None:
        await nodes(world, "n1", "n2")
        await world.create(SETS, daemon())
        await world.settle()
        await kubelet(world)
        before = {each["metadata"]["uid"] for each in world.pods()}
        await set_image(world, "broken")
        await set_image(world, "v1")
        await kubelet(world)
        assert images(world) == {"v1"}
        assert len(before & {each["metadata"]["uid"] for each in world.pods()}) == 2

    tell(story)


def test_surge_makes_the_new_pod_before_the_old_one_goes() -> None:
    async def story(world: World) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        await nodes(world, "n1")
        await world.create(SETS, daemon(updateStrategy=strategy))
        await world.settle()
        await kubelet(world)
        await set_image(world, "v2")
        assert sorted(len(pods) for pods in on(world).values()) == [1, 2]
        await kubelet(world)
        assert images(world) == {"v2"}
        assert sorted(len(pods) for pods in on(world).values()) == [1, 1]

    tell(story)


def test_on_delete_replaces_only_what_somebody_deletes() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, daemon(updateStrategy={"type": "OnDelete"}))
        await world.settle()
        await kubelet(world)
        await set_image(world, "v2")
        assert images(world) == {"v1"}
        await world.remove(world.pods()[0])
        assert images(world) == {"v2"}

    tell(story)


def test_pods_that_fail_are_replaced_later_each_time() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, daemon())
        await world.settle()
        await world.end_pod(world.pods()[0], code=1)
        (second,) = world.pods()
        assert second["status"]["phase"] == "Pending"
        await world.end_pod(second, code=1)
        assert world.pods()[0]["metadata"]["uid"] == second["metadata"]["uid"]
        await world.later(1)
        assert world.pods()[0]["metadata"]["uid"] != second["metadata"]["uid"]
        assert world.events("FailedDaemonPod")

    tell(story)


def test_deleting_the_set_takes_pods_and_revisions_along() -> None:
    async def story(world: World) -> None:
        await world.create(SETS, daemon())
        await world.settle()
        await kubelet(world)
        await world.api.delete(AGENT, SETS, "default", "log")
        await world.settle()
        await kubelet(world)
        assert world.pods() == []
        assert world.api.list(AGENT, REVISIONS, "default") == []

    tell(story)
