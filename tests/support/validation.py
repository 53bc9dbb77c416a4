"""Objects of built-in types with what a test is about, and the faults that validation finds in them."""

from __future__ import annotations

from typing import Any

from walras.kube import defaults, fields, preparing, validation
from walras.kube.registry_builtin import for_all

ALL = for_all()
Object = dict[str, Any]
CONTAINER = {"name": "c", "image": "i"}


def ready(key: str, obj: Object) -> Object:
    """The object as the server has it when validation begins."""
    resource = ALL[key]
    name = "default" if key == "pools.walras.dev" else "x"
    name = obj.get("metadata", {}).get("name", name)
    obj = fields.prune(resource.schema, {"apiVersion": resource.api_version, "kind": resource.kind, **obj})
    obj["metadata"] = {"uid": "u-1", **obj.get("metadata", {}), "name": name}
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    defaults.apply(resource, obj)
    preparing.prepare(resource, obj)
    return obj


def faults(key: str, obj: Object, old: Object | None = None) -> list[str]:
    """'path: message' of every fault."""
    causes = validation.validate(ALL[key], ready(key, obj), None if old is None else ready(key, old))
    return [f"{cause.field}: {cause.message}" for cause in causes]


def pod(metadata: Object | None = None, **spec: Any) -> Object:
    return {"metadata": metadata or {}, "spec": {"containers": [CONTAINER], **spec}}


def container(**more: Any) -> Object:
    return pod(containers=[{**CONTAINER, **more}])
