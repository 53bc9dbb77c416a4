"""Checked expressions as programs: each part becomes a closure, and what is spent is counted as it goes.

A program also stops by the clock and by what it makes: costs are Go's, and Python takes longer for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.kube.cel import ast, costs
from walras.kube.cel.extensions import EXTENSIONS
from walras.kube.cel.functions import STANDARD
from walras.kube.cel.kubernetes import KUBERNETES
from walras.kube.cel.loops import LOOPS
from walras.kube.cel.steps import (
    ABSENT,
    Run,
    Step,
    applied,
    both,
    choice,
    coerced,
    constant,
    either,
    item,
    mapped_optional,
    mapping,
    member_of,
    merged,
    named_value,
    once_read,
    optional_member,
    presence,
    same_items,
)
from walras.kube.cel.types import Type
from walras.kube.cel.values import CelError, Opaque, Optional, TypeValue, no_overload

# As k8s.io/apiserver/pkg/apis/cel: what one call may cost.
CALL_COST_MAX: Final = 1_000_000
_ALL: Final[Mapping[str, Callable[..., Any]]] = {**STANDARD, **EXTENSIONS, **KUBERNETES}


@dataclass(frozen=True, slots=True)
class Program:
    """An expression ready to run, its type, and the names that it reads."""

    source: str
    type: Type
    step: Step
    places: Mapping[str, int]
    slots: int

    def run(
        self, variables: Mapping[str, Any], limit: int = CALL_COST_MAX, deadline: float = float("inf")
    ) -> tuple[Any, int]:
        """What it yields, and what that cost. `deadline` is by time.perf_counter.

        Raises CelError; its `cost` says what was spent.
        """
        slots: list[Any] = [None] * self.slots
        for name, place in self.places.items():
            slots[place] = variables.get(name, ABSENT)
        run = Run(slots, limit, deadline)
        try:
            value = self.step(run)
            run.check()
        except CelError as error:
            error.cost = run.cost  # type: ignore[attr-defined]
            raise
        except (OverflowError, MemoryError, RecursionError) as error:
            failed = CelError(str(error))
            failed.cost = run.cost  # type: ignore[attr-defined]
            raise failed from None
        return value, run.cost


class _Compiler:
    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.scopes: list[dict[str, int]] = []
        # What names stand for that are read when they are first needed, by their place.
        self.bound: dict[int, Step] = {}
        self.slots = 0

    def place(self) -> int:
        self.slots += 1
        return self.slots - 1

    def compile(self, node: ast.Node) -> Step:
        match node:
            case ast.Literal():
                return constant(node.value)
            case ast.Ident():
                return coerced(node.type, self._ident(node.name.removeprefix(".")))
            case ast.Select():
                return coerced(node.type, self._select(node))
            case ast.Index():
                return coerced(node.type, self._index(node))
            case ast.Call():
                return self._call(node)
            case ast.ListNode():
                return self._list(node)
            case ast.MapNode():
                return self._map(node)
            case ast.Struct():
                return self._struct(node)
            case ast.Macro():
                return self._macro(node)
        raise AssertionError(node)

    def _ident(self, name: str) -> Step:
        for scope in reversed(self.scopes):
            if name in scope:
                place = scope[name]
                return once_read(place, self.bound[place]) if place in self.bound else _local(place)
        known = self.places.get(name, -1)
        if known < 0:
            known = self.places[name] = self.place()

        def variable(run: Run) -> Any:
            run.cost += 1
            value = run.slots[known]
            if value is ABSENT:
                if name in _TYPES:
                    return TypeValue(name)
                raise CelError(f"no such attribute(s): {name}")
            return value

        return variable

    def _select(self, node: ast.Select) -> Step:
        operand_type = node.operand.type
        if node.type.name == "type" and not node.test:
            name = _dotted(node)
            if name:
                return constant(TypeValue(name))
        operand, key = self.compile(node.operand), _key(operand_type, node.field)
        if node.test:
            return presence(operand, key)
        if node.optional or operand_type.name == "optional_type":
            return optional_member(operand, constant(key))

        def select(run: Run) -> Any:
            value = operand(run)
            run.cost += 1
            if isinstance(value, dict):
                try:
                    return value[key]
                except KeyError:
                    raise CelError(f"no such key: {node.field}") from None
            if isinstance(value, Optional):
                return member_of(value, key)
            if isinstance(value, Opaque):
                return value.member(key)
            raise CelError(f"no such key: {node.field}" if value is None else "unsupported field selection")

        return select

    def _index(self, node: ast.Index) -> Step:
        operand, index = self.compile(node.operand), self.compile(node.index)
        if node.optional or node.operand.type.name == "optional_type":
            return optional_member(operand, index)

        def at(run: Run) -> Any:
            value, key = operand(run), index(run)
            run.cost += 1
            return member_of(value, key) if isinstance(value, Optional) else item(value, key)

        return at

    def _call(self, node: ast.Call) -> Step:
        match node.name:
            case "_&&_":
                return both(self.compile(node.args[0]), self.compile(node.args[1]))
            case "_||_":
                return either(self.compile(node.args[0]), self.compile(node.args[1]))
            case "_?_:_":
                return choice(*(self.compile(arg) for arg in node.args))
            case "or" | "orValue" if node.target is not None:
                return self._fallback(node)
        nodes = ([node.target] if node.target else []) + node.args
        steps = [self.compile(arg) for arg in nodes]
        special = self._set_like(node, nodes, steps)
        if special is not None:
            return special
        return applied(_ALL[node.name], costs.COSTS.get(node.name), steps)

    def _fallback(self, node: ast.Call) -> Step:
        assert node.target is not None
        value, other = self.compile(node.target), self.compile(node.args[0])
        unwrap = node.name == "orValue"

        def run_either(run: Run) -> Any:
            found = value(run)
            run.cost += 1
            if not isinstance(found, Optional):
                raise no_overload()
            if not found.has:
                return other(run)
            return found.value if unwrap else found

        return run_either

    def _set_like(self, node: ast.Call, nodes: list[ast.Node], steps: list[Step]) -> Step | None:
        """Lists of type set and map compare without order, and add up without doubles."""
        kind = nodes[0].type.list_type if nodes else ()
        if node.name in ("_==_", "_!=_") and len(nodes) == 2:
            kind = kind or nodes[1].type.list_type
            if kind:
                wanted = node.name == "_==_"
                return applied(
                    lambda left, right: same_items(left, right) is wanted, costs.COSTS[node.name], steps
                )
        if node.name == "_+_" and kind:
            keys = kind[1:]
            return applied(lambda left, right: merged(left, right, keys), costs.COSTS["_+_"], steps)
        return None

    def _list(self, node: ast.ListNode) -> Step:
        steps, optional = [self.compile(item) for item in node.items], node.optional

        def make(run: Run) -> Any:
            found = []
            for number, step in enumerate(steps):
                value = step(run)
                if number in optional:
                    if not isinstance(value, Optional):
                        raise no_overload()
                    if not value.has:
                        continue
                    value = value.value
                found.append(value)
            run.cost += costs.LIST
            run.make(len(found))
            return found

        return make

    def _map(self, node: ast.MapNode) -> Step:
        pairs = [(self.compile(k), self.compile(v)) for k, v in zip(node.keys, node.values, strict=True)]
        return mapping(pairs, node.optional, costs.MAP)

    def _struct(self, node: ast.Struct) -> Step:
        pairs: list[tuple[Step, Step]] = []
        for name, value in zip(node.fields, node.values, strict=True):
            pairs.append((constant(_key(node.type, name)), self.compile(value)))
        made = mapping(pairs, node.optional, costs.STRUCT)
        if node.name in STRUCTS:
            shape = STRUCTS[node.name]
            return lambda run: shape(made(run))
        return made

    def _macro(self, node: ast.Macro) -> Step:
        over = self.compile(node.over)
        places = [self.place() for _ in node.variables]
        self.scopes.append(dict(zip(node.variables, places, strict=True)))
        if node.name == "bind":
            self.bound[places[0]] = over
        args = [self.compile(arg) for arg in node.args]
        self.scopes.pop()
        if node.name == "bind":
            return named_value(places[0], args[0])
        if node.name in ("optMap", "optFlatMap"):
            return mapped_optional(over, places[0], args[0], flat=node.name == "optFlatMap")
        return LOOPS[node.name](over, places, args)


_TYPES: Final = frozenset(
    ("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type")
)
# Objects that are made by name: what becomes of their fields.
STRUCTS: dict[str, Callable[[dict[Any, Any]], Any]] = {}


def _local(place: int) -> Step:
    def read(run: Run) -> Any:
        run.cost += 1
        return run.slots[place]

    return read


def _dotted(node: ast.Node) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Select):
        parts.append(node.field)
        node = node.operand
    return ".".join([node.name, *reversed(parts)]) if isinstance(node, ast.Ident) else ""


def _key(kind: Type, name: str) -> str:
    """The field's name in the data."""
    fields = kind.parameters[0].fields if kind.name == "optional_type" else kind.fields
    field = fields.get(name) if fields else None
    return field.key if field else name


def program(source: str, node: ast.Node) -> Program:
    """The program of a checked expression."""
    compiler = _Compiler()
    step = compiler.compile(node)
    return Program(source, node.type, step, compiler.places, compiler.slots)
