"""Patch bodies: which kinds there are, and what each makes of an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, Cause, InternalError, Invalid, UnsupportedMediaType
from walras.kube import bodies, covering, decoding, fields, golang, patch, steps, strategic, validation
from walras.kube.context import Context
from walras.kube.fieldpaths import Told
from walras.kube.options import quoted
from walras.kube.record import Object, parse
from walras.kube.registry import Resource

JSON: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
_NO_PATCH: Final = "Invalid JSON Patch"
_OPERATION: Final = ("op", "path", "from", "value")
_PATCH_TYPES: Final = ("jsonpatch.Patch", "jsonpatch.Operation")

Patcher = Callable[[Object], Object]


def media_type(resource: Resource, content_type: str) -> str:
    """One of the kinds above. Raises UnsupportedMediaType; a custom resource takes no strategic patch."""
    media = content_type.partition(";")[0]
    kinds = (JSON, MERGE, STRATEGIC, APPLY) if resource.builtin else (JSON, MERGE, APPLY)
    if media not in kinds:
        if resource.builtin:
            raise UnsupportedMediaType("415: Unsupported Media Type")
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(kinds)
        )
    return media


def decode(validated: str, body: bytes, media: str) -> Any:
    """The JSON value of a body, not nested too deep to be walked. Raises BadRequest."""
    try:
        value = parse(body)
    except ValueError as error:
        if media == MERGE and validated == "Ignore":
            raise BadRequest(_NO_PATCH) from None
        why = str(error) if body else "unexpected end of JSON input"
        raise BadRequest(f"{_where(validated, media)}{why}") from None
    level = [value]
    for _ in range(patch.DEPTH_MAX):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise BadRequest(f"the patch is nested deeper than {patch.DEPTH_MAX} levels")


def _read(validated: str, body: bytes, media: str) -> tuple[Any, list[str]]:
    """A patch, and what it says twice or beside the point; `validated` is the request's fieldValidation.

    Raises BadRequest.
    """
    change = decode(validated, body, media)
    return change, _faults(validated, body, media, change)


def _where(validated: str, media: str) -> str:
    """Who does not want to hear of unknown fields has the patch decoded by others upstream."""
    return "" if validated == "Ignore" or media == STRATEGIC else "error decoding patch: "


def patcher(
    ctx: Context,
    resource: Resource,
    body: bytes,
    media: str,
    *,
    of: Resource | None = None,
    status: bool = False,
) -> Patcher:
    """What makes the patched object of the stored one; `of` is whose scale it is, where it is one.

    It raises BadRequest where the body is no patch, Invalid where what it makes is no object of the type.
    """

    def patched(old: Object) -> Object:
        change, faults = steps.taken(ctx, _read, ctx.field_validation, body, media)
        new = steps.taken(ctx, _applied, ctx.field_validation, resource, change, media, old)
        # With fields of its own: what was taken is to be read only.
        made = _Made(ctx, resource, dict(new), change, media)
        made.settle_type(of or resource, old["metadata"], status=status)
        return made.decoded(faults)

    return patched


@dataclass(slots=True)
class _Made:
    """What a patch makes of an object, on its way to be one."""

    ctx: Context
    resource: Resource
    new: Object
    change: Any
    media: str

    def settle_type(self, of: Resource, present: Object, *, status: bool) -> None:
        """Sees to the apiVersion and kind, as upstream does for the kind of patch and of object. Raises."""
        new, resource = self.new, self.resource
        version, kind = new.get("apiVersion"), new.get("kind")
        if self.media == STRATEGIC:
            # Only that they are texts counts: the object is put into a struct of the type field by field.
            for given in (version, kind):
                if given is not None and not isinstance(given, str):
                    raise self.invalid(f"cannot convert {golang.type_of(given)} to string")
            new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        elif of.builtin and not version:
            self.refuse_unversioned(str(present["name"]))
        elif not of.builtin and of is resource:
            self.settle_custom(version, kind, present, status=status)

    def refuse_unversioned(self, name: str) -> None:
        """Upstream takes it for one of its own structs, whose fields have other names."""
        unknown = [f'unknown field "{key}"' for key in sorted(self.new) if key not in ("apiVersion", "kind")]
        if self.ctx.field_validation == "Strict" and unknown:
            raise self.invalid(f"strict decoding error: {', '.join(unknown)}")
        if self.ctx.field_validation == "Warn":
            self.ctx.warnings += unknown
        covering.call({}, name)

    def settle_custom(self, version: Any, kind: Any, present: Object, *, status: bool) -> None:
        new, resource = self.new, self.resource
        if not all(value is None or isinstance(value, str) for value in (version, kind)):
            return
        if not kind:
            raise self.invalid(f"Object 'Kind' is missing in '{self.text()}'")
        metadata = new.get("metadata")
        # Of which version it is comes first, and is looked at later.
        same = isinstance(metadata, dict) and metadata.get("resourceVersion") == present["resourceVersion"]
        if not version and same:
            why = "Object 'apiVersion' is missing in 'object has no apiVersion field'"
            raise InternalError(f"Internal error occurred: {why}", causes=(Cause("", why),))
        wanted = {"kind": (kind, resource.kind), "apiVersion": (version, resource.api_version)}
        causes = [
            Cause("FieldValueInvalid", f"Invalid value: {quoted(given)}: must be {right}", field)
            for field, (given, right) in wanted.items()
            if given != right
        ]
        if causes and not status and same:
            taken_for = replace(resource, kind=kind, group=version.rpartition("/")[0])
            raise validation.invalid(taken_for, str(present["name"]), causes)
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind

    def decoded(self, faults: list[str]) -> Object:
        """The object, with the request's warnings of fields that nobody knows; `faults` are the patch's."""
        told = self.ctx.warnings
        before = len(told)
        try:
            found = decoding.decoded(self.ctx, self.resource, self.new)
        except decoding.Unknown as error:
            raise self.invalid(_strict([*faults, *sorted(error.faults)])) from None
        except fields.Undecodable as error:
            del told[before:]
            raise self.invalid(error.why) from None
        if faults and self.ctx.field_validation == "Strict":
            raise self.invalid(_strict(faults))
        # Patched objects are encoded with their fields in order.
        told[before:] = [*faults, *sorted(told[before:])]
        return found

    def text(self) -> str:
        return msgspec.json.encode(self.new, order="sorted").decode()

    def invalid(self, why: str) -> Invalid:
        shown = golang.printed(self.change) if self.media == STRATEGIC else self.text()
        message = f"Invalid value: {quoted(shown)}: {why}"
        return Invalid(
            f' "" is invalid: patch: {message}', causes=(Cause("FieldValueInvalid", message, "patch"),)
        )


def _strict(faults: list[str]) -> str:
    return f"strict decoding error: {', '.join(faults)}"


def _faults(validated: str, body: bytes, media: str, change: Any) -> list[str]:
    """What the patch itself says twice, or beside the point, where the client wants to hear of it."""
    if validated == "Ignore":
        return []
    twice = [f'duplicate field "{path}"' for path in bodies.repeated(body, change)]
    if media != JSON:
        return twice
    told = Told()
    for index, operation in enumerate(change if isinstance(change, list) else ()):
        for key in operation if isinstance(operation, dict) else ():
            if key not in _OPERATION:
                told.note(((None, index), key))
    return [f"json patch {each}" for each in (*twice, *(f'unknown field "{path}"' for path in told.paths))]


def _applied(validated: str, resource: Resource, change: Any, media: str, old: Object) -> Object:
    if media == JSON:
        _check_operations(validated, change)
        return patch.json_patch(old, change or [])
    if media == MERGE and (change is None or validated == "Ignore") and not isinstance(change, dict):
        raise BadRequest(_NO_PATCH)
    if media == STRATEGIC:
        change = _whole_numbers(change) if change is not None else {}
    if not isinstance(change, dict):
        raise BadRequest(
            f"{_where(validated, media)}{patch.cannot_decode(change, 'map[string]interface {}')}"
        )
    if media == MERGE:
        return patch.merge_patch(old, change)
    return strategic.strategic_merge(resource.schema, old, change)


def _whole_numbers(value: Any) -> Any:
    """The value with integers for floats that are whole: a Go struct's field takes either."""
    if isinstance(value, dict):
        return {key: _whole_numbers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _check_operations(validated: str, change: Any) -> None:
    """Raises BadRequest for what is no list of operations, in Go's words."""
    told = validated != "Ignore"
    many, one = ("[]handlers.jsonPatchOp", "handlers.jsonPatchOp") if told else _PATCH_TYPES
    if change is not None and not isinstance(change, list):
        raise BadRequest(f"{_where(validated, JSON)}{patch.cannot_decode(change, many)}")
    for operation in change or ():
        if operation is not None and not isinstance(operation, dict):
            raise BadRequest(f"{_where(validated, JSON)}{patch.cannot_decode(operation, one)}")
        for name in ("op", "path", "from") if told else ():
            value = (operation or {}).get(name)
            if value is not None and not isinstance(value, str):
                why = f"Go struct field jsonPatchOp.{name} of type string"
                raise BadRequest(
                    f"{_where(validated, JSON)}json: cannot unmarshal {patch.json_kind(value)} into {why}"
                )
