"""Request bodies: read with a limit, decoded from JSON, YAML or protobuf."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import yaml

from walras.core.errors import BadRequest, RequestEntityTooLarge, Timeout, UnsupportedMediaType
from walras.kube.fieldpaths import Path, Told
from walras.kube.options import quoted
from walras.kube.patch import DEPTH_MAX, json_kind
from walras.kube.protobuf import decode as decode_protobuf
from walras.kube.record import encode, parse
from walras.kube.steps import BYTES_MIN

Object = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
# What a step comes to with what it is given; see steps.Aside.
Take = Callable[..., Awaitable[Any]]

BODY_BYTES_MAX: Final = 3 * 2**20
_READ_TIMEOUT_S: Final = 60
# Longer YAML is read beside the loop: a megabyte takes a second.
_YAML_INLINE_BYTES: Final = 16 * 1024
# Each takes a third of a kilobyte while it is read.
YAML_VALUES_MAX: Final = 250_000
_SHOWN_BYTES: Final = 30
_TYPE_META: Final = (
    r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
)
_PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_MEDIA: Final = ("application/json", "application/yaml", _PROTOBUF, "application/x-www-form-urlencoded")
PROTOBUF_MAGIC: Final = b"k8s\x00"
# A quotation mark or a colon that does not look like one.
_ESCAPED: Final = re.compile(rb"\\u00(?:22|3[aA])")
_LONG_NUMBER: Final = re.compile(rb"\d{19}")
# What ends the key of every member of an object, and also stands in some texts.
_KEY_END: Final = re.compile(rb'"[ \t\r\n]*:')


async def read(receive: Receive, declared: bytes | None, limit: int = BODY_BYTES_MAX) -> bytes:
    """The whole body, at most `limit` bytes. Raises RequestEntityTooLarge, Timeout, BadRequest."""
    whole = int(declared) if declared is not None and declared.isdigit() else -1
    if whole > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("the request's body broke off, or is not in whole chunks")
                chunk = message.get("body") or b""
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
                # The server holds clients to the length that they declare: no need to hear that it is over.
                if not message.get("more_body") or size == whole:
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        raise Timeout("the request's body did not arrive in time") from None


def _too_large(limit: int) -> RequestEntityTooLarge:
    return RequestEntityTooLarge(f"Request entity too large: limit is {limit}")


class Body(NamedTuple):
    """A decoded object, and the fields that were given more than once: their paths, of YAML their lines."""

    value: Object
    duplicates: tuple[str, ...] = ()
    repeats: tuple[str, ...] = ()


async def decode(body: bytes, content_type: str, kind: str = "", take: Take | None = None) -> Body:
    """The object in a body, which is to be a `kind`. A large one is read by `take`, beside the event loop.

    Raises BadRequest, UnsupportedMediaType. Duplicate fields are told, not refused: what becomes of them is
    up to the request's fieldValidation.
    """
    media = media_type(content_type)
    read, inline_bytes = _json, BYTES_MIN
    if media == _PROTOBUF or body.startswith(PROTOBUF_MAGIC):
        read = _protobuf
    elif media == "application/yaml":
        read, inline_bytes = _yaml, _YAML_INLINE_BYTES
    if take is None or len(body) < inline_bytes:
        return read(body, kind)
    found: Body = await take(read, body, kind)
    return found


def media_type(content_type: str) -> str:
    """One of those that are read. Raises UnsupportedMediaType."""
    media = content_type.partition(";")[0].strip().lower() or "application/json"
    if media not in _MEDIA:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    return media


def _protobuf(body: bytes, kind: str) -> Body:  # noqa: ARG001 - as the others
    return Body(checked(decode_protobuf(body)))


def _json(body: bytes, kind: str) -> Body:
    try:
        value = parse(body)
    except ValueError as error:
        why = str(error) if body else "unexpected end of JSON input"
        raise _unrecognized(body, kind, f"json parse error: {why}") from None
    if value is None:
        return Body({})
    return Body(_object(value, body, kind), repeated(body, value))


def _object(value: Any, body: bytes, kind: str) -> Object:
    """The value, which is an object. Raises BadRequest."""
    if not isinstance(value, dict):
        why = f"json: cannot unmarshal {json_kind(value)} into Go value of type {_TYPE_META}"
        raise _unrecognized(body, kind, f"json parse error: {why}")
    return value


def repeated(body: bytes, value: Any) -> tuple[str, ...]:
    """Paths of the fields that a JSON body, read as `value`, gives more than once, the first of them.

    Raises BadRequest for a value that cannot be walked and stored.
    """
    if isinstance(value, dict | list) and len(_KEY_END.findall(body)) == _key_ends(body, value):
        # Of fields that are given twice one is left.
        return ()
    # With the objects, so that none of them leaves its id to another one.
    marked: dict[int, tuple[Object, str]] = {}

    def note(pairs: list[tuple[str, Any]]) -> Object:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            marked[id(found)] = found, twice
        return found

    again = json.loads(body, object_pairs_hook=note)
    return _paths(again, marked) if marked else ()


def _unrecognized(body: bytes, kind: str, why: str) -> BadRequest:
    """In the words of upstream, with the beginning of the body."""
    if body.startswith(b"{"):
        start = body[:_SHOWN_BYTES].decode(errors="replace") + (" ..." if len(body) > _SHOWN_BYTES else "")
    else:
        start = body[:_SHOWN_BYTES].hex() + (" ..." if len(body) > _SHOWN_BYTES else "")
    of = f"be of type {kind}" if kind else "be JSON"
    why = f"couldn't get version/kind; {why}"
    return BadRequest(f"the object provided is unrecognized (must {of}): {why} ({start or '<empty>'})")


def _paths(root: Any, marked: Mapping[int, tuple[Object, str]]) -> tuple[str, ...]:
    """Dotted paths of the keys marked by their object's id, the first of them."""
    told = Told()
    stack: list[tuple[Path, Any]] = [(None, root)]
    while stack and not told.is_full:
        path, value = stack.pop()
        if isinstance(value, dict):
            if id(value) in marked:
                told.note((path, marked[id(value)][1]))
            stack += [((path, key), child) for key, child in reversed(value.items())]
        elif isinstance(value, list):
            stack += [((path, index), value[index]) for index in reversed(range(len(value)))]
    return tuple(told.paths)


