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
        plan = _plan(schema.ref)
        if not plan.always and plan.names.isdisjoint(value):
            return value
        result = dict(value)
        for name in plan.structs:
            if result.get(name) is None:
                result[name] = {}
        for name, zero in plan.zeros:
            # An empty list comes back from upstream's store as none.
            if name not in result or (zero is None and result[name] in ([], {})):
                result[name] = zero
        for name, node in plan.ways:
            if name in result:
                result[name] = completed(node, result[name])
        return result
    if form == "list" and schema.items is not None and isinstance(value, list):
        return [completed(schema.items, item) for item in value]
    if form == "map" and schema.values is not None and isinstance(value, dict):
        return {key: completed(schema.values, item) for key, item in value.items()}
    return value


class _Plan(NamedTuple):
    """What there is to add to a struct, and the fields below which there is something to add."""

    structs: tuple[str, ...] = ()
    zeros: tuple[tuple[str, Any], ...] = ()
    ways: tuple[tuple[str, Schema], ...] = ()
    # Whether there may be something to add to the struct itself; else only below these fields.
    always: bool = False
    names: frozenset[str] = frozenset()


@cache
def _plan(name: str) -> _Plan:
    if not name:
        return _Plan()
    struct, schema = of(name), Schema.named(name)
    structs = tuple(field for field in struct.structs if schema.child(field) is not None)
    ways = _find_ways(name, frozenset())
    return _Plan(structs, struct.zeros, ways, bool(structs or struct.zeros), frozenset(dict(ways)))


def _find_ways(name: str, above: frozenset[str]) -> tuple[tuple[str, Schema], ...]:
    schema = Schema.named(name)
    above |= {name}
    nodes = ((field, schema.child(field)) for field in schema.properties)
    return tuple((field, node) for field, node in nodes if node is not None and _leads(node, above))


def _leads(found: Schema, above: frozenset[str]) -> bool:
    node: Schema | None = found
    while node is not None and node.form in ("list", "map"):
        node = node.items if node.form == "list" else node.values
    if node is None or node.form != "struct" or not node.ref:
        return False
    struct = of(node.ref)
    if struct.structs or struct.zeros or node.ref in above:
        return True
    return bool(_find_ways(node.ref, above))
