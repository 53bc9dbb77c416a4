"""The parts of a CEL expression. The checker writes the type that it finds on each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from walras.kube.cel.types import DYN, Type


@dataclass(slots=True, kw_only=True)
class Node:
    """`at` is the offset in the source that an error points to."""

    at: int
    type: Type = DYN


@dataclass(slots=True, kw_only=True)
class Literal(Node):
    value: Any


@dataclass(slots=True, kw_only=True)
class Ident(Node):
    name: str


@dataclass(slots=True, kw_only=True)
class Select(Node):
    """`operand.field`, `operand.?field` with `optional`, `has(operand.field)` with `test`."""

    operand: Node
    field: str
    optional: bool = False
    test: bool = False


@dataclass(slots=True, kw_only=True)
class Index(Node):
    """`operand[index]`, or `operand[?index]`."""

    operand: Node
    index: Node
    optional: bool = False


@dataclass(slots=True, kw_only=True)
class Call(Node):
    """A function or operator; `target` is what a member function is called on."""

    name: str
    args: list[Node]
    target: Node | None = None
    # Of those that fit: their ids, for costs.
    overloads: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class ListNode(Node):
    """`optional` are the indices of items written `?item`."""

    items: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class MapNode(Node):
    keys: list[Node]
    values: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class Struct(Node):
    """`Name{field: value}`."""

    name: str
    fields: list[str]
    values: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class Macro(Node):
    """What goes over `over`, or into it: `all`, `exists`, `exists_one`, `map`, `filter`, `transformList`,
    `transformMap`, `transformMapEntry`, `optMap`, `optFlatMap`, `bind`; `variables` are its names."""

    name: str
    over: Node
    variables: list[str]
    args: list[Node] = field(default_factory=list)


def children(node: Node) -> list[Node]:
    """The parts directly below."""
    match node:
        case Select():
            return [node.operand]
        case Index():
            return [node.operand, node.index]
        case Call():
            return [*([node.target] if node.target else []), *node.args]
        case ListNode():
            return list(node.items)
        case MapNode():
            return [*node.keys, *node.values]
        case Struct():
            return list(node.values)
        case Macro():
            return [node.over, *node.args]
    return []
