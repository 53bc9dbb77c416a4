"""How Kubernetes' Go structs are written as JSON: what they leave out when it is zero, what is always there.

The table is made from upstream's types by scripts/generate-structs; OpenAPI does not say it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import msgspec

from walras.kube.schema import Schema


class Struct(NamedTuple):
    """One struct: fields left out when zero, structs held by value, and zero values that are written."""

    dropped: frozenset[str] = frozenset()
    structs: tuple[str, ...] = ()
    zeros: tuple[tuple[str, Any], ...] = ()


_PLAIN: Final = Struct()


class _Row(msgspec.Struct):
    dropped: frozenset[str] = frozenset()
    structs: tuple[str, ...] = ()
    zeros: dict[str, Any] = {}


@cache
def _table() -> dict[str, Struct]:
    raw = files("walras.kube").joinpath("structs.json").read_bytes()
    rows = msgspec.json.decode(raw, type=dict[str, _Row])
    return {name: Struct(row.dropped, row.structs, tuple(row.zeros.items())) for name, row in rows.items()}


def of(name: str) -> Struct:
    """The struct of a definition such as "io.k8s.api.core.v1.Pod"; one without any rule if it is none."""
    return _table().get(name, _PLAIN)


def completed(schema: Schema, value: Any) -> Any:
    """The value with what Go always writes: empty structs, and zero values that are not `omitempty`.

    The value itself is left as it is; what has nothing to be added is shared with it.
    """
    form = schema.form
    if form == "struct" and isinstance(value, dict):
        struct, result = of(schema.ref), dict(value)
        for name in struct.structs:
            if result.get(name) is None and schema.child(name) is not None:
                result[name] = {}
        for name, zero in struct.zeros:
            # An empty list comes back from upstream's store as none.
            if name not in result or (zero is None and result[name] in ([], {})):
                result[name] = zero
        for name in _ways(schema.ref):
            node = schema.child(name)
            if name in result and node is not None:
                result[name] = completed(node, result[name])
        return result
    if form == "list" and schema.items is not None and isinstance(value, list):
        return [completed(schema.items, item) for item in value]
    if form == "map" and schema.values is not None and isinstance(value, dict):
        return {key: completed(schema.values, item) for key, item in value.items()}
    return value


@cache
def _ways(name: str) -> tuple[str, ...]:
    """The fields below which there is something to add."""
    return _find_ways(name, frozenset()) if name else ()


def _find_ways(name: str, above: frozenset[str]) -> tuple[str, ...]:
    schema = Schema.named(name)
    above |= {name}
    return tuple(field for field in schema.properties if _leads(schema.child(field), above))


def _leads(node: Schema | None, above: frozenset[str]) -> bool:
    while node is not None and node.form in ("list", "map"):
        node = node.items if node.form == "list" else node.values
    if node is None or node.form != "struct" or not node.ref:
        return False
    struct = of(node.ref)
    if struct.structs or struct.zeros or node.ref in above:
        return True
    return bool(_find_ways(node.ref, above))
