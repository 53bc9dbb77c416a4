"""The scale subresource: a view of how many replicas an object asks for and has."""

from __future__ import annotations

from typing import Any, Final

from walras.core.errors import BadRequest, Cause, InternalError
from walras.kube import covering, objects, validation
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.validation.metadata import metadata
from walras.kube.validation.names import dns_subdomain

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


# Stands for the replica count of a custom resource that says none, while somebody changes its scale.
_UNSAID: Final = -(2**31)


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


def changing(resource: Resource, obj: Object) -> Object:
    """The object's Scale as a patch finds it: one without a replica count says so by a count that is none."""
    scale = view(resource, obj)
    if not resource.builtin and _at(obj, _paths(resource).get("specReplicasPath", "")) is None:
        scale["spec"] = {"replicas": _UNSAID}
    return scale


def check_same(resource: Resource, obj: Object, scale: Object) -> None:
    """Raises Conflict where a decoded Scale is of another object, or of another version, than there is."""
    metadata, present, name = scale["metadata"], obj["metadata"], str(obj["metadata"]["name"])
    if resource.builtin and metadata.get("uid") not in (None, "", present["uid"]):
        why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
        plural, _, group = resource.key.partition(".")
        of = f"{plural}/scale.{group}" if group else f"{plural}/scale"
        raise objects.conflict(of, name, f"{why}{present['uid']}")
    version = metadata.get("resourceVersion")
    covering.check_number(version)
    if version not in (None, "", "0", present["resourceVersion"]):
        raise objects.conflict(resource.key, name)


def scaled(resource: Resource, obj: Object, scale: Object) -> Object:
    """A copy of the object with the replica count of a decoded Scale. Raises Invalid, BadRequest.

    A custom resource is judged as it is then, by its own schema.
    """
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if resource.builtin:
        _validate(scale, str(obj["metadata"]["name"]), replicas)
    elif replicas == _UNSAID:
        path = _paths(resource).get("specReplicasPath", "")
        raise BadRequest(f'the spec replicas field "{path}" cannot be empty')
    new: Object = copied(obj)
    *parents, last = replicas_path(resource)
    node = new
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = replicas
    return new


def _validate(scale: Object, name: str, replicas: int) -> None:
    faults = validation.Faults()
    # Its managers are those of its object.
    said = {key: value for key, value in scale["metadata"].items() if key != "managedFields"}
    metadata(faults, SCALE, {**scale, "metadata": said}, None, dns_subdomain)
    faults.nonnegative("spec.replicas", replicas)
    if faults:
        raise validation.invalid(SCALE, name, faults)
