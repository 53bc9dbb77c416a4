"""Scales: who owns the replicas, and what a custom resource may have at the paths of its scale.

Outcomes are those of the real server, which was asked.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, Object, run

from walras.core.errors import Conflict, InternalError, Invalid, Unclassified
from walras.kube.golang import printed, type_of
from walras.kube.objects import CRDS

DEPLOYMENTS = "deployments.apps"
APPLY = "apply-patch+yaml"
TEMPLATE: Object = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "a", "image": "b"}]},
}


def deployment() -> Object:
    return {
        "metadata": {"name": "d"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
    }


def scale(replicas: int, **more: Any) -> Object:
    metadata = {"name": "d"}
    spec = {"replicas": replicas}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, **more}


async def apply(caller: Caller, manager: str, obj: Object, **more: Any) -> Object:
    options = {"subresource": "scale", "field_manager": manager, **more}
    return await caller.patch(DEPLOYMENTS, "d", obj, APPLY, **options)


def owners(obj: Object) -> dict[tuple[str, str, str], bool]:
    """Who owns what of the object, by manager, operation and subresource; whether the replicas are theirs."""
    return {
        (each["manager"], each["operation"], each.get("subresource", "")): "f:replicas"
        in each["fieldsV1"].get("f:spec", {})
        for each in obj["metadata"]["managedFields"]
    }


def test_a_scale_that_is_applied_has_an_applier() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(DEPLOYMENTS, deployment(), field_manager="one")
        with pytest.raises(Conflict) as conflict:
            await apply(caller, "two", scale(3))
        said = 'Apply failed with 1 conflict: conflict with "one" using autoscaling/v1: .spec.replicas'
        assert conflict.value.message == said
        assert (await apply(caller, "two", scale(3), force=True))["spec"] == {"replicas": 3}
        found = caller.get(DEPLOYMENTS, "d")
        assert found["spec"]["replicas"] == 3 and found["metadata"]["generation"] == 2
        assert owners(found) == {("one", "Update", ""): False, ("two", "Apply", "scale"): True}
        with pytest.raises(Conflict, match='conflict with "two" with subresource "scale"'):
            await apply(caller, "three", scale(4))
        await apply(caller, "three", scale(3))
        assert owners(caller.get(DEPLOYMENTS, "d")) == {
            ("one", "Update", ""): False,
            ("two", "Apply", "scale"): True,
            ("three", "Apply", "scale"): True,
        }
        await caller.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 9}}, field_manager="four")
        assert owners(caller.get(DEPLOYMENTS, "d")) == {
            ("one", "Update", ""): False,
            ("four", "Update", ""): True,
        }

    run(story)


def test_a_scale_that_does_not_fit_is_refused() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(DEPLOYMENTS, deployment())
        with pytest.raises(Unclassified, match=r"\(/d; autoscaling/v1, Kind=Scale\): .x: field not declared"):
            await apply(caller, "two", scale(3, x=1))
        stale = {**scale(1), "metadata": {"name": "d", "resourceVersion": "1"}}
        with pytest.raises(Conflict, match="the object has been modified"):
            await apply(caller, "two", stale, force=True)

    run(story)


def thing() -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    paths = {
        "specReplicasPath": ".spec.size.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": paths},
    }
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    spec = {"group": "ex.io", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "things.ex.io"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"size": {"replicas": 2.0}},
            "size.replicas accessor error: 2 is of the type float64, expected int64",
        ),
        (
            {"size": {"replicas": "2"}},
            "size.replicas accessor error: 2 is of the type string, expected int64",
        ),
        ({"size": {"replicas": None}}, "accessor error: <nil> is of the type <nil>, expected int64"),
        ({"size": {"replicas": -1}}, "Invalid value: -1: should be a non-negative integer"),
        (
            {"size": {"replicas": 2**31}},
            "Invalid value: 2147483648: should be less than or equal to 2147483647",
        ),
        (
            {"size": 3},
            r"spec.size.replicas accessor error: 3 is of the type int64, expected map\[string\]interface\{\}",
        ),
    ],
)
def test_the_replicas_of_a_custom_resource_are_a_number_of_things(spec: Object, said: str) -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, thing())
        with pytest.raises(Invalid, match=said):
            await caller.create("things.ex.io", {"metadata": {"name": "t"}, "spec": spec})

    run(story)


def test_a_custom_resource_without_replicas_is_given_some_through_its_scale() -> None:
    async def story(caller: Caller) -> None:
        await caller.create(CRDS, thing())
        await caller.create("things.ex.io", {"metadata": {"name": "t"}})
        with pytest.raises(InternalError, match="the spec replicas field"):
            caller.get("things.ex.io", "t", "scale")
        await caller.patch("things.ex.io", "t", {"spec": {"replicas": 3}}, subresource="scale")
        assert caller.get("things.ex.io", "t")["spec"] == {"size": {"replicas": 3}}
        with pytest.raises(Invalid, match="selector accessor error: 3 is of the type int64"):
            await caller.patch("things.ex.io", "t", {"status": {"selector": 3}}, subresource="status")

    run(story)


def test_who_takes_the_last_finalizer_off_is_shown_the_version_before() -> None:
    async def story(caller: Caller) -> None:
        await caller.create("configmaps", {"metadata": {"name": "x", "finalizers": ["a/b"]}})
        going = await caller.delete("configmaps", "x")
        last = await caller.patch("configmaps", "x", {"metadata": {"finalizers": None}})
        assert last["metadata"]["resourceVersion"] == going["metadata"]["resourceVersion"]
        assert caller.api.find("a", "configmaps", "default", "x") is None

    run(story)


def test_a_write_of_the_status_changes_the_metadata_that_its_type_leaves_to_it() -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}
    metadata = {
        "finalizers": ["a/b"],
        "labels": {"l": "m"},
        "annotations": {"x": "y"},
        "ownerReferences": [owner],
    }

    async def story(caller: Caller) -> None:
        await caller.create(DEPLOYMENTS, deployment())
        await caller.create("pods", {"metadata": {"name": "p"}, "spec": TEMPLATE["spec"]})
        await caller.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {}})
        for key, name, kept in (
            (DEPLOYMENTS, "d", "labels"),
            ("pods", "p", "ownerReferences"),
            ("resourcequotas", "q", ""),
        ):
            changed = await caller.patch(key, name, {"metadata": metadata}, subresource="status")
            for field, value in metadata.items():
                assert changed["metadata"].get(field) == (None if field == kept else value), (key, field)
            assert changed["metadata"].get("generation", 1) == 1

    run(story)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<nil>"), (True, "true"), (2.0, "2"), (2.5, "2.5"), (1e20, "1e+20"),
        (1234567.0, "1.234567e+06"), (100000.0, "100000"), (0.0001, "0.0001"),
        (0.00001, "1e-05"), (-2.5, "-2.5"), (0.0, "0"),
        ({"b": [1, "x"], "a": None}, "map[a:<nil> b:[1 x]]"), ([], "[]"),
    ],
)  # fmt: skip
def test_values_are_printed_as_go_prints_them(value: Any, text: str) -> None:
    assert printed(value) == text
    assert type_of(value) in ("<nil>", "bool", "float64", "map[string]interface {}", "[]interface {}")
