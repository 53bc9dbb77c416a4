"""The verbs of outside callers: what is decoded, kept apart, refused, and in which words."""

import asyncio
from typing import Any

import pytest
from support.caller import Caller, run
from support.widgets import WIDGET, definition

from walras.core.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Unclassified,
    UnsupportedMediaType,
    WalrasError,
)
from walras.kube.objects import CRDS

Object = dict[str, Any]


def config(name: str = "x", **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


def pod(name: str = "x", **spec: Any) -> Object:
    container = {"name": "c", "image": "i", "command": ["true"]}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


WIDGETS = definition(
    {"size": {"type": "integer", "default": 3}, "color": {"type": "string"}},
    status={"type": "object", "properties": {"size": {"type": "integer"}}},
)


# ---- create


def test_a_created_object_is_defaulted_and_its_status_is_the_servers() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("pods", {**pod(), "status": {"phase": "Running"}})
        assert made["spec"]["restartPolicy"] == "Always"
        assert made["status"]["phase"] == "Pending"
        assert made["metadata"]["namespace"] == "default"
        assert made["metadata"]["managedFields"][0]["manager"] == "test"
        assert agent.get("pods", "x") == made

    run(story)


def test_unknown_fields_are_refused_told_or_dropped_as_asked() -> None:
    async def story(agent: Caller) -> None:
        odd = pod(colour="red")
        with pytest.raises(BadRequest, match=r'strict decoding error: unknown field "spec\.colour"'):
            await agent.create("pods", odd, field_validation="Strict")
        made = await agent.create("pods", odd)
        assert agent.warnings == ['unknown field "spec.colour"']
        assert "colour" not in made["spec"]
        await agent.create("pods", {**odd, "metadata": {"name": "y"}}, field_validation="Ignore")
        assert len(agent.warnings) == 1

    run(story)


@pytest.mark.parametrize(
    ("key", "obj", "error", "said"),
    [
        ("configmaps", {"metadata": {}}, Invalid, "name or generateName is required"),
        ("configmaps", {"metadata": {"name": "X_"}}, Invalid, "metadata.name"),
        ("configmaps", {"metadata": {"name": "x", "namespace": "other"}}, BadRequest, "does not match"),
        ("configmaps", {"metadata": {"name": "x", "resourceVersion": "1"}}, Unclassified, "not be set"),
        ("configmaps", {"kind": "Pod", "metadata": {"name": "x"}}, BadRequest, "cannot be handled as"),
        ("configmaps", {"apiVersion": "v2", "metadata": {"name": "x"}}, BadRequest, "is registered"),
        ("configmaps", {"metadata": "x"}, BadRequest, "cannot be handled as"),
        ("configmaps", {"metadata": {"name": "x"}, "data": 3}, BadRequest, "cannot unmarshal number"),
        ("pods", {"metadata": {"name": "x"}, "spec": {}}, Invalid, "spec.containers"),
        ("nodes", {"metadata": {"name": "x"}}, Forbidden, 'cannot create resource "nodes"'),
        (CRDS, {**WIDGETS, "metadata": {"name": "x.walras.dev"}, "spec": {"group": "walras.dev"}}, Forbidden,
         "belongs to Walras"),
    ],
)  # fmt: skip
def test_bad_objects_are_refused_in_kubernetes_words(
    key: str, obj: Object, error: type[WalrasError], said: str
) -> None:
    async def story(agent: Caller) -> None:
        with pytest.raises(error, match=said):
            await agent.create(key, obj)

    run(story)


def test_a_namespace_must_be_there_and_stay() -> None:
    async def story(agent: Caller) -> None:
        with pytest.raises(NotFound, match='namespaces "gone" not found'):
            await agent.create("configmaps", config(), namespace="gone")
        await agent.create("namespaces", {"metadata": {"name": "going"}})
        going = await agent.delete("namespaces", "going")
        assert going["status"]["phase"] == "Terminating"
        with pytest.raises(Forbidden, match="because it is being terminated") as refused:
            await agent.create("configmaps", config(), namespace="going")
        assert refused.value.causes[0].reason == "NamespaceTerminating"

    run(story)


def test_the_quota_counts_every_object_of_the_cluster() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", config("x"))
        with pytest.raises(Forbidden, match='configmaps "y" is forbidden: exceeded quota'):
            await agent.create("configmaps", config("y"))
        await agent.delete("configmaps", "x")
        await agent.create("configmaps", config("y"))

    run(story, quota=2)


def test_concurrent_creates_of_a_name_make_one_object() -> None:
    async def story(agent: Caller) -> None:
        results = await asyncio.gather(
            *(agent.create("configmaps", config("x", n=str(n))) for n in range(4)), return_exceptions=True
        )
        assert [type(result) for result in results].count(AlreadyExists) == 3

    run(story)


def test_a_dry_run_says_what_would_be_and_writes_nothing() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("pods", pod(), dry_run=True)
        assert made["spec"]["restartPolicy"] == "Always" and made["metadata"]["uid"]
        with pytest.raises(NotFound):
            agent.get("pods", "x")
        await agent.create("configmaps", config("x", k="v"))
        changed = await agent.patch("configmaps", "x", {"data": {"k": "w"}}, dry_run=True)
        assert changed["data"] == {"k": "w"}
        await agent.delete("configmaps", "x", dryRun=["All"])
        assert agent.get("configmaps", "x")["data"] == {"k": "v"}

    run(story)


# ---- update


def test_an_update_from_an_older_version_conflicts() -> None:
    async def story(agent: Caller) -> None:
        first = await agent.create("configmaps", config("x", k="1"))
        await agent.update("configmaps", {**first, "data": {"k": "2"}})
        with pytest.raises(Conflict, match="the object has been modified"):
            await agent.update("configmaps", {**first, "data": {"k": "3"}})
        unconditional = {"metadata": {"name": "x", "namespace": "default"}, "data": {"k": "4"}}
        assert (await agent.update("configmaps", unconditional))["data"] == {"k": "4"}
        with pytest.raises(Conflict, match="Precondition failed: UID"):
            await agent.update(
                "configmaps", {**unconditional, "metadata": {**unconditional["metadata"], "uid": "u"}}
            )

    run(story)


def test_spec_and_status_are_written_by_their_own_verbs() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("pods", pod())
        both = {
            **made,
            "metadata": {**made["metadata"], "labels": {"l": "1"}},
            "status": {"phase": "Running"},
        }
        updated = await agent.update("pods", both)
        assert updated["status"]["phase"] == "Pending" and updated["metadata"]["labels"] == {"l": "1"}
        assert "generation" in updated["metadata"]
        wrong_spec = {**updated, "spec": {**updated["spec"], "nodeName": "n"}, "status": {"phase": "Running"}}
        status = await agent.update("pods", wrong_spec, "status")
        assert status["status"]["phase"] == "Running" and "nodeName" not in status["spec"]
        assert status["metadata"]["generation"] == made["metadata"]["generation"]

    run(story)


def test_an_update_that_changes_nothing_keeps_the_version() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("pods", pod())
        again = await agent.update("pods", made)
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    run(story)


def test_the_servers_metadata_cannot_be_forged() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", config("x"))
        old = "2020-01-01T00:00:00Z"
        with pytest.raises(Invalid, match=r"metadata.deletionTimestamp: .*field is immutable"):
            await agent.patch("configmaps", "x", {"metadata": {"deletionTimestamp": old}})
        change = {"generation": 9, "selfLink": "/x", "labels": {"l": "1"}, "creationTimestamp": old}
        edited = await agent.patch("configmaps", "x", {"metadata": change})
        assert edited["metadata"]["labels"] == {"l": "1"}
        assert not {"generation", "selfLink"} & edited["metadata"].keys()
        assert edited["metadata"]["creationTimestamp"] != old

    run(story)


def test_scale_is_a_view_that_can_be_written() -> None:
    async def story(agent: Caller) -> None:
        labels = {"app": "w"}
        template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        await agent.create("deployments.apps", {"metadata": {"name": "w"}, "spec": spec})
        scale = agent.get("deployments.apps", "w", "scale")
        assert scale["spec"] == {"replicas": 1} and scale["status"]["selector"] == "app=w"
        patched = await agent.patch("deployments.apps", "w", {"spec": {"replicas": 4}}, subresource="scale")
        assert patched["spec"] == {"replicas": 4}
        assert agent.get("deployments.apps", "w")["spec"]["replicas"] == 4
        with pytest.raises(Conflict):
            await agent.update("deployments.apps", scale, "scale")

    run(story)


# ---- patch


def test_the_patch_kinds() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("pods", pod(tolerations=[]))
        operations = [{"op": "add", "path": "/metadata/labels", "value": {"a": "1"}}]
        assert (await agent.patch("pods", "x", operations, "json-patch+json"))["metadata"]["labels"] == {
            "a": "1"
        }
        merged = await agent.patch("pods", "x", {"metadata": {"labels": {"b": "2"}}})
        assert merged["metadata"]["labels"] == {"a": "1", "b": "2"}
        change = {"spec": {"containers": [{"name": "c", "image": "newer"}]}}
        strategic = await agent.patch("pods", "x", change, "strategic-merge-patch+json")
        assert strategic["spec"]["containers"][0]["image"] == "newer"
        assert strategic["spec"]["containers"][0]["command"] == ["true"]
        with pytest.raises(UnsupportedMediaType, match="415: Unsupported Media Type"):
            await agent.patch("pods", "x", {}, "json")

    run(story)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"[" * 5000 + b"]" * 5000, b'{"a":' * 500 + b"1" + b"}" * 500]
)
def test_broken_patches_are_refused(body: bytes) -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", config("x"))
        for kind in ("merge-patch+json", "strategic-merge-patch+json"):
            with pytest.raises(BadRequest):
                await agent.patch("configmaps", "x", body, kind)

    run(story)


