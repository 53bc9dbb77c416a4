"""Gradual type checking (cel-spec): each part of an expression gets its type, or errors in cel-go's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.cel import ast
from walras.kube.cel.declarations import functions
from walras.kube.cel.regex import PatternError, pattern
from walras.kube.cel.times import parse_duration, parse_timestamp
from walras.kube.cel.tokens import SourceError, located
from walras.kube.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    ERROR,
    INT,
    NULL,
    STRING,
    TYPE,
    UINT,
    Substitution,
    Type,
    join,
    list_of,
    map_of,
    optional_of,
)
from walras.kube.cel.values import CelError, UInt

_TYPE_NAMES: Final = frozenset(
    ("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type",
     "google.protobuf.Timestamp", "google.protobuf.Duration", "kubernetes.URL", "kubernetes.Quantity",
     "kubernetes.Semver", "net.IP", "net.CIDR")
)  # fmt: skip
ERRORS_MAX: Final = 10
_PARSED: Final[Mapping[str, Callable[[str], Any]]] = {
    "duration": parse_duration, "timestamp": parse_timestamp, "matches": pattern,
}  # fmt: skip


class _Checker:
    def __init__(self, source: str, variables: Mapping[str, Type], structs: Mapping[str, Type]) -> None:
        self.source = source
        self.scopes: list[Mapping[str, Type]] = [variables]
        self.structs = structs
        self.names = Substitution()
        self.errors: list[tuple[int, str]] = []
        # Lists whose items may be of several types.
        self.mixed: set[int] = set()

    def error(self, at: int, message: str) -> Type:
        self.errors.append((at, message))
        return ERROR

    def shown(self, kind: Type) -> str:
        return str(self.names.final(kind))

    def lookup(self, name: str) -> Type | None:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def check(self, node: ast.Node) -> Type:
        kind = self._kind(node)
        node.type = kind
        return kind

    def _kind(self, node: ast.Node) -> Type:
        match node:
            case ast.Literal():
                return _literal(node.value)
            case ast.Ident():
                return self._ident(node)
            case ast.Select():
                return self._select(node)
            case ast.Index():
                return self._index(node)
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

    def _ident(self, node: ast.Ident) -> Type:
        name = node.name.removeprefix(".")
        kind = self.lookup(name)
        if kind is not None:
            return kind
        if name in _TYPE_NAMES:
            return TYPE
        return self.error(node.at, f"undeclared reference to '{name}' (in container '')")

    def _select(self, node: ast.Select) -> Type:
        qualified = _qualified(node)
        if not node.test and not node.optional and qualified:
            root = qualified.split(".")[0]
            if self.lookup(root) is None and qualified in _TYPE_NAMES:
                return TYPE
            if self.lookup(root) is None and self.lookup(qualified) is not None:
                return self.lookup(qualified) or DYN
        operand = self.names.resolve(self.check(node.operand))
        wrapped = operand.name == "optional_type"
        if wrapped:
            operand = self.names.resolve(operand.parameters[0])
        found = self._field(node, operand)
        if node.test:
            return BOOL
        return optional_of(found) if wrapped or node.optional else found

    def _field(self, node: ast.Select, operand: Type) -> Type:
        if operand.is_dyn:
            return DYN
        if operand.fields is not None:
            field = operand.fields.get(node.field)
            if field is None:
                return self.error(node.at, f"undefined field '{node.field}'")
            return field.type
        if operand.name == "map":
            return operand.parameters[1]
        if self.names.is_free(operand):
            return DYN
        return self.error(node.at, f"type '{self.shown(operand)}' does not support field selection")

    def _index(self, node: ast.Index) -> Type:
        operand, index = self.names.resolve(self.check(node.operand)), self.check(node.index)
        wrapped = operand.name == "optional_type"
        inner = self.names.resolve(operand.parameters[0]) if wrapped else operand
        if inner.is_dyn or self.names.is_free(inner):
            found = DYN
        elif (inner.name == "list" and self.names.assignable(INT, index)) or (
            inner.name == "list" and self.names.resolve(index).name in ("uint", "double")
        ):
            found = inner.parameters[0]
        elif inner.name == "map" and self.names.assignable(inner.parameters[0], index):
            found = inner.parameters[1]
        else:
            said = f"({self.shown(operand)}, {self.shown(index)})"
            name = "_[?_]" if node.optional else "_[_]"
            return self.error(node.at, f"found no matching overload for '{name}' applied to '{said}'")
        return optional_of(found) if wrapped or node.optional else found

    def _call(self, node: ast.Call) -> Type:
        known = functions()
        target = node.target
        if target is not None:
            # `sets.contains(a, b)` reads like a member function and is none.
            qualified = _qualified(target)
            name = f"{qualified}.{node.name}" if qualified else ""
            if name and name in known and self.lookup(qualified.split(".")[0]) is None:
                node.name, node.target, target = name, None, None
        if node.name not in known:
            for arg in ([target] if target else []) + node.args:
                self.check(arg)
            return self.error(node.at, f"undeclared reference to '{node.name}' (in container '')")
        if (
            node.name == "format"
            and target is not None
            and node.args
            and isinstance(node.args[0], ast.ListNode)
        ):
            self.mixed.add(id(node.args[0]))
        given = [self.check(arg) for arg in ([target] if target else []) + node.args]
        found = self._resolved(node, given, member=target is not None)
        if found is not ERROR:
            self._literals(node)
        return found

    def _literals(self, node: ast.Call) -> None:
        """Texts that say a time, a duration or a pattern must do so."""
        parse = _PARSED.get(node.name)
        literal = node.args[-1] if node.args else None
        if parse is None or not isinstance(literal, ast.Literal) or not isinstance(literal.value, str):
            return
        try:
            parse(literal.value)
        except (CelError, PatternError):
            self.error(literal.at, f"invalid {node.name} argument")

    def _resolved(self, node: ast.Call, given: list[Type], *, member: bool) -> Type:
        if any(self.names.resolve(kind) is ERROR for kind in given):
            return ERROR
        result: Type | None = None
        found: list[str] = []
        for overload in functions()[node.name]:
            if overload.member != member or len(overload.parameters) != len(given):
                continue
            fresh: dict[str, Type] = {}
            mark = self.names.mark()
            wanted = [self._instance(parameter, fresh) for parameter in overload.parameters]
            if not all(self.names.assignable(to, kind) for to, kind in zip(wanted, given, strict=True)):
                self.names.restore(mark)
                continue
            found.append(overload.id)
            mine = self._instance(overload.result, fresh)
            if result is None:
                result = mine
            elif self.names.final(result) != self.names.final(mine):
                result = DYN
        if result is None:
            shown = ", ".join(self.shown(kind) for kind in (given[1:] if member else given))
            signature = f"{self.shown(given[0])}.({shown})" if member else f"({shown})"
            return self.error(
                node.at, f"found no matching overload for '{node.name}' applied to '{signature}'"
            )
        node.overloads = tuple(found)
        return self._declared(node, given, result)

    def _declared(self, node: ast.Call, given: list[Type], result: Type) -> Type:
        """Adding lists keeps how the left one compares; a choice keeps the fields of what it chooses."""
        resolved = self.names.resolve(result)
        if node.name == "_+_" and resolved.name == "list":
            left = self.names.resolve(given[0])
            return Type("list", resolved.parameters, None, None, left.list_type)
        return resolved

    def _instance(self, kind: Type, fresh: dict[str, Type]) -> Type:
        if kind.is_variable:
            return fresh.setdefault(kind.name, self.names.fresh())
        if not kind.parameters:
            return kind
        return Type(kind.name, tuple(self._instance(each, fresh) for each in kind.parameters))

    def _list(self, node: ast.ListNode) -> Type:
        item: Type | None = None
        for index, each in enumerate(node.items):
            kind = self.check(each)
            if index in node.optional:
                kind = self._unwrapped(each, kind)
            if id(node) in self.mixed:
                item = kind if item is None else join(item, kind, self.names)
                continue
            item = kind if item is None else self._same(each, item, kind)
        return list_of(item if item is not None else self.names.fresh())

    def _unwrapped(self, node: ast.Node, kind: Type) -> Type:
        kind = self.names.resolve(kind)
        if kind.is_dyn:
            return DYN
        if kind.name != "optional_type":
            return self.error(node.at, f"expected type 'optional_type(dyn)' but found '{self.shown(kind)}'")
        return kind.parameters[0]

    def _same(self, node: ast.Node, before: Type, kind: Type) -> Type:
        """Literals hold one type, unless that is dyn."""
        joined = join(before, kind, self.names)
        plain = not self.names.resolve(before).is_dyn and not self.names.resolve(kind).is_dyn
        if joined is DYN and plain:
            return self.error(node.at, f"expected type '{self.shown(before)}' but found '{self.shown(kind)}'")
        return joined

    def _map(self, node: ast.MapNode) -> Type:
        key: Type | None = None
        value: Type | None = None
        for index, (left, right) in enumerate(zip(node.keys, node.values, strict=True)):
            kind = self.check(left)
            key = kind if key is None else self._same(left, key, kind)
            kind = self.check(right)
            if index in node.optional:
                kind = self._unwrapped(right, kind)
            value = kind if value is None else self._same(right, value, kind)
        fresh = self.names.fresh
        return map_of(key if key is not None else fresh(), value if value is not None else fresh())

    def _struct(self, node: ast.Struct) -> Type:
        kind = self.structs.get(node.name)
        for index, (name, value) in enumerate(zip(node.fields, node.values, strict=True)):
            given = self.check(value)
            if index in node.optional:
                given = self._unwrapped(value, given)
            if kind is None or kind.fields is None:
                continue
            field = kind.fields.get(name)
            if field is None:
                self.error(value.at, f"undefined field '{name}'")
            elif not self.names.assignable(field.type, given):
                wanted, got = self.shown(field.type), self.shown(given)
                said = f"expected type of field '{name}' is '{wanted}' but provided type is '{got}'"
                self.error(value.at, said)
        if kind is None:
            return self.error(node.at, f"undeclared reference to '{node.name}' (in container '')")
        return kind

    def _macro(self, node: ast.Macro) -> Type:
        over = self.names.resolve(self.check(node.over))
        if node.name in ("optMap", "optFlatMap"):
            inner = over.parameters[0] if over.name == "optional_type" else DYN
            if over.name != "optional_type" and not over.is_dyn:
                said = f"found no matching overload for '{node.name}' applied to '{self.shown(over)}'"
                return self.error(node.at, said)
            made = self._within({node.variables[0]: inner}, node.args)[0]
            return made if node.name == "optFlatMap" else optional_of(made)
        if node.name == "bind":
            return self._within({node.variables[0]: over}, node.args)[0]
        scope = self._iterated(node, over)
        found = self._within(scope, node.args)
        if node.name in ("all", "exists", "exists_one", "filter"):
            self._bool(node.args[0], found[0])
            return over if node.name == "filter" else BOOL
        if len(found) == 2 and node.name != "transformMapEntry":
            self._bool(node.args[0], found[0])
        made = self.names.resolve(found[-1])
        if node.name == "transformMap":
            return map_of(scope[node.variables[0]], made)
        return made if node.name == "transformMapEntry" else list_of(made)

    def _iterated(self, node: ast.Macro, over: Type) -> dict[str, Type]:
        if over.is_dyn or self.names.is_free(over):
            return dict.fromkeys(node.variables, DYN)
        if over.name == "list":
            first, second = INT, over.parameters[0]
            return (
                {node.variables[0]: second}
                if len(node.variables) == 1
                else {node.variables[0]: first, node.variables[1]: second}
            )
        if over.name == "map":
            return dict(zip(node.variables, over.parameters, strict=False))
        self.error(
            node.over.at,
            f"expression of type '{self.shown(over)}' cannot be range of a comprehension "
            "(must be list, map, or dynamic)",
        )
        return dict.fromkeys(node.variables, ERROR)

    def _within(self, scope: Mapping[str, Type], nodes: list[ast.Node]) -> list[Type]:
        self.scopes.append(scope)
        found = [self.check(node) for node in nodes]
        self.scopes.pop()
        return found

    def _bool(self, node: ast.Node, kind: Type) -> None:
        if kind is not ERROR and not self.names.assignable(BOOL, kind):
            self.error(node.at, f"expected type 'bool' but found '{self.shown(kind)}'")

    def finish(self, node: ast.Node) -> None:
        """Puts the final types on every part."""
        rest = [node]
        while rest:
            each = rest.pop()
            each.type = self.names.final(each.type)
            rest += ast.children(each)


def _literal(value: object) -> Type:
    match value:
        case None:
            return NULL
        case bool():
            return BOOL
        case UInt():
            return UINT
        case int():
            return INT
        case float():
            return DOUBLE
        case bytes():
            return BYTES
    return STRING


def _qualified(node: ast.Node | None) -> str:
    """`a.b.c` where a node is names alone, else ""."""
    names: list[str] = []
    while isinstance(node, ast.Select) and not node.test and not node.optional:
        names.append(node.field)
        node = node.operand
    if not isinstance(node, ast.Ident):
        return ""
    return ".".join([node.name.removeprefix("."), *reversed(names)])


def check(source: str, node: ast.Node, variables: Mapping[str, Type], structs: Mapping[str, Type]) -> Type:
    """The type of the expression, with the type of each part put on it. Raises SourceError."""
    checker = _Checker(source, variables, structs)
    try:
        kind = checker.check(node)
    except RecursionError:
        raise SourceError(located(source, 0, "expression recursion limit exceeded")) from None
    if checker.errors:
        shown = [located(source, at, said) for at, said in sorted(checker.errors)[:ERRORS_MAX]]
        raise SourceError("\n".join(shown))
    checker.finish(node)
    return checker.names.final(kind)
