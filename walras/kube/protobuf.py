"""Request bodies in Kubernetes' protobuf encoding, read into the objects that JSON would have given.

client-go's typed clients send built-in types so. The messages are a table made by scripts/generate-protobuf
from upstream's own definitions; the result has JSON's names and leaves out what Go's JSON encoder leaves out.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from struct import unpack
from typing import Any, Final, NamedTuple

import msgspec

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest
from walras.kube.record import parse

Object = dict[str, Any]

MAGIC: Final = b"k8s\x00"
CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
DEPTH_MAX: Final = 100

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    name: str  # "" where the message's fields belong to the outer object
    kind: str
    container: str  # "[]", "{}" or ""
    omit_zero: bool


class _Table(NamedTuple):
    kinds: Mapping[str, str]
    messages: Mapping[str, Mapping[int, _Field]]


def _field(name: str, kind: str, omit: str = "") -> _Field:
    container = kind[:2] if kind[:2] in ("[]", "{}") else ""
    return _Field(name, kind.removeprefix(container), container, bool(omit))


@cache
def _table() -> _Table:
    raw = msgspec.json.decode(files("walras.kube").joinpath("protobuf_messages.json").read_bytes())
    messages = {
        name: {int(number): _field(*row) for number, row in rows.items()}
        for name, rows in raw["messages"].items()
    }
    return _Table(raw["kinds"], messages)


def decode(body: bytes) -> Object:
    """The object of a body that starts with MAGIC, with its apiVersion and kind.

    Raises BadRequest when it is not such a body, is damaged, or is of a type that is not in the table.
    """
    if not body.startswith(MAGIC):
        raise BadRequest(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        unknown = _read("runtime.Unknown", memoryview(body)[len(MAGIC) :], 0, raw_bytes=True)
        api_version, kind = unknown.get("apiVersion", ""), unknown.get("kind", "")
        message = _message(api_version, kind)
        if unknown.get("contentEncoding"):
            raise BadRequest(f"unsupported content encoding {unknown['contentEncoding']!r}")
        obj = _read(message, memoryview(unknown.get("raw", b"")), 0)
    except _Damaged as damaged:
        raise BadRequest(f"unable to decode protobuf: {damaged}") from None
    return {"apiVersion": api_version, "kind": kind, **obj}


def _message(api_version: str, kind: str) -> str:
    kinds = _table().kinds
    message = kinds.get(f"{api_version}/{kind}") or kinds.get(kind)
    if message is None:
        raise BadRequest(f'no kind "{kind}" is registered for version "{api_version}" in protobuf')
    return message


class _Damaged(ValueError):
    """The bytes are not what the encoding says they are."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise _Damaged("unexpected EOF")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise _Damaged("integer overflow")