def test_a_patch_with_an_old_version_conflicts() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("configmaps", config("x"))
        await agent.patch("configmaps", "x", {"data": {"k": "1"}})
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "2"}}
        with pytest.raises(Conflict):
            await agent.patch("configmaps", "x", stale)

    run(story)


def test_server_side_apply_creates_then_owns_then_conflicts() -> None:
    async def story(agent: Caller) -> None:
        wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"k": "1"}}
        apply = "apply-patch+yaml"
        made = await agent.patch("configmaps", "x", wanted, apply, field_manager="one")
        assert made["data"] == {"k": "1"} and made["metadata"]["namespace"] == "default"
        again = await agent.patch("configmaps", "x", wanted, apply, field_manager="one")
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        other = {**wanted, "data": {"k": "2"}}
        with pytest.raises(Conflict) as refused:
            await agent.patch("configmaps", "x", other, apply, field_manager="two")
        assert refused.value.causes[0].reason == "FieldManagerConflict"
        forced = await agent.patch("configmaps", "x", other, apply, field_manager="two", force=True)
        assert forced["data"] == {"k": "2"}
        yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: z}\ndata: {k: 2020-01-01, l: text}\n"
        assert (await agent.patch("configmaps", "z", yaml, apply))["data"] == {"k": "2020-01-01", "l": "text"}

    run(story)


