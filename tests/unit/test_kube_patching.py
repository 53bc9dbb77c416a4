"""Patches of objects: their types, what they give twice, what they take from managers, and scales.

Outcomes are those of the real server, which was asked.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.caller import Caller, Object, run
from support.widgets import WIDGET, definition

from walras.core.errors import BadRequest, Conflict, InternalError, Invalid, Unclassified, WalrasError
from walras.kube.objects import CRDS

WIDGETS = definition(
    {
        "size": {"type": "integer", "minimum": 0},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
)
STRATEGIC = "strategic-merge-patch+json"
CONFIG: Object = {"metadata": {"name": "x"}, "data": {"a": "1"}}


async def with_widget(agent: Caller, **spec: Any) -> None:
    await agent.create(CRDS, WIDGETS)
    await agent.create(WIDGET, {"metadata": {"name": "x"}, **({"spec": spec} if spec else {})})


@pytest.mark.parametrize("subresource", ["", "status"])
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"kind": None}, Invalid, "\"\" is invalid: patch: Invalid value: .*: Object 'Kind' is missing in"),
        ({"kind": ""}, Invalid, "Object 'Kind' is missing in"),
        ({"apiVersion": None}, InternalError, "Object 'apiVersion' is missing"),
        ({"kind": 3}, Invalid, "cannot unmarshal number into Go struct field .kind of type string"),
    ],
)
def test_a_custom_resource_keeps_its_type(
    change: Object, kind: type[WalrasError], said: str, subresource: str
) -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent)
        with pytest.raises(kind, match=said):
            await agent.patch(WIDGET, "x", change, subresource=subresource)

    run(story)


def test_another_type_is_a_fault_of_a_custom_resource_but_not_of_its_status() -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent)
        with pytest.raises(Invalid) as refused:
            await agent.patch(WIDGET, "x", {"kind": "Gadget", "apiVersion": "v9"})
        assert refused.value.message == (
            'Gadget "x" is invalid: [kind: Invalid value: "Gadget": must be Widget, '
            'apiVersion: Invalid value: "v9": must be example.com/v1]'
        )
        told = await agent.patch(WIDGET, "x", {"kind": "Gadget"}, subresource="status")
        assert told["kind"] == "Widget"

    run(story)


def test_a_builtin_type_without_an_api_version_is_nothing_that_has_a_name() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", CONFIG)
        with pytest.raises(BadRequest, match=r"the name of the object \(x based on URL\) was undeterminable"):
            await agent.patch("configmaps", "x", {"apiVersion": None})
        with pytest.raises(Invalid, match=r'unknown field "data", unknown field "metadata"'):
            await agent.patch("configmaps", "x", {"apiVersion": None}, field_validation="Strict")
        # A strategic patch is put into a struct of the type, whatever it says of its own.
        change = {"apiVersion": "v9", "kind": "Widget", "data": {"a": "2"}}
        assert (await agent.patch("configmaps", "x", change, STRATEGIC))["data"] == {"a": "2"}
        with pytest.raises(Invalid, match=re.escape('"map[kind:3]": cannot convert int64 to string')):
            await agent.patch("configmaps", "x", {"kind": 3}, STRATEGIC)

    run(story)


def test_what_a_patch_says_twice_is_told_or_refused_as_asked() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", CONFIG)
        twice = b'{"data":{"a":"2"},"data":{"b":"3"}}'
        for kind in ("merge-patch+json", STRATEGIC):
            with pytest.raises(Invalid, match='strict decoding error: duplicate field "data"'):
                await agent.patch("configmaps", "x", twice, kind, field_validation="Strict")
        assert (await agent.patch("configmaps", "x", twice))["data"] == {"a": "1", "b": "3"}
        operation = b'[{"op":"add","op":"add","path":"/data/c","value":"4","bogus":1}]'
        await agent.patch("configmaps", "x", operation, "json-patch+json")
        await agent.patch("configmaps", "x", twice, field_validation="Ignore")
        assert agent.warnings == [
            'duplicate field "data"',
            'json patch duplicate field "[0].op"',
            'json patch unknown field "[0].bogus"',
        ]

    run(story)


@pytest.mark.parametrize(
    ("body", "kind", "validation", "said"),
    [
        (b"{}", "json-patch+json", "Warn", "error decoding patch: json: cannot unmarshal object into Go "
                                           "value of type []handlers.jsonPatchOp"),
        (b"[3]", "json-patch+json", "Ignore", "json: cannot unmarshal number into Go value of type "
                                              "jsonpatch.Operation"),
        (b'[{"op":3}]', "json-patch+json", "Warn", "error decoding patch: json: cannot unmarshal number into "
                                                   "Go struct field jsonPatchOp.op of type string"),
        (b"null", "merge-patch+json", "Warn", "Invalid JSON Patch"),
        (b"3", "merge-patch+json", "Ignore", "Invalid JSON Patch"),
        (b"[]", STRATEGIC, "Warn", "json: cannot unmarshal array into Go value of type map[string]interface "
                                   "{}"),
    ],
)  # fmt: skip
def test_what_is_no_patch_is_refused_in_the_words_of_who_reads_it(
    body: bytes, kind: str, validation: str, said: str
) -> None:
    async def story(agent: Caller) -> None:
        await agent.create("configmaps", CONFIG)
        with pytest.raises(BadRequest, match=f"^{re.escape(said)}$"):
            await agent.patch("configmaps", "x", body, kind, field_validation=validation)

    run(story)


def test_a_map_that_becomes_something_else_leaves_nobody_owning_what_was_in_it() -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent, free={"any": {"thing": []}})
        made = await agent.patch(WIDGET, "x", {"spec": {"free": {"any": 2}}}, field_manager="two")
        assert [(each["manager"], each["fieldsV1"]) for each in made["metadata"]["managedFields"]] == [
            ("test", {"f:spec": {".": {}, "f:free": {}}}),
            ("two", {"f:spec": {"f:free": {"f:any": {}}}}),
        ]

    run(story)


def test_entries_of_another_group_are_nobodys_and_who_writes_next_owns_only_that() -> None:
    async def story(agent: Caller) -> None:
        await agent.create(
            "leases.coordination.k8s.io", {"metadata": {"name": "x"}, "spec": {"holderIdentity": "a"}}
        )
        entry = {"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                 "fieldsV1": {"f:data": {}}}  # fmt: skip
        change = {"metadata": {"managedFields": [entry]}, "spec": {"leaseDurationSeconds": 3}}
        made = await agent.patch("leases.coordination.k8s.io", "x", change)
        (left,) = made["metadata"]["managedFields"]
        assert left["fieldsV1"] == {"f:spec": {"f:leaseDurationSeconds": {}}}

    run(story)


def test_nulls_of_an_applied_map_are_empty_texts_that_somebody_owns() -> None:
    async def story(agent: Caller) -> None:
        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": None}}
        made = await agent.patch("configmaps", "x", applied, "apply-patch+yaml")
        assert made["data"] == {"a": ""}
        assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:a": {}}}

    run(story)


def test_an_applied_null_where_the_metadata_belongs_is_no_name() -> None:
    async def story(agent: Caller) -> None:
        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": None, "data": {"a": "1"}}
        with pytest.raises(BadRequest, match=r"the name of the object \(x based on URL\) was undeterminable"):
            await agent.patch("configmaps", "x", applied, "apply-patch+yaml")
        last = {
            "metadata": {
                "name": "x",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            }
        }
        await agent.create("configmaps", last)
        made = await agent.patch("configmaps", "x", applied, "apply-patch+yaml", field_manager="kubectl")
        assert made["data"] == {"a": "1"} and made["metadata"]["name"] == "x"

    run(story)


def test_the_creation_of_an_applied_custom_resource_is_nobodys_to_say() -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent)
        applied = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"creationTimestamp": "junk"},
        }
        before = agent.get(WIDGET, "x")
        assert await agent.patch(WIDGET, "x", applied, "apply-patch+yaml") == before
        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"creationTimestamp": "junk"}}
        with pytest.raises(Unclassified, match=r"failed to convert new object .*: parsing time"):
            await agent.patch("configmaps", "y", applied, "apply-patch+yaml")

    run(story)


def test_what_an_applier_no_longer_says_leaves_the_rest_of_the_metadata() -> None:
    async def story(agent: Caller) -> None:
        await agent.create(CRDS, WIDGETS)
        applied: Object = {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"name": "x", "labels": {}},
        }
        await agent.patch(WIDGET, "x", applied, "apply-patch+yaml")
        made = await agent.patch(WIDGET, "x", {**applied, "metadata": {}}, "apply-patch+yaml")
        assert made["metadata"]["name"] == "x"

    run(story)


def test_a_scale_is_of_one_object_at_one_version() -> None:
    async def story(agent: Caller) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        await agent.create("deployments.apps", {"metadata": {"name": "x"}, "spec": spec})

        async def scale(metadata: Object) -> None:
            await agent.patch("deployments.apps", "x", {"metadata": metadata}, subresource="scale")

        with pytest.raises(BadRequest, match="undeterminable"):
            await scale({"name": None, "resourceVersion": "1"})
        with pytest.raises(BadRequest, match="the namespace of the provided object does not match"):
            await scale({"namespace": "other"})
        with pytest.raises(Conflict, match=r"deployments/scale\.apps .*UID in precondition: other"):
            await scale({"uid": "other"})
        with pytest.raises(Unclassified, match='ParseUint: parsing "abc"'):
            await scale({"resourceVersion": "abc"})

    run(story)


def test_the_scale_of_a_custom_resource_is_judged_by_its_own_schema() -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent)
        with pytest.raises(BadRequest, match=r'the spec replicas field "\.spec\.size" cannot be empty'):
            await agent.patch(WIDGET, "x", {}, subresource="scale")
        with pytest.raises(Invalid, match=r"Widget\.example\.com .*spec\.size in body should be greater"):
            await agent.patch(WIDGET, "x", {"spec": {"replicas": -1}}, subresource="scale")
        await agent.patch(WIDGET, "x", {"spec": {"replicas": 2}}, subresource="scale")
        assert agent.get(WIDGET, "x")["spec"] == {"size": 2}

    run(story)


def test_who_scales_to_nothing_owns_nothing() -> None:
    async def story(agent: Caller) -> None:
        await with_widget(agent, size=3)
        await agent.patch(WIDGET, "x", {"spec": {"replicas": 0}}, subresource="scale", field_manager="two")
        entries = agent.get(WIDGET, "x")["metadata"]["managedFields"]
        assert [(each["manager"], each["fieldsV1"]) for each in entries] == [("test", {"f:spec": {}})]

    run(story)


def test_a_uid_is_not_to_be_changed_by_way_of_a_status() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("persistentvolumeclaims", {
            "metadata": {"name": "x"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        })  # fmt: skip
        with pytest.raises(Invalid, match=r'metadata\.uid: Invalid value: "other": field is immutable'):
            await agent.patch(
                "persistentvolumeclaims",
                "x",
                {"metadata": {"uid": "other"}},
                subresource="status",
                patching=True,
            )

    run(story)


def test_the_phase_of_a_namespace_says_whether_it_is_being_deleted() -> None:
    async def story(agent: Caller) -> None:
        await agent.create("namespaces", {"metadata": {"name": "n"}})
        with pytest.raises(
            Invalid, match=r"status\.Phase: .*may only be 'Active' if `deletionTimestamp` is empty"
        ):
            await agent.patch("namespaces", "n", {"status": {"phase": "Down"}}, subresource="status")
        marked = await agent.delete("namespaces", "n")
        # It is emptied as the first deletion said.
        assert await agent.delete("namespaces", "n", propagationPolicy="Orphan") == marked

    run(story)


def test_who_finalises_a_namespace_may_say_the_rest_of_its_metadata() -> None:
    async def story(agent: Caller) -> None:
        made = await agent.create("namespaces", {"metadata": {"name": "n", "labels": {"a": "b"}}})
        said = {**made, "metadata": {**made["metadata"], "annotations": {"c": "d"}}}
        shown = await agent.update("namespaces", said, "finalize")
        assert shown["metadata"]["annotations"] == {"c": "d"}
        marked = await agent.delete("namespaces", "n", orphanDependents=False)
        assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]

    run(story)


def test_objects_get_no_deeper_by_patches_than_bodies_may_be() -> None:
    async def story(agent: Caller) -> None:
        free: Object = {}
        for _ in range(60):
            free = {"x": free}
        await with_widget(agent, free=free)
        double = {"op": "copy", "from": "/spec/free", "path": "/spec/free" + "/x" * 61}
        with pytest.raises(BadRequest, match="nested deeper than 100 levels"):
            await agent.patch(WIDGET, "x", [double], "json-patch+json")
        for depth in (200, 5_000):
            deeper = [
                {"op": "add", "path": "/spec/free/y" + "/y" * each, "value": {}} for each in range(depth)
            ]
            deeper.append({"op": "copy", "from": "/spec/free/y", "path": "/spec/free/z"})
            with pytest.raises(BadRequest, match="nested deeper than 100 levels"):
                await agent.patch(WIDGET, "x", deeper, "json-patch+json")

    run(story)
