"""Reads OpenAPI v2 in protobuf (gnostic's OpenAPIv2.proto) as far as documents of Kubernetes go."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from walras.kube import openapi_protobuf as tables

Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message's fields: an int, a float, or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        match key & 7:
            case 0:
                yield key >> 3, varint()
            case 1:
                yield key >> 3, struct.unpack_from("<d", data, at)[0]
                at += 8
            case 2:
                size = varint()
                yield key >> 3, data[at : at + size]
                at += size
            case kind:
                raise AssertionError(f"wire type {kind}")


def _text(data: bytes) -> str:
    return data.decode()


def _any(data: bytes) -> Any:
    return yaml.load(dict(fields(data))[2], _LOADER)


def named(data: bytes, read: Callable[[bytes], Any], number: int = 1) -> Object:
    found: Object = {}
    for at, value in fields(data):
        if at == number:
            pair = dict(fields(value))
            assert pair[1].decode() not in found
            found[pair[1].decode()] = read(pair.get(2, b""))
    return found


def texts(data: bytes) -> list[str]:
    return [value.decode() for _, value in fields(data)]


def _one(number: int, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda data: read(dict(fields(data))[number])


def _additional(data: bytes) -> Any:
    found = dict(fields(data))
    return schema(found[1]) if 1 in found else bool(found[2])


def _read(
    data: bytes,
    table: tables._Message,
    one: Mapping[str, Callable[[bytes], Any]],
    many: Mapping[str, Callable[[bytes], Any]],
) -> Object:
    names = {number: name.replace("_ref", "$ref") for name, number in table.numbers.items()}
    found: Object = {}
    for number, value in fields(data):
        if number == table.extensions:
            pair = dict(fields(value))
            found[pair[1].decode()] = _any(pair[2])
            continue
        name = names[number]
        if name in many:
            found.setdefault(name, []).append(many[name](value))
        elif name in one:
            found[name] = one[name](value)
        else:
            found[name] = value.decode() if isinstance(value, bytes) else value
    return found


def schema(data: bytes) -> Object:
    one = {
        "default": _any,
        "example": _any,
        "additionalProperties": _additional,
        "type": texts,
        "items": _one(1, schema),
        "properties": lambda value: named(value, schema),
    }
    return _read(data, tables._SCHEMA, one, {"required": _text, "enum": _any, "allOf": schema})


def parameter(data: bytes) -> Object:
    outer = dict(fields(data))
    if 2 in outer:
        return {"$ref": dict(fields(outer[2]))[1].decode()}
    inner = dict(fields(outer[1]))
    if 1 in inner:
        return _read(inner[1], tables._BODY, {"schema": schema}, {})
    ((place, value),) = fields(inner[2])
    table = {1: tables._HEADER, 4: tables._HEADER}.get(place, tables._QUERY)
    return _read(value, table, {"default": _any}, {"enum": _any})


def response(data: bytes) -> Object:
    found = dict(fields(data))
    return _read(found[1], tables._RESPONSE, {"schema": _one(1, schema)}, {})


def operation(data: bytes) -> Object:
    one = {"responses": lambda value: named(value, response)}
    plain = dict.fromkeys(("tags", "produces", "consumes", "schemes"), _text)
    many = {**plain, "parameters": parameter, "security": lambda value: named(value, texts)}
    return _read(data, tables._OPERATION, one, many)


def path(data: bytes) -> Object:
    verbs = dict.fromkeys(("get", "put", "post", "delete", "options", "head", "patch"), operation)
    return _read(data, tables._PATH, verbs, {"parameters": parameter})


def document(data: bytes) -> Object:
    """The document as JSON would have it, but for what is empty, and types as lists."""
    found: Object = {"paths": {}, "definitions": {}, "security": []}
    for number, value in fields(data):
        match number:
            case 1:
                found["swagger"] = value.decode()
            case 2:
                found["info"] = _read(value, tables._INFO, {}, {})
            case 8:
                found["paths"] |= named(value, path, 2)
            case 9:
                found["definitions"] |= named(value, schema)
            case 12:
                found["security"].append(named(value, texts))
            case 13:
                keys = named(value, _one(2, lambda each: _read(each, tables._KEY, {}, {})))
                found["securityDefinitions"] = keys
    return found
