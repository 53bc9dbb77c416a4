"""What a request covers of an object: its name and place, its version, and the parts that its verb writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from walras.core.errors import BadRequest, Cause, Unclassified
from walras.kube import defaults, objects, strategies, validation
from walras.kube.context import Context
from walras.kube.options import quoted
from walras.kube.patch import copied
from walras.kube.record import Object, copy
from walras.kube.registry import Resource

# What a client may leave out but not change, and what is not the client's to write at all.
_FIXED: Final = ("name", "namespace", "uid")
_KEPT: Final = ("deletionTimestamp", "deletionGracePeriodSeconds")
_OVERWRITTEN: Final = ("creationTimestamp", "generation", "resourceVersion", "selfLink")


def place(metadata: Object, namespace: str) -> None:
    """Puts the request's namespace ("" for none) into the metadata. Raises BadRequest where they differ."""
    if not namespace:
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace")
    if given and given != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = namespace


def call(metadata: Object, name: str) -> None:
    """Raises BadRequest where the object's name is not that of the request."""
    given = metadata.get("name")
    if not given:
        raise BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if given != name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")


def check_same(ctx: Context, resource: Resource, old: Object, new: Object, namespace: str, name: str) -> None:
    """Raises where the new state is of another object, or of another version than there is."""
    metadata, present = new["metadata"], old["metadata"]
    place(metadata, namespace)
    call(metadata, name)
    # A patch that changes the uid is invalid; a PUT with another one is meant for another object.
    if not ctx.patching and metadata.get("uid") not in (None, "", present["uid"]):
        raise objects.conflict(
            resource.key,
            name,
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {present['uid']}",
        )
    version = metadata.get("resourceVersion")
    check_number(version)
    if version in (None, "", "0"):
        if not resource.builtin or resource.storage.key in strategies.CONDITIONAL:
            cause = Cause("FieldValueInvalid", "Invalid value: 0: must be specified for an update",
                          "metadata.resourceVersion")  # fmt: skip
            raise validation.invalid(replace(resource, kind=resource.plural), name, [cause])
    elif version != present["resourceVersion"]:
        raise objects.conflict(resource.key, name)


def without_version(resource: Resource, metadata: Object, name: str, *, applied: bool = False) -> None:
    """Prepares the metadata of what an update or apply makes, since there is nothing of the name.

    Raises Conflict for one that is to be a certain object.
    """
    if applied and metadata.get("uid"):
        said = f"the provided object specified uid {metadata['uid']}, and no existing object was found"
        raise objects.conflict(resource.key, name, f"uid mismatch: {said}")
    check_number(metadata.pop("resourceVersion", None))
    if metadata.get("uid"):
        why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
        raise objects.conflict(resource.key, name, why)


def check_number(version: object) -> None:
    """Raises Unclassified for a resourceVersion that is no number."""
    if version and not (isinstance(version, str) and version.isascii() and version.isdigit()):
        raise Unclassified(f"strconv.ParseUint: parsing {quoted(str(version)[:64])}: invalid syntax")


def within(resource: Resource, old: Object, given: Object, subresource: str) -> Object:
    """The new object: of `given` what the verb writes, the rest of `old`. Shares parts with both."""
    match subresource:
        case "status" | "approval":
            new = {**old, "metadata": _status_metadata(resource, old["metadata"], given["metadata"])}
            take(new, given, "status")
        case "finalize":
            spec = {
                **(old.get("spec") or {}),
                "finalizers": (given.get("spec") or {}).get("finalizers") or [],
            }
            new = {**old, "metadata": dict(given["metadata"]), "spec": spec}
        case "ephemeralcontainers" | "resize":
            spec = _partly(resource, old, given, subresource)
            new = {**old, "metadata": dict(old["metadata"]), "spec": spec}
            take(new["metadata"], given["metadata"], "managedFields")
        case _:
            new = {**given, "metadata": dict(given["metadata"])}
            if resource.has_status:
                take(new, old, "status")
            if resource.key == objects.NAMESPACES:
                new["spec"] = old.get("spec") or {}
    metadata: Object = new["metadata"]
    before: Object = old["metadata"]
    if resource.builtin:
        _say(resource, metadata, given["metadata"], subresource)
    for name in _FIXED:
        if not metadata.get(name):
            take(metadata, before, name)
    for name in _KEPT:
        if name in before:
            metadata[name] = before[name]
    for name in _OVERWRITTEN:
        take(metadata, before, name)
    return copy(new)


def _say(resource: Resource, metadata: Object, given: Object, subresource: str) -> None:
    """Puts in, in place, what a patch says and may not change: it is for validation to refuse."""
    metadata["uid"] = given.get("uid")
    if subresource and resource.key != objects.PODS and "deletionTimestamp" in given:
        metadata["deletionTimestamp"] = given["deletionTimestamp"]


def _check_order(resource: Resource, old: Object, given: Object) -> None:
    """Raises Invalid for a pod that is to be resized and has other containers than there are."""
    causes = []
    for field in ("containers", "initContainers"):
        before, after = (
            [each.get("name") for each in (pod.get("spec") or {}).get(field) or ()] for pod in (old, given)
        )
        if field == "containers" and not after:
            causes.append(Cause("FieldValueRequired", "Required value", f"spec.{field}"))
        if len(before) != len(after):
            said = f"Forbidden: {field} may not be added or removed on resize"
            causes.append(Cause("FieldValueForbidden", said, f"spec.{field}"))
        else:
            said = f"Forbidden: {field} may not be renamed or reordered on resize"
            causes += [
                Cause("FieldValueForbidden", said, f"spec.{field}[{index}].name")
                for index, (was, name) in enumerate(zip(before, after, strict=True))
                if was != name
            ]
    if causes:
        raise validation.invalid(resource, str(old["metadata"]["name"]), causes)


def said(resource: Resource, new: Object, given: Object) -> Object:
    """What a request says of an object, whatever of it is written."""
    kept = {name: value for name, value in given["metadata"].items() if name != "managedFields"}
    whole: Object = copied({**given, "metadata": {**new["metadata"], **kept}})
    defaults.apply(resource, whole)
    return whole


def _partly(resource: Resource, old: Object, given: Object, subresource: str) -> Object:
    """A pod's spec with the ephemeral containers, or the containers' resources, of another. Invalid."""
    spec, wanted = dict(old.get("spec") or {}), given.get("spec") or {}
    if subresource == "ephemeralcontainers":
        take(spec, wanted, "ephemeralContainers")
        return spec
    _check_order(resource, old, given)
    for field in ("containers", "initContainers"):
        resources = {each.get("name"): each.get("resources") for each in wanted.get(field) or ()}
        if field in spec:
            spec[field] = [
                {**each, "resources": resources.get(each["name"]) or each.get("resources") or {}}
                for each in spec[field]
            ]
    return spec


def take(target: Object, source: Mapping[str, Any], name: str) -> None:
    """Gives the target, in place, what the source has of the name, or nothing."""
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def _status_metadata(resource: Resource, old: Object, given: Object) -> Object:
    taken = strategies.metadata_of_status(resource)
    metadata = dict(old)
    for name in taken:
        take(metadata, given, name)
    return metadata
