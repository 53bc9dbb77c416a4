"""Content negotiation: what the Accept header asks for, and objects in that representation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import yaml

from walras.core.errors import NotAcceptable
from walras.kube import tables
from walras.kube.registry import Resource
from walras.kube.scaling import SCALE
from walras.kube.serve.answers import JSON, encode

Object = dict[str, Any]
As = Literal["", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]

YAML: Final = b"application/yaml"
_MEDIA: Final = {
    "application/json": JSON,
    "application/*": JSON,
    "*/*": JSON,
    "application/yaml": YAML,
}
_PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_SERVED: Final = f"application/json, application/yaml, {_PROTOBUF}"
_META_VERSIONS: Final = {
    "Table": ("v1", "v1beta1"),
    "PartialObjectMetadata": ("v1", "v1beta1"),
    "PartialObjectMetadataList": ("v1", "v1beta1"),
}
_DUMPER: Final = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True, slots=True)
class Representation:
    """A media type and, for meta.k8s.io, what the objects are turned into."""

    content_type: bytes = JSON
    as_: As = ""

    def encode(self, value: Any) -> bytes:
        if self.content_type is JSON:
            return encode(value)
        text: bytes = yaml.dump(value, Dumper=_DUMPER, sort_keys=False, encoding="utf-8")
        return text


PLAIN: Final = Representation()


def clauses(accept: str) -> list[tuple[str, dict[str, str]]]:
    """The media types of an Accept header with their parameters, the most wanted first."""
    found = []
    for index, clause in enumerate(accept.split(",")):
        media, *parameters = (part.strip() for part in clause.split(";"))
        options = dict(part.partition("=")[::2] for part in parameters)
        try:
            quality = float(options.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if media and quality > 0:
            found.append((-quality, index, media.lower(), options))
    return [(media, options) for _, _, media, options in sorted(found, key=lambda each: each[:2])]


@lru_cache(maxsize=512)
def representation(accept: str) -> Representation:
    """The first representation of the header that is served. Raises NotAcceptable."""
    if not accept:
        return PLAIN
    for media, options in clauses(accept):
        content_type, kind = _MEDIA.get(media), options.get("as", "")
        if content_type is None:
            continue
        if not kind:
            return Representation(content_type)
        meta = options.get("g") == "meta.k8s.io" and options.get("v") in _META_VERSIONS.get(kind, ())
        if meta:
            return Representation(content_type, kind)  # type: ignore[arg-type]
    raise NotAcceptable(f"only the following media types are accepted: {_SERVED}")


def wanted(resource: Resource, accept: str, *, listed: bool = False) -> Representation:
    """As `representation`, of a resource, which may be `listed`: upstream's routes of built-in types refuse
    media types before anybody looks at their parameters."""
    try:
        return representation(accept)
    except NotAcceptable:
        known = (*_MEDIA, _PROTOBUF)
        if not resource.builtin or any(media in known for media, _ in clauses(accept)):
            raise
        raise unavailable(listed=listed) from None


def unavailable(*, listed: bool = False) -> NotAcceptable:
    """What go-restful says of media types that a route does not have."""
    watched = "".join(f", {media};stream=watch" for media in ("application/json", _PROTOBUF) if listed)
    return NotAcceptable(f"406: Not Acceptable\n\nAvailable representations: {_SERVED}{watched}")


def unwatched() -> NotAcceptable:
    """What upstream says of media types that no event is told in."""
    watched = f"application/json;stream=watch, {_PROTOBUF};stream=watch"
    return NotAcceptable(f"only the following media types are accepted: {watched}")


def one(
    resource: Resource, obj: Object, shape: Representation, include_object: str, now: Callable[[], int]
) -> bytes:
    """A single object, or a Status, as the representation has it."""
    if obj.get("kind") == "Status" and obj.get("apiVersion") == "v1":
        return shape.encode(obj)
    match shape.as_:
        case "Table":
            table = tables.table(resource, [obj], now_ms=now(), include_object=include_object)
            version = obj.get("metadata", {}).get("resourceVersion")
            return shape.encode({**table, "metadata": {"resourceVersion": version} if version else {}})
        case "PartialObjectMetadataList":
            scale = (obj.get("apiVersion"), obj.get("kind")) == tables.SCALE
            of = SCALE if scale and resource.builtin else resource
            raise _other_shape(shape, "not a list", of, "", custom_scale=scale and not resource.builtin)
        case "PartialObjectMetadata":
            return shape.encode(tables.partial(obj))
        case _:
            return shape.encode(obj)


def _other_shape(
    shape: Representation, is_: str, resource: Resource, suffix: str, *, custom_scale: bool = False
) -> NotAcceptable:
    """What upstream says, with its own name of the type, when a list is asked for as one object or so."""
    package = resource.group.partition(".")[0] or "core"
    of = f"{package}.{resource.kind}" if resource.builtin else "unstructured.Unstructured"
    of = "v1.Scale" if custom_scale else of
    return NotAcceptable(f"you requested {shape.as_}, but the requested object is {is_} (*{of}{suffix})")


def bare(item: Object) -> Object:
    """An item of a list of a built-in type, which says of which it is: upstream writes that once."""
    return {name: value for name, value in item.items() if name not in ("apiVersion", "kind")}


def many(
    resource: Resource,
    items: list[Object],
    metadata: Object,
    shape: Representation,
    include_object: str,
    now: Callable[[], int],
) -> bytes:
    """A list as the representation has it."""
    match shape.as_:
        case "Table":
            table = tables.table(resource, items, now_ms=now(), include_object=include_object)
            return shape.encode({**table, "metadata": metadata})
        case "PartialObjectMetadata":
            raise _other_shape(shape, "a list", resource, "List")
        case "PartialObjectMetadataList":
            # Of nothing upstream makes a list that is none.
            shown = [*map(tables.partial, items)] or None
            found = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return shape.encode({**found, "metadata": metadata, "items": shown})
        case _:
            kind, version = resource.list_kind, resource.api_version
            if resource.builtin:
                items = [bare(item) for item in items]
    return shape.encode({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})


def joined(resource: Resource, items: list[bytes], metadata: Object) -> bytes:
    """A list of objects that are JSON already."""
    head = encode({"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata})
    if resource.builtin:
        start = encode({"apiVersion": resource.api_version, "kind": resource.kind})[:-1] + b","
        items = [_bare(item, start) for item in items]
    return b'%b,"items":[%b]}' % (head[:-1], b",".join(items))


def _bare(item: bytes, start: bytes) -> bytes:
    """As `bare`, without decoding what begins as objects are written."""
    if item.startswith(start):
        return b"{" + item[len(start) :]
    return encode(bare(msgspec.json.decode(item)))
