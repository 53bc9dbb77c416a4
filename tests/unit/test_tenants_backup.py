"""A cluster written down and put back, while its controllers and watches go on."""

import copy
from typing import Any

import msgspec
import pytest
from support.world import AGENT, World, job, pod, tell

from walras.core.errors import BadRequest, Invalid, NotFound
from walras.kube.hub import View
from walras.tenants import backup

Object = dict[str, Any]
TOYS = "toys.example.com"


def taken(world: World, cluster: str = AGENT) -> Object:
    """The backup as it comes from a file."""
    document: Object = msgspec.json.decode(
        msgspec.json.encode(backup.taken(world.api, cluster, world.clock.now_ms()))
    )
    return document


def contents(world: World, cluster: str = AGENT) -> dict[tuple[str, str, str], Object]:
    """All that a backup holds, without resource versions."""
    found = {}
    for resource, collection in world.api.state.cluster(cluster).collections.items():
        for record in collection.stored() if resource not in backup.LEFT_OUT else ():
            obj = record.fresh()
            del obj["metadata"]["resourceVersion"]
            found[resource, record.key.namespace, record.key.name] = obj
    return found


def crd() -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "toys", "singular": "toy", "kind": "Toy", "listKind": "ToyList"}
    spec = {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]}
    return {"metadata": {"name": TOYS}, "spec": spec}


def test_what_was_changed_deleted_and_made_since_is_undone_uids_and_all() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "customresourcedefinitions.apiextensions.k8s.io", crd())
        await world.create(TOYS, {"metadata": {"name": "ball"}, "colour": "red"})
        await world.create("configmaps", {"metadata": {"name": "kept"}, "data": {"k": "v"}})
        await world.create("secrets", {"metadata": {"name": "lost"}, "data": {"k": "dg=="}})
        await world.settle()
        document, before = taken(world), contents(world)
        await world.api.edit(
            AGENT, "configmaps", "default", "kept", lambda it: it.update(data={"k": "other"})
        )
        await world.api.delete(AGENT, "secrets", "default", "lost")
        await world.create("namespaces", {"metadata": {"name": "later"}})
        await world.settle()
        await world.create("configmaps", {"metadata": {"name": "later", "namespace": "later"}})
        await world.api.delete(AGENT, "customresourcedefinitions.apiextensions.k8s.io", "", TOYS)
        await world.settle()
        assert contents(world) != before
        watch = world.api.watch(View(AGENT, "configmaps", "default"))
        done = await backup.restored(world.api, AGENT, document)
        await world.settle()
        assert contents(world) == before
        # "later" with its service account, bundle and object; the map, the secret, the type and the toy.
        assert done == {"restored": AGENT, "written": 4, "deleted": 4}
        event = watch.ready()
        assert event is not None and event.type == "MODIFIED" and event.object["data"] == {"k": "v"}
        assert world.api.registry(AGENT)[TOYS].kind == "Toy"
        again = await backup.restored(world.api, AGENT, document)
        assert (again["written"], again["deleted"]) == (0, 0)

    tell(story)


def test_what_every_cluster_has_is_put_back_to_what_it_was_at_first_uids_and_all() -> None:
    async def story(world: World) -> None:
        def shared() -> list[Object]:
            found = [world.api.get(AGENT, "serviceaccounts", "default", "default"),
                     world.api.get(AGENT, "namespaces", "", "default")]  # fmt: skip
            return [
                {**each, "metadata": {**each["metadata"], "resourceVersion": ""}}
                for each in copy.deepcopy(found)
            ]

        document, before = taken(world), shared()
        await world.api.delete(AGENT, "serviceaccounts", "default", "default")
        await world.api.edit(
            AGENT, "namespaces", "", "default", lambda it: it["metadata"]["labels"].update(a="b")
        )
        assert shared()[0] != before[0] and shared()[1] != before[1]
        done = await backup.restored(world.api, AGENT, document)
        assert shared() == before and done["deleted"] == 2
        again = await backup.restored(world.api, AGENT, document)
        assert (again["written"], again["deleted"]) == (0, 0)

    tell(story)


def test_a_pod_that_runs_goes_on_and_one_that_is_gone_is_placed_anew() -> None:
    async def story(world: World) -> None:
        running, gone = await world.create("pods", pod("running")), await world.create("pods", pod("gone"))
        await world.settle()
        for each in (running, gone):
            await world.run_pod(each)
        document = taken(world)
        await world.api.delete(AGENT, "pods", "default", "gone", grace_seconds=0)
        await world.settle()
        before = world.api.get(AGENT, "pods", "default", "running")
        await backup.restored(world.api, AGENT, document)
        back = world.api.get(AGENT, "pods", "default", "gone")
        assert back["metadata"]["uid"] == gone["metadata"]["uid"]
        assert back["status"] == {"phase": "Pending"} and "nodeName" not in back["spec"]
        assert world.api.get(AGENT, "pods", "default", "running") == before
        await world.settle()
        assert world.api.get(AGENT, "pods", "default", "gone")["spec"]["nodeName"] == "base"

    tell(story)


def test_the_pods_of_a_controller_are_its_own_to_make() -> None:
    async def story(world: World) -> None:
        await world.create("jobs.batch", job())
        await world.settle()
        (first,) = world.pods()
        document = taken(world)
        await world.api.delete(AGENT, "jobs.batch", "default", "train")
        await world.settle()
        await world.remove(first)
        assert not world.pods()
        await backup.restored(world.api, AGENT, document)
        await world.settle()
        (second,) = world.pods()
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert second["metadata"]["ownerReferences"] == first["metadata"]["ownerReferences"]

    tell(story)


def test_a_cluster_can_be_put_into_another() -> None:
    async def story(world: World) -> None:
        await world.create("configmaps", {"metadata": {"name": "mine"}, "data": {"k": "v"}})
        nodes = world.api.list("twin", "nodes")
        await backup.restored(world.api, "twin", taken(world))
        await world.settle()
        assert contents(world, "twin") == contents(world)
        assert world.api.list("twin", "nodes") == nodes, "nodes stand for the real world"

    tell(story, agents=(AGENT, "twin"))


def test_a_document_that_no_cluster_can_hold_changes_nothing() -> None:
    async def story(world: World) -> None:
        good = taken(world)
        revision = world.api.revision(AGENT)

        def broken(change: Object, **metadata: Any) -> Object:
            document = copy.deepcopy(good)
            item = document["items"][0]
            item.update(change)
            item["object"]["metadata"].update(metadata)
            return document

        for document in (
            broken({"resource": "nodes"}),
            broken({"resource": "bids.walras.dev"}),
            broken({"resource": "dreams.example.com"}),
            broken({}, name=7),
            broken({}, uid=None),
            broken({}, namespace=""),
        ):
            with pytest.raises(Invalid):
                await backup.restored(world.api, AGENT, document)
        for nonsense in ({}, {**good, "kind": "List"}, {**good, "items": [1]}, {**good, "more": 1}):
            with pytest.raises(BadRequest):
                await backup.restored(world.api, AGENT, nonsense)
        with pytest.raises(NotFound):
            await backup.restored(world.api, "nobody", good)
        with pytest.raises(Invalid):
            await backup.restored(world.api, "fleet", good)
        assert world.api.revision(AGENT) == revision

    tell(story)
