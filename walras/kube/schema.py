"""A view of an OpenAPI schema, of a built-in type or of a CRD, for everything that walks objects by type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

DEFINITIONS_VERSION: Final = "1.36.0"

RawSchema = Mapping[str, Any]


@cache
def definitions() -> Mapping[str, RawSchema]:
    """Upstream's definitions of every built-in type, by name such as "io.k8s.api.core.v1.Pod"."""
    # Only for its data: to import the package takes a quarter of a second.
    package = find_spec("kubernetes_validate")
    assert package is not None and package.submodule_search_locations, "kubernetes-validate is not installed"
    folder = Path(package.submodule_search_locations[0])
    path = f"kubernetes-json-schema/v{DEFINITIONS_VERSION}-local/_definitions.json"
    raw = msgspec.json.decode((folder / path).read_bytes())
    return raw["$defs"]  # type: ignore[no-any-return]


_REF: Final = "#/$defs/"
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_MICRO_TIME: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
JSON_SCHEMA: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
# What a definition says of these is that they may be anything; they have decoders of their own.
_SPECIAL: Final = {
    _QUANTITY: "quantity", INT_OR_STRING: "int-or-string", _MICRO_TIME: "microtime",
    f"{JSON_SCHEMA}OrBool": "schema-or-bool", f"{JSON_SCHEMA}OrArray": "schema-or-list",
    f"{JSON_SCHEMA}OrStringArray": "schema-or-strings",
}  # fmt: skip
_SCALARS: Final = frozenset(("string", "integer", "boolean", "number"))
# Nodes behind a reference, by the identity of the referring part of the definitions, which live for ever.
# Types refer to each other in circles, so a node of its own for each path would have no end.
_SHARED: Final[dict[int, Schema]] = {}


class Schema:
    """One node of a schema. References are followed when a node is made, so `raw` is never a `$ref`.

    Nodes below are made once, on the first walk, and shared.
    """

    __slots__ = ("_children", "_form", "_items", "_scalars", "_values", "raw", "ref", "ruled", "rules")

    def __init__(self, raw: RawSchema, ref: str = "") -> None:
        outer = raw
        while "$ref" in raw:
            ref = raw["$ref"].removeprefix(_REF)
            raw = definitions()[ref]
        # Merge keys, list types and defaults stand beside the reference, the shape behind it.
        extras = {key: value for key, value in outer.items() if key != "$ref"} if outer is not raw else {}
        self.raw: RawSchema = {**raw, **extras} if extras else raw
        self.ref = ref
        self._children: dict[str, Schema] = {}
        self._items: Schema | None = None
        self._values: Schema | None = None
        self._form = ""
        self._scalars: frozenset[tuple[bool, Any]] | None = None
        # Kept by the CEL rules of custom resources: whether there are any here or below, and those here.
        self.ruled: bool | None = None
        self.rules: Any = None

    @classmethod
    def named(cls, name: str) -> Schema:
        """The definition of a built-in type. Raises KeyError."""
        return _named(name)

    @property
    def types(self) -> tuple[str, ...]:
        """The JSON types allowed, without "null"; empty when any is."""
        declared = self.raw.get("type", ())
        every = (declared,) if isinstance(declared, str) else tuple(declared)
        return tuple(kind for kind in every if kind != "null")

    @property
    def scalars(self) -> frozenset[tuple[bool, Any]]:
        """Those of the enum, each with whether it is a boolean, which Python takes for a number."""
        if self._scalars is None:
            allowed = (each for each in self.raw.get("enum", ()) if not isinstance(each, dict | list))
            self._scalars = frozenset((isinstance(each, bool), each) for each in allowed)
        return self._scalars

    @property
    def form(self) -> str:
        """How a value is decoded: "struct", "map", "list", "string", "integer", "boolean", "number",
        "bytes", "time", "microtime", "quantity", "int-or-string", "schema-or-bool", "schema-or-list" or
        "schema-or-strings", or "any" for what is kept as it is."""
        if not self._form:
            self._form = self._find_form()
        return self._form

    def _find_form(self) -> str:
        if self.ref in _SPECIAL:
            return _SPECIAL[self.ref]
        if self.int_or_string:
            return "int-or-string"
        kind = self.types[0] if len(self.types) == 1 else ""
        if kind == "string":
            # Only in built-in types do these formats change the value; elsewhere they are checked.
            formats = {"byte": "bytes", "date-time": "time"}
            return formats.get(str(self.raw.get("format")), "string")
        if kind in _SCALARS:
            return kind
        if kind == "array":
            return "list"
        if self.properties:
            return "struct"
        return "map" if self.is_map else "any"

    @property
    def properties(self) -> Mapping[str, RawSchema]:
        return self.raw.get("properties") or {}

    def child(self, name: str) -> Schema | None:
        """The field's schema, or the value schema of a map; None when the field is unknown."""
        node = self._children.get(name)
        if node is not None:
            return node
        known = self.properties.get(name)
        if known is not None:
            node = self._children[name] = _node(known)
            return node
        return self.values

    @property
    def values(self) -> Schema | None:
        """The schema of what is under a key that no field declares; None when there must be none."""
        if self._values is None:
            extra = self.raw.get("additionalProperties")
            if isinstance(extra, Mapping):
                self._values = _node(extra)
            elif extra is True or self.preserves_unknown:
                self._values = ANYTHING
        return self._values

    @property
    def items(self) -> Schema | None:
        if self._items is None:
            raw = self.raw.get("items")
            self._items = _node(raw) if isinstance(raw, Mapping) else None
        return self._items

    @property
    def is_map(self) -> bool:
        """A free-form map such as labels: keys are data, not fields."""
        return not self.properties and isinstance(self.raw.get("additionalProperties"), Mapping)

    def declares(self, name: str) -> bool:
        """Whether the schema says what the field is, by its name or as it says of all."""
        return name in self.properties or isinstance(self.raw.get("additionalProperties"), Mapping)

    @property
    def preserves_unknown(self) -> bool:
        return bool(self.raw.get("x-kubernetes-preserve-unknown-fields"))

    @property
    def int_or_string(self) -> bool:
        return bool(self.raw.get("x-kubernetes-int-or-string")) or self.raw.get("format") == "int-or-string"

    @property
    def patch_merge_key(self) -> str:
        return str(self.raw.get("x-kubernetes-patch-merge-key", ""))

    @property
    def patch_strategies(self) -> tuple[str, ...]:
        """Of "merge", "replace", "retainKeys"."""
        return (
            tuple(str(self.raw.get("x-kubernetes-patch-strategy", "")).split(","))
            if self.raw.get("x-kubernetes-patch-strategy")
            else ()
        )

    @property
    def list_type(self) -> str:
        """ "atomic" (the default), "set" or "map"."""
        return str(self.raw.get("x-kubernetes-list-type", "atomic"))

    @property
    def list_map_keys(self) -> tuple[str, ...]:
        return tuple(self.raw.get("x-kubernetes-list-map-keys", ()))

    @property
    def map_type(self) -> str:
        """ "granular" (the default) or "atomic"."""
        return str(self.raw.get("x-kubernetes-map-type", "granular"))

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.raw.get("required") or ())


ANYTHING: Final = Schema({})


@cache
def _named(name: str) -> Schema:
    return Schema(definitions()[name], name)


def _node(raw: RawSchema) -> Schema:
    if "$ref" not in raw:
        return Schema(raw)
    if len(raw) == 1:
        return _named(raw["$ref"].removeprefix(_REF))
    shared = _SHARED.get(id(raw))
    if shared is None:
        shared = _SHARED[id(raw)] = Schema(raw)
    return shared
