"""What is wrong with a body: faults that are put into a valid object, and bodies that are none."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from differential.kinds import Object

_LONG: Final = "x" * 300


def _metadata(name: str, value: Any) -> Object:
    return {"metadata": {name: value}}


# Merged into an object; each makes something of it invalid, unusual or unknown.
CHANGES: Final[tuple[tuple[str, Object], ...]] = (
    ("an unknown field", {"bogus": 1}),
    ("an unknown field of spec", {"spec": {"bogus": {"x": 1}}}),
    ("an unknown field of metadata", _metadata("bogus", True)),
    ("no kind", {"kind": None}),
    ("no apiVersion", {"apiVersion": None}),
    ("another kind", {"kind": "Widget"}),
    ("another apiVersion", {"apiVersion": "v9"}),
    ("another namespace", _metadata("namespace", "elsewhere")),
    ("a namespace", _metadata("namespace", "$self$")),
    ("a long name", _metadata("name", _LONG)),
    ("a bad name", _metadata("name", "Not_A_Name")),
    ("no name", _metadata("name", None)),
    ("a generated name", {"metadata": {"name": None, "generateName": "gen-"}}),
    ("a bad generated name", {"metadata": {"name": None, "generateName": "Gen_"}}),
    ("a resourceVersion", _metadata("resourceVersion", "1")),
    ("a bad resourceVersion", _metadata("resourceVersion", "abc")),
    ("a uid", _metadata("uid", "11111111-2222-3333-4444-555555555555")),
    ("a generation", _metadata("generation", 7)),
    ("a creationTimestamp", _metadata("creationTimestamp", "2020-01-01T00:00:00Z")),
    ("a bad creationTimestamp", _metadata("creationTimestamp", "yesterday")),
    ("a deletionTimestamp", _metadata("deletionTimestamp", "2020-01-01T00:00:00Z")),
    ("a selfLink", _metadata("selfLink", "/x")),
    ("a bad label", _metadata("labels", {"a/b/c": "x"})),
    ("a bad label value", _metadata("labels", {"a": "x y"})),
    ("a label of a number", _metadata("labels", {"a": 1})),
    ("labels of a list", _metadata("labels", ["a"])),
    ("labels of null", _metadata("labels", {"x": None, "y": None})),
    ("a bad annotation", _metadata("annotations", {"a b": "x"})),
    ("an annotation of a list", _metadata("annotations", {"a": []})),
    ("a bad finalizer", _metadata("finalizers", ["no slash"])),
    ("an unqualified finalizer", _metadata("finalizers", ["plain"])),
    ("finalizers of a text", _metadata("finalizers", "x")),
    ("an owner", _metadata("ownerReferences", [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u-1"}])),
    ("an owner without uid", _metadata("ownerReferences", [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "o"}])),
    ("two controllers", _metadata("ownerReferences", [
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u-1", "controller": True},
        {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "u-2", "controller": True}])),
    ("the same owner twice", _metadata("ownerReferences", [
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u-1"},
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u-1"}])),
    ("managedFields", _metadata("managedFields", [
        {"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:data": {}}}])),
    ("bad managedFields", _metadata("managedFields", [{"manager": "m", "operation": "Sing"}])),
    ("empty managedFields", _metadata("managedFields", [])),
    ("metadata of a text", {"metadata": "x"}),
    ("metadata of a list", {"metadata": []}),
    ("spec of a text", {"spec": "x"}),
    ("spec of a list", {"spec": [1]}),
    ("data of a list", {"data": ["x"]}),
    ("data of numbers", {"data": {"a": 1}}),
    ("data of null", {"data": {"zero": None}}),
    ("replicas below zero", {"spec": {"replicas": -1}}),
    ("replicas of a text", {"spec": {"replicas": "3"}}),
    ("replicas of a fraction", {"spec": {"replicas": 1.5}}),
    ("replicas of a whole fraction", {"spec": {"replicas": 2.0}}),
    ("a status", {"status": {"replicas": 4}}),
    ("an unknown field of status", {"status": {"bogus": 1}}),
    ("a colour that is none", {"spec": {"colour": "mauve"}}),
    ("a long list", {"spec": {"list": [1, 2, 3, 4, 5]}}),
    ("the same part twice", {"spec": {"parts": [{"name": "a"}, {"name": "a"}]}}),
    ("a part without a name", {"spec": {"parts": [{"size": 1}]}}),
    ("the same tag twice", {"spec": {"tags": ["x", "x"]}}),
)  # fmt: skip

# What an update or a patch may well want.
HARMLESS: Final[tuple[tuple[str, Object], ...]] = (
    ("nothing", {}),
    ("a label", _metadata("labels", {"x": "new"})),
    ("no labels", _metadata("labels", None)),
    ("an annotation", _metadata("annotations", {"example.com/note": "n"})),
    ("a finalizer", _metadata("finalizers", ["example.com/three"])),
    ("no finalizers", _metadata("finalizers", None)),
    ("empty finalizers", _metadata("finalizers", [])),
    ("data", {"data": {"a": "changed"}}),
    ("no data", {"data": None}),
    ("replicas", {"spec": {"replicas": 2}}),
    ("no replicas", {"spec": {"replicas": None}}),
    ("parts", {"spec": {"parts": [{"name": "b", "size": 7}, {"name": "c"}]}}),
    ("tags", {"spec": {"tags": ["y", "z"]}}),
    ("a free field", {"spec": {"free": {"any": 2, "other": None}}}),
    ("a status", {"status": {"replicas": 2, "phase": "Down"}}),
    ("an image", {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}),
    ("a template's image", {"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "nginx:2"}]}}}}),
    ("a holder", {"spec": {"holderIdentity": "her"}}),
)  # fmt: skip

BROKEN: Final[tuple[tuple[str, bytes], ...]] = (
    ("an empty body", b""),
    ("a cut body", b'{"kind": "ConfigMap", "metad'),
    ("no JSON", b"hello"),
    ("a list", b"[]"),
    ("a number", b"3"),
    ("null", b"null"),
    ("a text", b'"x"'),
    ("an empty object", b"{}"),
    ("two objects", b"{} {}"),
    ("bytes", b"\xff\xfe\x00"),
    ("a large integer", b'{"metadata":{"name":"a","generation":99999999999999999999999}}'),
    ("a deep list", b'{"metadata":{"name":"a"},"x":' + b"[" * 200 + b"]" * 200 + b"}"),
    ("a comma too many", b'{"metadata":{"name":"a",}}'),
    ("not a number", b'{"metadata":{"name":"a"},"data":{"a":NaN}}'),
)


def mutated(rng: Random, obj: Object, chance: float) -> tuple[str, Object]:
    """The object with a fault, or as it is; and what the fault is called, "" where there is none."""
    if rng.random() >= chance:
        return "", obj
    what, change = rng.choice(CHANGES)
    return what, overlaid(obj, change)


def overlaid(value: Any, change: Any) -> Any:
    """As `merged`, but null is laid over too; only of kind, apiVersion and name it removes."""
    if not isinstance(change, dict) or not isinstance(value, dict):
        return change
    result = dict(value)
    for key, inner in change.items():
        if inner is None and key in ("kind", "apiVersion", "name"):
            result.pop(key, None)
        else:
            result[key] = overlaid(result[key], inner) if key in result else inner
    return result


def doubled(rng: Random, obj: Object) -> str:
    """The object as text in which one key of it is given twice."""
    text = json.dumps(obj)
    key = rng.choice(["kind", "metadata"])
    again = json.dumps({key: obj.get(key, "x")})[1:-1]
    return f"{text[:-1]}, {again}}}"
