"""Patch bodies: which kinds there are, and what each makes of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, UnsupportedMediaType
from walras.kube import patch, strategic
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
    media = content_type.partition(";")[0].strip().lower()
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


def patcher(resource: Resource, body: bytes, media: str) -> Patcher:
    """What makes the patched object of the stored one. Raises BadRequest."""
    change = decode(body)
    if media == JSON:
        return lambda obj: patch.json_patch(obj, change)
    if not isinstance(change, dict):
        raise BadRequest("error decoding patch: json: cannot unmarshal into a map[string]interface {}")
    if media == MERGE:
        return lambda obj: patch.merge_patch(obj, change)
    return lambda obj: strategic.strategic_merge(resource.schema, obj, change)