def checked(value: Any) -> Object:
    """The value, when it is an object that can be walked and stored. Raises BadRequest."""
    if not isinstance(value, dict):
        raise BadRequest("the object provided is unrecognized (must be an object)")
    _keys(value)
    return value


def _key_ends(body: bytes, value: Object | list[Any]) -> int:
    """How often a key would seem to end in the body if it gave each once, or less. Raises as `_keys`."""
    is_deep = body.count(b"{") + body.count(b"[") > DEPTH_MAX
    if is_deep or _ESCAPED.search(body) or _LONG_NUMBER.search(body):
        return _keys(value)
    # Written anew it has the same texts, in which a quotation mark and a colon are what they were.
    return encode(value).count(b'":')


def _keys(value: Object | list[Any]) -> int:
    """How many keys its objects have together. Raises BadRequest for one that cannot be walked and stored."""
    keys, level = 0, [value]
    for _ in range(DEPTH_MAX):
        inner: list[Any] = []
        for node in level:
            if type(node) is dict:
                keys += len(node)
                inner += node.values()
            else:
                inner += node
        level = []
        for node in inner:
            kind = type(node)
            if kind is str:
                continue
            if kind is dict or kind is list:
                level.append(node)
            elif kind is int and not -(2**63) <= node < 2**64:
                raise BadRequest("the object provided holds an integer that 64 bits cannot hold")
        if not level:
            return keys
    raise BadRequest(f"the object provided is nested deeper than {DEPTH_MAX} levels")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes reads it: dates stay text, keys become text, y and n are booleans.

    Repeated keys are noted.
    """

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.repeats: list[str] = []


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Object:
    found: Object = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable) or isinstance(key, tuple):
            raise yaml.constructor.ConstructorError(None, None, "a key is not a scalar", key_node.start_mark)
        text = key if isinstance(key, str) else json.dumps(key)
        if text in found:
            line = value_node.start_mark.line + 1
            shown = quoted(key) if isinstance(key, str) else text
            loader.repeats.append(f"line {line}: key {shown} already set in map")
        found[text] = loader.construct_object(value_node, deep=True)
    return found


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    """A number, which on its way through JSON becomes an integer where it is whole."""
    value: float = loader.construct_yaml_float(node)
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":timestamp", ":merge"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), list("yYnN"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$", re.ASCII),
    list("+-.0123456789"),
)


def _yaml(body: bytes, kind: str) -> Body:
    try:
        # An alias may stand for itself or for a billion others; no client needs one.
        depth = values = 0
        for event in yaml.parse(body, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise BadRequest("YAML aliases are not accepted")
            values += isinstance(event, yaml.NodeEvent)
            if values > YAML_VALUES_MAX:
                raise RequestEntityTooLarge(f"YAML has at most {YAML_VALUES_MAX} values and keys")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_MAX:
                raise BadRequest(f"the object provided is nested deeper than {DEPTH_MAX} levels")
        loader = _Loader(body)
        value = loader.get_single_data()
        # By way of JSON, so that YAML's own types (!!binary, !!set) become what JSON has.
        whole = msgspec.json.decode(msgspec.json.encode(value))
    except (yaml.YAMLError, UnicodeError, ValueError, TypeError, OverflowError) as error:
        raise BadRequest(f"error converting YAML to JSON: {error}") from None
    return Body({} if whole is None else checked(_object(whole, body, kind)), repeats=tuple(loader.repeats))