def _parts(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and raw value of each part of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Damaged("illegal tag 0")
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif wire in (_FIXED64, _FIXED32):
                size = 8 if wire == _FIXED64 else 4
            else:
                raise _Damaged(f"illegal wireType {wire}")
            if size > len(data) - at:
                raise _Damaged("unexpected EOF")
            value = data[at : at + size]
            at += size
        yield number, wire, value


def _read(message: str, data: memoryview, depth: int, *, raw_bytes: bool = False) -> Object:
    """The fields of a message by their JSON names."""
    if depth > DEPTH_MAX:
        raise _Damaged("messages are nested too deeply")
    fields = _table().messages[message]
    obj: Object = {}
    for number, wire, value in _parts(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.container == "[]":
            items = obj.setdefault(field.name, [])
            if wire == _BYTES and field.kind in _NUMBERS:
                items += _packed(field.kind, value)
            else:
                items.append(_value(field.kind, wire, value, depth))
        elif field.container == "{}":
            key, child = _entry(field.kind, value, wire, depth)
            obj.setdefault(field.name, {})[key] = child
        elif field.name == "":
            obj.update(_expect_object(_value(field.kind, wire, value, depth)))
        elif raw_bytes and field.kind == "bytes":
            obj[field.name] = bytes(_expect(wire, _BYTES, value))
        else:
            child = _value(field.kind, wire, value, depth)
            if child is None or (field.omit_zero and child in ("", 0, False)):
                obj.pop(field.name, None)
            else:
                obj[field.name] = child
    return obj


def _expect(wire: int, wanted: int, value: Any) -> Any:
    if wire != wanted:
        raise _Damaged(f"wrong wireType {wire}")
    return value


def _expect_object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _entry(kind: str, data: Any, wire: int, depth: int) -> tuple[str, Any]:
    key: str = ""
    child: Any = _EMPTY.get(kind, "")
    for number, inner, value in _parts(_expect(wire, _BYTES, data)):
        if number == 1:
            key = _text(inner, value)
        elif number == 2:
            child = _value(kind, inner, value, depth)
    return key, child


def _text(wire: int, value: Any) -> str:
    try:
        return bytes(_expect(wire, _BYTES, value)).decode()
    except UnicodeDecodeError:
        raise _Damaged("a string is not UTF-8") from None


def _integer(bits: int) -> Callable[[int, Any], int]:
    def read(wire: int, value: Any) -> int:
        number: int = _expect(wire, _VARINT, value) & ((1 << bits) - 1)
        return number - (1 << bits) if number >> (bits - 1) else number

    return read


_SCALARS: Final[Mapping[str, Callable[[int, Any], Any]]] = {
    "string": _text,
    "bytes": lambda wire, value: b64encode(_expect(wire, _BYTES, value)).decode(),
    "bool": lambda wire, value: bool(_expect(wire, _VARINT, value)),
    "int32": _integer(32),
    "int64": _integer(64),
    "uint32": lambda wire, value: _expect(wire, _VARINT, value) & 0xFFFFFFFF,
    "uint64": lambda wire, value: _expect(wire, _VARINT, value),
    "double": lambda wire, value: unpack("<d", _expect(wire, _FIXED64, value))[0],
    "float": lambda wire, value: unpack("<f", _expect(wire, _FIXED32, value))[0],
}
_NUMBERS: Final = _SCALARS.keys() - {"string", "bytes"}
# A map entry may leave its value out where it is empty.
_EMPTY: Final[Mapping[str, Any]] = {"api.resource.Quantity": "0", **dict.fromkeys(_NUMBERS, 0)}


def _packed(kind: str, data: memoryview) -> Iterator[Any]:
    at = 0
    while at < len(data):
        if kind in ("double", "float"):
            size, wire = (8, _FIXED64) if kind == "double" else (4, _FIXED32)
            if size > len(data) - at:
                raise _Damaged("unexpected EOF")
            yield _SCALARS[kind](wire, data[at : at + size])
            at += size
        else:
            value, at = _varint(data, at)
            yield _SCALARS[kind](_VARINT, value)


def _value(kind: str, wire: int, value: Any, depth: int) -> Any:
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar(wire, value)
    data: memoryview = _expect(wire, _BYTES, value)
    raw = kind in _RAW
    obj = _read(kind, data, depth + 1, raw_bytes=raw)
    special = _SPECIAL.get(kind)
    return special(obj) if special else obj


def _time(obj: Object) -> str | None:
    """A `metav1.Time`; none where it is Go's zero time, which JSON writes as null."""
    return _moment(obj, "") if obj else None


def _micro_time(obj: Object) -> str | None:
    return _moment(obj, f".{obj.get('nanos', 0) // 1000:06d}") if obj else None


def _moment(obj: Object, fraction: str) -> str:
    try:
        return rfc3339(obj.get("seconds", 0) * 1000).removesuffix("Z") + fraction + "Z"
    except (ValueError, OverflowError, OSError):
        raise _Damaged("a time is out of range") from None


def _json(obj: Object) -> Any:
    """What an embedded JSON document says."""
    text = obj.get("raw", obj.get("Raw", b""))
    try:
        return parse(text) if text else None
    except ValueError:
        raise _Damaged("embedded JSON cannot be read") from None


def _int_or_string(obj: Object) -> int | str:
    if obj.get("type"):
        return str(obj.get("strVal", ""))
    return int(obj.get("intVal", 0))


def _schema_or_array(obj: Object) -> Any:
    return obj["jSONSchemas"] if obj.get("jSONSchemas") else obj.get("schema")


def _schema_or_bool(obj: Object) -> Any:
    return obj["schema"] if obj.get("schema") is not None else bool(obj.get("allows"))


def _schema_or_strings(obj: Object) -> Any:
    return obj["property"] if obj.get("property") else obj.get("schema")


def _items(obj: Object) -> list[Any]:
    return list(obj.get("items") or ())


_RAW: Final = frozenset(("runtime.RawExtension", "meta.v1.FieldsV1", "apiextensions.v1.JSON"))
# Messages that JSON writes otherwise than as an object of their fields.
_SPECIAL: Final[Mapping[str, Callable[[Object], Any]]] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "api.resource.Quantity": lambda obj: obj.get("string", "0"),
    "util.intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _json,
    "meta.v1.FieldsV1": _json,
    "apiextensions.v1.JSON": _json,
    "apiextensions.v1.JSONSchemaPropsOrArray": _schema_or_array,
    "apiextensions.v1.JSONSchemaPropsOrBool": _schema_or_bool,
    "apiextensions.v1.JSONSchemaPropsOrStringArray": _schema_or_strings,
    "authorization.v1.ExtraValue": _items,
    "authentication.v1.ExtraValue": _items,
}
