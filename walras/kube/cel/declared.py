"""Types of CEL for schemas (k8s.io/apiserver/pkg/cel/common, SchemaDeclType), with the sizes they allow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from walras.kube.cel.types import (
    BOOL,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    TIMESTAMP,
    Field,
    Type,
    list_of,
    map_of,
)
from walras.kube.schema import INT_OR_STRING, Schema

REQUEST_BYTES_MAX: Final = 3 * 1024 * 1024
_KEYWORDS: Final = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return"
)
_ESCAPES: Final = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LENGTHS: Final = {"duration": 32, "date": 12, "date-time": 32}
# Fields of metadata that rules of custom resources see.
_NAMES: Final = ("name", "generateName")


def escaped(name: str) -> str | None:
    """A field's name as rules write it; None where they cannot."""
    if _KEYWORDS.fullmatch(name):
        return f"__{name}__"
    for plain, escape in _ESCAPES:
        name = name.replace(plain, escape)
    return name if _NAME.fullmatch(name) else None


class _Fields(Mapping[str, Field]):
    """An object's fields, each made when first asked for: built-in types refer to themselves."""

    def __init__(self, schema: Schema, path: str, *, root: bool) -> None:
        self._schema = schema
        self._path = path
        self._root = root
        self._keys = {name: key for key in schema.properties if (name := escaped(key)) is not None}
        if root:
            self._keys |= {"apiVersion": "apiVersion", "kind": "kind", "metadata": "metadata"}
        self._made: dict[str, Field | None] = {}

    def _field(self, name: str) -> Field | None:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Field | None:
        key = self._keys.get(name)
        if key is None:
            return None
        if self._root and key == "metadata":
            return Field(_metadata(self._path), key)
        if self._root and key in ("apiVersion", "kind"):
            return Field(_text({}), key)
        node = self._schema.child(key)
        kind = None if node is None else type_of(node, f"{self._path}.{key}")
        return None if kind is None else Field(kind, key)

    def __getitem__(self, name: str) -> Field:
        found = self._field(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._keys if self._field(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _metadata(path: str) -> Type:
    return Type(f"{path}.metadata", (), {name: Field(_text({}), name) for name in _NAMES})


def _text(raw: Mapping[str, Any]) -> Type:
    if raw.get("maxLength") is not None:
        # Lengths are of characters, costs of bytes.
        most = max(0, raw["maxLength"]) * 4
    elif raw.get("enum"):
        most = max(len(str(each)) for each in raw["enum"])
    else:
        most = _LENGTHS.get(str(raw.get("format")), REQUEST_BYTES_MAX - 2)
    return Type("string", (), None, most)


def type_of(schema: Schema, path: str = "selfType", *, root: bool = False) -> Type | None:
    """The type of what a schema describes; None where rules cannot see it at all."""
    raw = schema.raw
    if schema.int_or_string or schema.ref == INT_OR_STRING:
        most = raw["maxLength"] if raw.get("maxLength") is not None else REQUEST_BYTES_MAX - 2
        return Type("dyn", (), None, max(0, most))
    match schema.types:
        case ("object",) | ():
            return _object(schema, path, root or bool(raw.get("x-kubernetes-embedded-resource")))
        case ("array",):
            return _array(schema, path)
        case ("string",):
            return _string(raw)
        case ("boolean",):
            return BOOL
        case ("number",):
            return DOUBLE
        case ("integer",):
            return INT
    return DYN


def _string(raw: Mapping[str, Any]) -> Type:
    match raw.get("format"):
        case "byte":
            return Type("bytes", (), None, raw.get("maxLength", REQUEST_BYTES_MAX - 2))
        case "duration":
            return DURATION
        case "date" | "date-time":
            return TIMESTAMP
    return _text(raw)


def _array(schema: Schema, path: str) -> Type | None:
    if schema.items is None:
        return None
    item = type_of(schema.items, f"{path}.@idx")
    if item is None:
        return None
    most = schema.raw.get("maxItems")
    if most is None:
        most = (REQUEST_BYTES_MAX - 2) // (least_bytes(schema.items) + 1)
    kind = schema.list_type
    compares = ("set",) if kind == "set" else ("map", *schema.list_map_keys) if kind == "map" else ()
    return list_of(item, max(0, most), compares)


def _object(schema: Schema, path: str, root: bool) -> Type | None:
    raw = schema.raw
    extra = raw.get("additionalProperties")
    if isinstance(extra, Mapping) and schema.values is not None:
        value = type_of(schema.values, f"{path}.@elem")
        if value is None:
            return None
        most = raw.get("maxProperties")
        if most is None:
            most = (REQUEST_BYTES_MAX - 2) // (least_bytes(schema.values) + 6)
        return map_of(Type("string", (), None, REQUEST_BYTES_MAX - 2), value, max(0, most))
    if not schema.types and not root:
        # Whatever may be in it is unknown, and not for rules to see.
        return None
    return Type(path, (), _Fields(schema, path, root=root))


def least_bytes(schema: Schema, depth: int = 0) -> int:
    """The fewest bytes that a value takes as JSON."""
    if schema.int_or_string:
        return 1
    match schema.types:
        case ("string",):
            return {"duration": 3, "date": 12, "date-time": 21}.get(str(schema.raw.get("format")), 2)
        case ("boolean",):
            return 4
        case ("integer",) | ("number",):
            return 1
        case ("object",) if depth < 32:
            total = 2
            for name in schema.required:
                node = schema.child(name)
                if node is not None and "default" not in node.raw and name in schema.properties:
                    total += len(name) + 4 + least_bytes(node, depth + 1)
            return total
    return 2