# ---- delete


def test_a_delete_says_success_or_shows_what_lingers() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("configmaps", config("x"))
        gone = await agent.delete("configmaps", "x")
        assert gone["kind"] == "Status" and gone["status"] == "Success"
        assert gone["details"] == {"name": "x", "kind": "configmaps", "uid": made["metadata"]["uid"]}
        held = {"metadata": {"name": "y", "finalizers": ["example.com/hold"]}}
        await agent.create("configmaps", held)
        lingering = await agent.delete("configmaps", "y")
        assert lingering["metadata"]["deletionTimestamp"]
        assert agent.get("configmaps", "y") == lingering
        await agent.patch("configmaps", "y", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            agent.get("configmaps", "y")

    run(story)


def test_a_pod_on_a_node_gets_its_grace_and_one_without_goes_at_once() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("pods", pod("waiting"))
        assert (await agent.delete("pods", "waiting"))["kind"] == "Pod"
        with pytest.raises(NotFound):
            agent.get("pods", "waiting")
        await agent.create("pods", pod("running", nodeName="n", terminationGracePeriodSeconds=20))
        going = await agent.delete("pods", "running")
        assert going["metadata"]["deletionGracePeriodSeconds"] == 20
        assert going["metadata"]["deletionTimestamp"] == "2023-11-14T22:13:40Z"
        shorter = await agent.delete("pods", "running", gracePeriodSeconds=5)
        assert shorter["metadata"]["deletionTimestamp"] == "2023-11-14T22:13:25Z"
        longer = await agent.delete("pods", "running", gracePeriodSeconds=60)
        assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
        await agent.delete("pods", "running", gracePeriodSeconds=0)
        assert agent.verbs.api.find("a", "pods", "default", "running") is None

    run(story)


def test_preconditions_protect_from_deleting_another_object() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("configmaps", config("x"))
        for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
            with pytest.raises(Conflict, match="in the precondition"):
                await agent.delete("configmaps", "x", preconditions=wrong)
        await agent.delete("configmaps", "x", preconditions={"uid": made["metadata"]["uid"]})

    run(story)


@pytest.mark.parametrize(
    "options",
    [{"propagationPolicy": "Sideways"}, {"gracePeriodSeconds": "soon"},
     {"propagationPolicy": "Orphan", "orphanDependents": True}],
)  # fmt: skip
def test_nonsense_options_are_refused(options: Object) -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", config("x"))
        with pytest.raises((BadRequest, Invalid)):
            await agent.delete("configmaps", "x", **options)

    run(story)


def test_propagation_leaves_its_finalizer_for_the_garbage_collector() -> None:
    async def story(agent: Caller) -> None:
        for policy, finalizer in (("Orphan", "orphan"), ("Foreground", "foregroundDeletion")):
            await agent.create("configmaps", config(policy.lower()))
            going = await agent.delete("configmaps", policy.lower(), propagationPolicy=policy)
            assert going["metadata"]["finalizers"] == [finalizer]

    run(story)


def test_a_collection_is_deleted_by_selector() -> None:
    async def story(agent: Caller) -> None:
        for name, label in (("x", "1"), ("y", "2"), ("z", "1")):
            await agent.create("configmaps", {"metadata": {"name": name, "labels": {"l": label}}})
        before = str(agent.api.revision("a"))
        deleted = await agent.verbs.delete_collection(
            agent.context(), agent.resource("configmaps"), "default", {}, label_selector="l=1"
        )
        assert deleted["kind"] == "ConfigMapList"
        # Who watches from there sees them go.
        assert deleted["metadata"]["resourceVersion"] == before
        assert [item["metadata"]["name"] for item in deleted["items"]] == ["x", "z"]
        assert [o["metadata"]["name"] for o in agent.api.list("a", "configmaps")] == ["y"]

    run(story)


def test_an_agents_objects_count_by_their_size_too() -> None:
    async def story(agent: Caller) -> None:
        big = "x" * 400_000
        for name in ("a", "b", "c"):
            await agent.create("configmaps", config(name, key=big))
        with pytest.raises(Forbidden, match="exceeded quota: storage"):
            await agent.create("configmaps", config("d"))
        with pytest.raises(Forbidden, match="exceeded quota: storage"):
            await agent.patch("configmaps", "a", {"data": {"more": "y"}})
        # What makes room is welcome.
        await agent.patch("configmaps", "a", {"data": {"key": "small"}})
        await agent.create("configmaps", config("d"))
        await agent.delete("configmaps", "b")
        cluster = agent.api.state.clusters["a"]
        stored = [record.raw for each in cluster.collections.values() for record in each.records.values()]
        assert cluster.bytes == sum(map(len, stored))

    run(story, quota=100)


def test_the_first_namespaces_stay() -> None:
    async def story(agent: Caller) -> None:
        with pytest.raises(Forbidden, match="this namespace may not be deleted"):
            await agent.delete("namespaces", "default")
        with pytest.raises(MethodNotAllowed):
            await agent.verbs.delete_collection(agent.context(), agent.resource("namespaces"), "", {})

    run(story)


def test_the_pool_is_every_agents_market_and_stays() -> None:
    async def story(operator: Caller) -> None:
        await operator.create("pools.walras.dev", {"metadata": {"name": "default"}, "spec": {}})
        pools = operator.resource("pools.walras.dev")
        with pytest.raises(Forbidden, match="change its spec instead"):
            await operator.delete("pools.walras.dev", "default")
        with pytest.raises(Forbidden, match="change its spec instead"):
            await operator.verbs.delete_collection(operator.context(), pools, "", {})

    run(story, cluster="fleet", identity="")


def test_a_namespace_goes_when_its_last_finalizer_is_taken_off() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("namespaces", {"metadata": {"name": "n"}})
        going = await agent.delete("namespaces", "n")
        assert going["spec"] == {"finalizers": ["kubernetes"]}
        kept = await agent.update("namespaces", {**going, "spec": {}})
        assert kept["spec"] == {"finalizers": ["kubernetes"]}
        await agent.update("namespaces", {**going, "spec": {"finalizers": []}}, "finalize")
        with pytest.raises(NotFound):
            agent.get("namespaces", "n")

    run(story)


# ---- policy


def test_an_agent_opens_its_own_cluster_only() -> None:
    async def story(agent: Caller) -> None:
        stranger = Caller(agent.api, cluster="b", identity="a")
        for attempt in (
            lambda: stranger.get("configmaps", "x"),
            lambda: stranger.verbs.list(stranger.context(), stranger.resource("pods"), ""),
            lambda: stranger.verbs.watch(stranger.context(), stranger.resource("pods"), ""),
        ):
            with pytest.raises(Forbidden, match='may only open the cluster "a"'):
                attempt()
        for write in (
            stranger.create("configmaps", config()),
            stranger.patch("configmaps", "x", {}),
            stranger.delete("configmaps", "x"),
        ):
            with pytest.raises(Forbidden):
                await write

    run(story)


def test_nodes_may_be_cordoned_tainted_and_labelled_and_nothing_else() -> None:
    async def story(agent: Caller) -> None:
        node = {"metadata": {"name": "n", "labels": {"walras.dev/lease": "l"}},
                "status": {"capacity": {"cpu": "1"}}}  # fmt: skip
        await agent.api.create("a", "nodes", node)
        cordoned = await agent.patch("nodes", "n", {"spec": {"unschedulable": True}})
        assert cordoned["spec"]["unschedulable"] is True
        await agent.patch("nodes", "n", {"metadata": {"labels": {"mine": "1"}}})
        for change in (
            {"spec": {"providerID": "x"}},
            {"metadata": {"labels": {"walras.dev/lease": None}}},
            {"metadata": {"annotations": {"walras.dev/devices": "[]"}}},
            {"metadata": {"finalizers": ["example.com/keep"]}},
        ):
            with pytest.raises(Forbidden, match="may not be changed"):
                await agent.patch("nodes", "n", change)
        with pytest.raises(Forbidden, match="written by Walras alone"):
            await agent.patch("nodes", "n", {"status": {"capacity": {"cpu": "9"}}}, subresource="status")
        with pytest.raises(Forbidden, match="come and go"):
            await agent.delete("nodes", "n")

    run(story)


def test_the_operator_writes_nodes_in_the_fleet() -> None:
    async def story(operator: Caller) -> None:
        await operator.create("nodes", {"metadata": {"name": "n"}})
        await operator.patch("nodes", "n", {"status": {"capacity": {"cpu": "9"}}}, subresource="status")
        assert operator.get("nodes", "n")["status"]["capacity"] == {"cpu": "9"}

    run(story, cluster="fleet", identity="")


# ---- definitions


def test_a_definition_is_served_at_once_and_takes_its_objects_with_it() -> None:
    async def story(agent: Caller) -> None:
        assert WIDGET not in agent.api.registry("a")
        definition = await agent.create(CRDS, WIDGETS)
        conditions = {c["type"]: c["status"] for c in definition["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}
        assert WIDGET in agent.api.registry("a") and WIDGET not in agent.api.registry("b")
        made = await agent.create(WIDGET, {"metadata": {"name": "w"}, "spec": {"color": "red", "odd": 1}})
        assert made["spec"] == {"color": "red", "size": 3}
        status = await agent.update(WIDGET, {**made, "status": {"size": 1}}, "status")
        assert status["status"] == {"size": 1} and status["metadata"]["generation"] == 1
        assert agent.get(WIDGET, "w", "scale")["spec"] == {"replicas": 3}
        await agent.delete(CRDS, WIDGET)
        assert agent.api.list("a", WIDGET) == [] and WIDGET not in agent.api.registry("a")

    run(story)


def test_a_definition_waits_for_an_object_that_a_finalizer_keeps() -> None:
    async def story(agent: Caller) -> None:
        await agent.create(CRDS, WIDGETS)
        await agent.create(
            WIDGET, {"metadata": {"name": "w", "finalizers": ["example.com/hold"]}, "spec": {}}
        )
        going = await agent.delete(CRDS, WIDGET)
        assert going["metadata"]["deletionTimestamp"]
        with pytest.raises(MethodNotAllowed, match="is terminating"):
            await agent.create(WIDGET, {"metadata": {"name": "v"}, "spec": {}})
        await agent.patch(WIDGET, "w", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            agent.get(CRDS, WIDGET)

    run(story)


def test_custom_resources_take_no_strategic_patch_and_no_unconditional_update() -> None:
    async def story(agent: Caller) -> None:
        await agent.create(CRDS, WIDGETS)
        await agent.create(WIDGET, {"metadata": {"name": "w"}, "spec": {}})
        with pytest.raises(UnsupportedMediaType):
            await agent.patch(WIDGET, "w", {}, "strategic-merge-patch+json")
        with pytest.raises(Invalid, match="must be specified for an update"):
            await agent.update(WIDGET, {"metadata": {"name": "w", "namespace": "default"}, "spec": {}})

    run(story)
