"""A view of an OpenAPI schema, of a built-in type or of a CRD, for everything that walks objects by type."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec

DEFINITIONS_VERSION: Final = "1.37.0"

RawSchema = Mapping[str, Any]


@cache
def definitions() -> Mapping[str, RawSchema]:
    """Upstream's definitions of every built-in type, by name such as "io.k8s.api.core.v1.Pod"."""
    path = f"kubernetes-json-schema/v{DEFINITIONS_VERSION}-local/_definitions.json"
    raw = msgspec.json.decode(files("kubernetes_validate").joinpath(path).read_bytes())
    return raw["$defs"]  # type: ignore[no-any-return]


_REF: Final = "#/$defs/"


class Schema:
    """One node of a schema. References are followed when a node is made, so `raw` is never a `$ref`."""

    __slots__ = ("raw", "ref")

    def __init__(self, raw: RawSchema, ref: str = "") -> None:
        outer = raw
        while "$ref" in raw:
            ref = raw["$ref"].removeprefix(_REF)
            raw = definitions()[ref]
        # Merge keys, list types and defaults stand beside the reference, the shape behind it.
        extras = {key: value for key, value in outer.items() if key != "$ref"} if outer is not raw else {}
        self.raw: RawSchema = {**raw, **extras} if extras else raw
        self.ref = ref

    @classmethod
    def named(cls, name: str) -> Schema:
        """The definition of a built-in type. Raises KeyError."""
        return cls(definitions()[name], name)

    @property
    def types(self) -> tuple[str, ...]:
        """The JSON types allowed, without "null"; empty when any is."""
        declared = self.raw.get("type", ())
        every = (declared,) if isinstance(declared, str) else tuple(declared)
        return tuple(kind for kind in every if kind != "null")

    @property
    def properties(self) -> Mapping[str, RawSchema]:
        return self.raw.get("properties") or {}

    def child(self, name: str) -> Schema | None:
        """The field's schema, or the value schema of a map; None when the field is unknown."""
        known = self.properties.get(name)
        if known is not None:
            return Schema(known)
        extra = self.raw.get("additionalProperties")
        if isinstance(extra, Mapping):
            return Schema(extra)
        return Schema({}) if extra is True or self.preserves_unknown else None

    @property
    def items(self) -> Schema | None:
        raw = self.raw.get("items")
        return Schema(raw) if isinstance(raw, Mapping) else None

    @property
    def is_map(self) -> bool:
        """A free-form map such as labels: keys are data, not fields."""
        return not self.properties and isinstance(self.raw.get("additionalProperties"), Mapping)

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
