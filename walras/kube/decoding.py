"""What a document from outside is: of the type that it says, in the form in which objects are stored."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final

from walras.core.errors import BadRequest, Cause
from walras.kube import fields, steps, validation
from walras.kube.context import Context
from walras.kube.options import no_kind, quoted
from walras.kube.patch import json_kind
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.schema import definitions

_UNMARSHAL: Final = "yaml: unmarshal errors:"


class Unknown(BadRequest):
    """Fields that the type does not know, where the client wants to be told; `why` names them."""

    def __init__(self, resource: Resource, faults: list[str]) -> None:
        self.faults = faults
        self.why = f"strict decoding error: {', '.join(faults)}"
        kind, version = resource.kind, resource.version
        subject = f'{kind} in version "{version}" cannot be handled as a {kind}: '
        super().__init__(f"{subject}{self.why}")


def decoded(ctx: Context, resource: Resource, obj: Object) -> Object:
    """A new object in stored form. Raises Undecodable; unknown fields are refused, told or dropped."""
    if not resource.builtin and ctx.field_validation == "Warn":
        # What a custom resource gives twice is told whatever it is.
        ctx.warnings += ctx.repeats
    _check_type(resource, obj)
    shaped, unknown = steps.taken(ctx, fields.decode, resource.schema, obj)
    faults = [f'unknown field "{path}"' for path in unknown]
    faults += [f'duplicate field "{path}"' for path in ctx.duplicates]
    if (faults or ctx.repeats) and ctx.field_validation != "Ignore":
        if ctx.field_validation == "Strict":
            repeats = ["\n  ".join((_UNMARSHAL, *ctx.repeats))] if ctx.repeats else []
            raise Unknown(resource, [*repeats, *faults])
        ctx.warnings += [*ctx.repeats, *faults]
    # First, so that lists can leave them out without looking for them.
    shaped = {"apiVersion": "", "kind": "", **shaped}
    shaped["apiVersion"], shaped["kind"] = resource.api_version, resource.kind
    metadata = shaped.get("metadata")
    shaped["metadata"] = dict(metadata) if isinstance(metadata, dict) else {}
    return shaped


@cache
def _registered() -> frozenset[tuple[str, str]]:
    """(apiVersion, kind) of every built-in type."""
    found = set()
    for definition in definitions().values():
        for each in definition.get("x-kubernetes-group-version-kind") or ():
            group = f"{each['group']}/" if each["group"] else ""
            found.add((f"{group}{each['version']}", each["kind"]))
    return frozenset(found)


def _check_type(resource: Resource, obj: Object) -> None:
    """Raises Undecodable or BadRequest, in upstream's words, for an object of another type."""
    # A custom resource must say what it is; for the others the path does.
    api_version = obj.get("apiVersion") or (resource.api_version if resource.builtin else "")
    kind = obj.get("kind") or (resource.kind if resource.builtin else "")
    if not kind:
        what = f"the object provided is unrecognized (must be of type {resource.kind})"
        raise BadRequest(f"{what}: Object 'Kind' is missing")
    if api_version == resource.api_version and kind == resource.kind:
        return
    for field, value in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(value, str):
            why = f"json: cannot unmarshal {json_kind(value)} into Go struct field .{field} of type string"
            why = f"couldn't get version/kind; json parse error: {why}"
            raise fields.Undecodable(resource.kind, resource.version, why)
    version = str(api_version).rpartition("/")[2]
    if not resource.builtin and api_version != resource.api_version:
        raise _another_version(resource, str(api_version))
    if not resource.builtin:
        message = f"Invalid value: {quoted(kind)}: must be {resource.kind}"
        name = obj["metadata"].get("name") if isinstance(obj.get("metadata"), dict) else ""
        cause = Cause("FieldValueInvalid", message, "kind")
        raise validation.invalid(replace(resource, kind=kind), str(name or ""), [cause])
    if (api_version, kind) not in _registered():
        why = no_kind(str(kind), str(api_version))
        raise fields.Undecodable(str(kind), version, why, resource.kind)
    if kind == resource.kind:
        raise _another_version(resource, str(api_version))
    package = resource.group.partition(".")[0] or "core"
    why = f"converting ({version}.{kind}) to ({package}.{resource.kind}): unknown conversion"
    raise fields.Undecodable(kind, version, why, resource.kind)


def _another_version(resource: Resource, given: str) -> BadRequest:
    return BadRequest(
        f"the API version in the data ({given}) does not match the expected API version "
        f"({resource.api_version})"
    )


def tell_repeats(ctx: Context) -> None:
    """Refuses or tells, as the request's fieldValidation says, what a configuration gives twice."""
    if not ctx.repeats or ctx.field_validation == "Ignore":
        return
    if ctx.field_validation == "Strict":
        why = "\n  ".join((_UNMARSHAL, *ctx.repeats))
        raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: {why}")
    ctx.warnings += [each for each in ctx.repeats if each not in ctx.warnings]
