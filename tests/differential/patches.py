"""Patches of every kind, right and wrong."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

from differential.kinds import Kind, Object, container, labels
from differential.mutations import CHANGES, HARMLESS, mutated
from differential.steps import SELF

Made = tuple[str, Any]

_PATHS: Final = (
    "/metadata/labels", "/metadata/labels/x", "/metadata/labels/example.com~1role", "/metadata/annotations/n",
    "/metadata/annotations", "/metadata/finalizers", "/metadata/finalizers/0", "/metadata/finalizers/-",
    "/data", "/data/a", "/data/d.txt", "/spec/replicas", "/spec/parts/0/size", "/spec/parts/-",
    "/spec/tags/0", "/spec/colour", "/spec/free", "/spec/list/1", "/spec/list/9", "/spec", "/status/phase",
    "/status", "", "/", "/bogus", "/metadata", "/metadata/name", "/metadata/uid", "/kind", "nopath",
    "/metadata/resourceVersion", "/spec/template/spec/containers/0/image", "/spec/containers/0/image",
    "/metadata/generation", "/spec/nested/note",
)  # fmt: skip
_OWN: Final = ("/metadata/resourceVersion", "/metadata/uid", "/metadata", "")
_VALUES: Final[tuple[Any, ...]] = (
    "x",
    "",
    1,
    2,
    None,
    True,
    {},
    [],
    {"x": "y"},
    ["example.com/z"],
    [1, 2],
    {"name": "z"},
)


def json_patch(rng: Random, kind: Kind, name: str, read: int | None) -> Made:
    """RFC 6902, some of whose operations are none."""
    operations: list[Any] = [_operation(rng, read) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    if rng.random() < 0.03:
        operations.append(rng.choice(["x", None, {}, {"op": "sing", "path": "/a"}, {"op": "add"}]))
    return "application/json-patch+json", operations


def _operation(rng: Random, read: int | None) -> Object:
    kind = rng.choice(["add", "add", "replace", "replace", "remove", "test", "copy", "move"])
    operation: Object = {"op": kind, "path": rng.choice(_PATHS[:23] if rng.random() < 0.7 else _PATHS)}
    if kind in ("copy", "move"):
        # Versions and uids that are copied elsewhere are each server's own.
        operation["from"] = rng.choice([path for path in _PATHS if path not in _OWN])
    elif kind != "remove":
        operation["value"] = rng.choice(_VALUES)
        if operation["path"] == "/metadata/resourceVersion" and read is not None:
            operation["value"] = f"$rv:{read}$"
    return operation


def merge_patch(rng: Random, kind: Kind, name: str, read: int | None) -> Made:
    """RFC 7386."""
    return "application/merge-patch+json", _change(rng, read)


def _change(rng: Random, read: int | None) -> Any:
    _, change = rng.choice(HARMLESS) if rng.random() < 0.7 else rng.choice(CHANGES)
    change = json.loads(json.dumps(change))
    if read is not None and rng.random() < 0.15:
        metadata = change.get("metadata")
        if isinstance(metadata, dict) or metadata is None:
            version = rng.choice([f"$rv:{read}$", "1", "abc", ""])
            change["metadata"] = {**(metadata or {}), "resourceVersion": version}
    return change


def strategic_patch(rng: Random, kind: Kind, name: str, read: int | None) -> Made:
    """Kubernetes' own, with its directives. Custom resources take none."""
    media = "application/strategic-merge-patch+json"
    if rng.random() < 0.4:
        return media, _change(rng, read)
    spec = rng.choice([
        {"containers": [container(rng)]},
        {"containers": [{"name": "main", "$patch": "delete"}]},
        {"containers": [{"name": "main", "env": [
            {"name": "A", "value": "9"}, {"name": "B", "$patch": "delete"}]}]},
        {"$setElementOrder/containers": [{"name": "side"}, {"name": "main"}],
         "containers": [{"name": "side", "image": "new"}, {"name": "main"}]},
        {"containers": [{"image": "no name"}]},
        {"containers": [{"name": "main", "ports": [{"containerPort": 80, "$patch": "delete"}]}]},
        {"containers": [{"name": "main", "ports": [{"$patch": "replace"}, {"containerPort": 99}]}]},
        {"volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {"medium": "Memory"}}]},
        {"tolerations": [{"key": "b", "operator": "Exists"}]},
        {"nodeSelector": {"$patch": "replace", "a": "b"}},
        {"$patch": "sing"}, {"$retainKeys": "x"}, {"$setElementOrder/containers": "x"},
        {"nodeSelector": None}, {"containers": None},
    ])  # fmt: skip
    change: Object = {"spec": spec}
    if kind.plural in ("deployments", "replicasets", "jobs"):
        change = {"spec": {"template": {"spec": spec}}}
    other = rng.choice([
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/one"]}},
        {"metadata": {"finalizers": ["example.com/new"], "$setElementOrder/finalizers": ["example.com/new"]}},
        {"metadata": {"labels": {"$patch": "replace", "only": "this"}}},
        {"data": {"$patch": "delete"}}, {"data": {"$patch": "replace", "z": "z"}},
        {"metadata": {"ownerReferences": [{"uid": "u-1", "apiVersion": "v1", "kind": "A", "name": "a"}]}},
        {"metadata": {"labels": {"$patch": "merge", "x": "1"}}}, {"$patch": "delete"},
        {"$patch": "replace", "metadata": {"name": kind.name(name)}},
    ])  # fmt: skip
    return media, change if rng.random() < 0.6 and "spec" in kind.rest(rng) else other


def apply_patch(rng: Random, kind: Kind, name: str, read: int | None) -> Made:
    """What a manager wants of the object: part of it, more often than all."""
    body: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": kind.name(name)}}
    if kind.namespaced and rng.random() < 0.5:
        body["metadata"]["namespace"] = SELF
    if rng.random() < 0.5:
        body["metadata"]["labels"] = labels(rng)
    if rng.random() < 0.15:
        body["metadata"]["finalizers"] = ["example.com/applied"]
    if rng.random() < 0.1 and read is not None:
        body["metadata"]["resourceVersion"] = f"$rv:{read}$"
    rest = kind.rest(rng)
    for part, value in rest.items():
        if isinstance(value, dict) and rng.random() < 0.4:
            body[part] = {key: inner for key, inner in value.items() if rng.random() < 0.6}
        elif rng.random() < 0.9:
            body[part] = value
    _, body = mutated(rng, body, 0.2)
    return "application/apply-patch+yaml", body
