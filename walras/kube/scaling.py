"""The scale subresource: a view of how many replicas an object asks for and has."""

from __future__ import annotations

from typing import Any, Final

from walras.core.errors import Cause, InternalError
from walras.kube import validation
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.validation.metadata import check_annotations, check_labels

# What the subresource is, whatever it belongs to.
SCALE: Final = Resource(
    "autoscaling", "v1", "Scale", "scales", "scale", True,
    {"$ref": "#/$defs/io.k8s.api.autoscaling.v1.Scale"},
)  # fmt: skip
_WORKLOADS: Final = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".spec.selector",
}


def _at(obj: Object, path: str) -> Any:
    value: Any = obj
    for name in path.strip(".").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _selector_text(selector: Any) -> str:
    """A label selector as the text that a list request takes."""
    if not isinstance(selector, dict):
        return str(selector or "")
    if all(isinstance(value, str) for value in selector.values()):
        # The selector of older types is the labels themselves.
        selector = {"matchLabels": selector}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        key, values = term.get("key", ""), ",".join(sorted(term.get("values") or ()))
        match term.get("operator"):
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
    return ",".join(terms)


def _paths(resource: Resource) -> Any:
    return _WORKLOADS if resource.builtin else resource.scale or {}


def replicas_path(resource: Resource) -> list[str]:
    """The names of the fields, from the outermost, that lead to the replicas an object asks for."""
    return str(_paths(resource).get("specReplicasPath", "")).strip(".").split(".")


def view(resource: Resource, obj: Object, *, strict: bool = False) -> Object:
    """The object's autoscaling/v1 Scale. If `strict` raises InternalError for one without a replica count."""
    paths, metadata = _paths(resource), obj["metadata"]
    replicas = _at(obj, paths.get("specReplicasPath", ""))
    if strict and replicas is None and not resource.builtin:
        why = f'the spec replicas field "{paths.get("specReplicasPath", "")}" does not exist'
        raise InternalError(f"Internal error occurred: {why}", causes=(Cause("", why),))
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _at(obj, paths.get("statusReplicasPath", "")) or 0}
    wanted = _at(obj, paths["labelSelectorPath"]) if paths.get("labelSelectorPath") else None
    # The selector of a replication controller is a plain map.
    plain = resource.key == "replicationcontrollers"
    selector = _selector_text({"matchLabels": wanted} if plain else wanted)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def scaled(resource: Resource, obj: Object, scale: Object) -> Object:
    """A copy of the object with the replica count of a decoded Scale. Raises Invalid."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    faults = validation.Faults()
    check_labels(faults, "metadata.labels", scale["metadata"].get("labels"))
    check_annotations(faults, "metadata.annotations", scale["metadata"].get("annotations"))
    faults.nonnegative("spec.replicas", replicas)
    if faults:
        raise validation.invalid(SCALE, str(obj["metadata"]["name"]), faults)
    new: Object = copied(obj)
    *parents, last = replicas_path(resource)
    node = new
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = replicas
    return new
