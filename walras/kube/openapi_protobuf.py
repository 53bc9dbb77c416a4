"""OpenAPI v2 as protobuf: the messages of gnostic's OpenAPIv2.proto, made from the JSON of documents.

Values of any type are text in YAML there; JSON is YAML, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

Object = Mapping[str, Any]
_Encode = Callable[[Any], bytes]

# What clients call it; the last is how it is answered.
MEDIA_TYPES: Final = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
_VARINT: Final = 0
_DOUBLE: Final = 1
_BYTES: Final = 2
_PATHS: Final = 8
_DEFINITIONS: Final = 9
# Of the field "in" of a parameter, which of four messages it is.
_PLACES: Final = {"header": 1, "formData": 2, "query": 3, "path": 4}


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _field(number: int, content: bytes) -> bytes:
    """A field that has a length: text, or a message."""
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _text(value: Any) -> bytes:
    return str(value).encode()


def _any(value: Any) -> bytes:
    return _field(2, msgspec.json.encode(value) + b"\n")


def named(values: Object, encode: _Encode, number: int = 1) -> bytes:
    """A map as repeated pairs of name and value."""
    return b"".join(
        _field(number, _field(1, name.encode()) + _field(2, encode(value))) for name, value in values.items()
    )


class _Message:
    """What a JSON object's fields are in a message, by number; those that begin with x- are extensions."""

    def __init__(self, extensions: int = 0, **numbers: int) -> None:
        self.numbers = numbers
        self.extensions = extensions
        # How fields are encoded that are neither text nor numbers, and those that may be given many times.
        self.messages: dict[str, _Encode] = {}
        self.repeated: dict[str, _Encode] = {}

    def __call__(self, value: Object) -> bytes:
        found: list[bytes] = []
        for name, each in value.items():
            number = self.numbers.get(name.replace("$", "_"))
            if number is not None:
                found.append(self._encoded(name, number, each))
            elif name.startswith("x-") and self.extensions:
                found.append(_field(self.extensions, _field(1, name.encode()) + _field(2, _any(each))))
        return b"".join(found)

    def _encoded(self, name: str, number: int, value: Any) -> bytes:
        if name in self.messages:
            return _field(number, self.messages[name](value))
        if name in self.repeated:
            return b"".join(_field(number, self.repeated[name](each)) for each in value)
        if isinstance(value, bool):
            return _varint(number << 3 | _VARINT) + b"\1" if value else b""
        if name in ("maximum", "minimum", "multipleOf"):
            return _varint(number << 3 | _DOUBLE) + struct.pack("<d", value)
        if isinstance(value, int):
            return _varint(number << 3 | _VARINT) + _varint(value) if value else b""
        return _field(number, _text(value)) if value else b""


_SCHEMA: Final = _Message(
    31, _ref=1, format=2, title=3, description=4, default=5, multipleOf=6, maximum=7, exclusiveMaximum=8,
    minimum=9, exclusiveMinimum=10, maxLength=11, minLength=12, pattern=13, maxItems=14, minItems=15,
    uniqueItems=16, maxProperties=17, minProperties=18, required=19, enum=20, additionalProperties=21,
    type=22, items=23, allOf=24, properties=25, discriminator=26, readOnly=27, externalDocs=29, example=30,
)  # fmt: skip
_DOCS: Final = _Message(3, description=1, url=2)
_OPERATION: Final = _Message(
    13, tags=1, summary=2, description=3, externalDocs=4, operationId=5, produces=6, consumes=7, parameters=8,
    responses=9, schemes=10, deprecated=11, security=12,
)  # fmt: skip
_BODY: Final = _Message(6, description=1, name=2, required=4, schema=5, **{"in": 3})
# Those of headers and of paths are numbered alike, and so are those of queries and of forms.
_HEADER: Final = _Message(
    22, required=1, description=3, name=4, type=5, format=6, default=9, maximum=10, minimum=12, maxLength=14,
    minLength=15, pattern=16, uniqueItems=19, enum=20, **{"in": 2},
)  # fmt: skip
_QUERY: Final = _Message(
    23, required=1, description=3, name=4, allowEmptyValue=5, type=6, format=7, default=10, maximum=11,
    minimum=13, maxLength=15, minLength=16, pattern=17, uniqueItems=20, enum=21, **{"in": 2},
)  # fmt: skip
_RESPONSE: Final = _Message(5, description=1, schema=2)
_PATH: Final = _Message(10, get=2, put=3, post=4, delete=5, options=6, head=7, patch=8, parameters=9)
_INFO: Final = _Message(7, title=1, version=2, description=3)
_KEY: Final = _Message(5, type=1, name=2, description=4, **{"in": 3})


def _additional(value: Any) -> bytes:
    if isinstance(value, bool):
        # One of two, so what is false is written as well.
        return _varint(2 << 3 | _VARINT) + bytes((value,))
    return _field(1, _SCHEMA(value))


def _texts(value: Any) -> bytes:
    return b"".join(_field(1, _text(each)) for each in ([value] if isinstance(value, str) else value))


def _parameter(value: Object) -> bytes:
    if "$ref" in value:
        return _field(2, _field(1, _text(value["$ref"])))
    place = value.get("in")
    if place == "body":
        return _field(1, _field(1, _BODY(value)))
    number = _PLACES[str(place)]
    message = _HEADER if place in ("header", "path") else _QUERY
    return _field(1, _field(2, _field(number, message(value))))


def _security(value: Object) -> bytes:
    return named(value, _texts)


_SCHEMA.messages |= {
    "default": _any, "example": _any, "additionalProperties": _additional, "type": _texts,
    "items": lambda value: _field(1, _SCHEMA(value)), "properties": lambda value: named(value, _SCHEMA),
    "externalDocs": _DOCS,
}  # fmt: skip
_SCHEMA.repeated |= {"required": _text, "enum": _any, "allOf": _SCHEMA}
_OPERATION.messages |= {
    "externalDocs": _DOCS,
    "responses": lambda value: named(value, lambda each: _field(1, _RESPONSE(each))),
}
_OPERATION.repeated |= {
    "tags": _text, "produces": _text, "consumes": _text, "schemes": _text, "parameters": _parameter,
    "security": _security,
}  # fmt: skip
_BODY.messages |= {"schema": _SCHEMA}
for _parameters in (_HEADER, _QUERY):
    _parameters.messages |= {"default": _any}
    _parameters.repeated |= {"enum": _any}
_RESPONSE.messages |= {"schema": lambda value: _field(1, _SCHEMA(value))}
_PATH.messages |= dict.fromkeys(("get", "put", "post", "delete", "options", "head", "patch"), _OPERATION)
_PATH.repeated |= {"parameters": _parameter}


def paths(value: Object) -> bytes:
    """The inside of a Paths message; several, one after another, are one."""
    return named(value, _PATH, 2)


def definitions(value: Object) -> bytes:
    """The inside of a Definitions message; several, one after another, are one."""
    return named(value, _SCHEMA)


def document(info: Object, keys: Object, security: list[Object], paths: bytes, definitions: bytes) -> bytes:
    """A Document of what the functions above gave; `keys` are its securityDefinitions, all API keys."""
    head = _field(1, b"2.0") + _field(2, _INFO(info))
    tail = b"".join(_field(12, _security(each)) for each in security)
    tail += _field(13, named(keys, lambda value: _field(2, _KEY(value))))
    return head + _field(_PATHS, paths) + _field(_DEFINITIONS, definitions) + tail
