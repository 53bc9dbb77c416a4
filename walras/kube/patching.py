"""Patch bodies: which kinds there are, and what each makes of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, Cause, Invalid, UnsupportedMediaType
from walras.kube import fields, patch, strategic, writing
from walras.kube.context import Context
from walras.kube.options import quoted
from walras.kube.record import Object
from walras.kube.registry import Resource

JSON: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
DEPTH_MAX: Final = 100

Patcher = Callable[[Object], Object]


def media_type(resource: Resource, content_type: str) -> str:
    """One of the kinds above. Raises UnsupportedMediaType; a custom resource takes no strategic patch."""
    media = content_type.partition(";")[0]
    kinds = (JSON, MERGE, STRATEGIC, APPLY) if resource.builtin else (JSON, MERGE, APPLY)
    if media not in kinds:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(kinds)
        )
    return media


def decode(body: bytes) -> Any:
    """The JSON value of a body, not nested too deep to be walked. Raises BadRequest."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"error decoding patch: {error}") from None
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise BadRequest(f"the patch is nested deeper than {DEPTH_MAX} levels")


def patcher(ctx: Context, resource: Resource, body: bytes, media: str) -> Patcher:
    """What makes the patched object of the stored one.

    It raises BadRequest where the body is no patch, Invalid where what it makes is no object of the type.
    """

    def patched(old: Object) -> Object:
        new = _applied(resource, body, media, old)
        before = len(ctx.warnings)
        try:
            return writing.decoded(ctx, resource, new)
        except (fields.Undecodable, writing.Unknown) as error:
            del ctx.warnings[before:]
            shown = quoted(msgspec.json.encode(new).decode())
            message = f"Invalid value: {shown}: {error.why}"
            cause = Cause("FieldValueInvalid", message, "patch")
            raise Invalid(f' "" is invalid: patch: {message}', causes=(cause,)) from None

    return patched


def _applied(resource: Resource, body: bytes, media: str, old: Object) -> Object:
    change = decode(body)
    if media == JSON:
        return patch.json_patch(old, change)
    if not isinstance(change, dict):
        raise BadRequest(patch.cannot_decode(change, "map[string]interface {}"))
    if media == MERGE:
        return patch.merge_patch(old, change)
    return strategic.strategic_merge(resource.schema, old, change)
