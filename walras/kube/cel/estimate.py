"""What an expression may cost at most, before it runs (cel-go, checker/cost.go): by sizes of types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from walras.kube.cel import ast, costs
from walras.kube.cel.types import Type
from walras.kube.cel.values import size_of

UNBOUNDED: Final = 2**64 - 1
_SCALARS: Final = ("bool", "double", "duration", "int", "timestamp", "uint", "null", "type")


def _sum(left: int, right: int) -> int:
    return min(left + right, UNBOUNDED)


def _product(left: int, right: int) -> int:
    return min(left * right, UNBOUNDED)


def _factor(size: int, divisor: int) -> int:
    """A cost of size/divisor, rounded up; what has no bound keeps none."""
    return UNBOUNDED if size >= UNBOUNDED else -(-size // divisor)


class Size(NamedTuple):
    """How large a value is at most, and its items, and its keys; None where nothing is known."""

    most: int
    item: Size | None = None
    key: Size | None = None
    # Of a literal alone: the least, for replacements.
    least: int = 0


ONE: Final = Size(1, least=1)


def of_type(kind: Type) -> Size:
    """The largest value of a type."""
    if kind.name in _SCALARS:
        return ONE
    if kind.name == "optional_type" and kind.parameters:
        return of_type(kind.parameters[0])
    most = UNBOUNDED if kind.size_max is None else kind.size_max
    if kind.name == "list" and kind.parameters:
        return Size(most, of_type(kind.parameters[0]))
    if kind.name == "map" and len(kind.parameters) == 2:
        return Size(most, of_type(kind.parameters[1]), of_type(kind.parameters[0]))
    return Size(most)


def _union(left: Size | None, right: Size | None) -> Size | None:
    if left is None or right is None:
        return None
    return Size(
        max(left.most, right.most), _union(left.item, right.item), _union(left.key, right.key),
        min(left.least, right.least),
    )  # fmt: skip


class _Estimator:
    def __init__(self) -> None:
        self.scopes: list[dict[str, Size]] = []

    def visit(self, node: ast.Node) -> tuple[int, Size]:  # noqa: PLR0912  one case a kind of part
        """The cost of the part at most, and the size of what it yields."""
        match node:
            case ast.Literal():
                return 0, Size(size_of(node.value), least=size_of(node.value))
            case ast.Ident():
                for scope in reversed(self.scopes):
                    if node.name in scope:
                        return 1, self._known(node.type, scope[node.name])
                return 1, of_type(node.type)
            case ast.Select():
                cost, _ = self.visit(node.operand)
                if node.test:
                    return cost, ONE
                reads = node.operand.type.name in ("map", "dyn", "optional_type") or node.operand.type.fields
                return _sum(cost, 1 if reads else 0), of_type(node.type)
            case ast.Index():
                cost, size = self.visit(node.operand)
                index, _ = self.visit(node.index)
                return _sum(_sum(cost, index), 1), self._known(node.type, size.item)
            case ast.Call():
                return self._call(node)
            case ast.ListNode():
                return self._list(node)
            case ast.MapNode():
                return self._map(node)
            case ast.Struct():
                total = costs.STRUCT
                for value in node.values:
                    total = _sum(total, self.visit(value)[0])
                return total, of_type(node.type)
            case ast.Macro():
                return self._macro(node)
        raise AssertionError(node)

    @staticmethod
    def _known(kind: Type, size: Size | None) -> Size:
        declared = of_type(kind)
        return declared if size is None or declared.most < size.most else size

    def _list(self, node: ast.ListNode) -> tuple[int, Size]:
        total, item = costs.LIST, None
        for number, each in enumerate(node.items):
            cost, size = self.visit(each)
            total = _sum(total, cost)
            item = size if number == 0 else _union(item, size)
        return total, Size(len(node.items), item if node.items else Size(0), None, len(node.items))

    def _map(self, node: ast.MapNode) -> tuple[int, Size]:
        total, item, key = costs.MAP, None, None
        for number, (left, right) in enumerate(zip(node.keys, node.values, strict=True)):
            left_cost, left_size = self.visit(left)
            right_cost, right_size = self.visit(right)
            total = _sum(total, _sum(left_cost, right_cost))
            key = left_size if number == 0 else _union(key, left_size)
            item = right_size if number == 0 else _union(item, right_size)
        return total, Size(len(node.keys), item, key, len(node.keys))

    def _call(self, node: ast.Call) -> tuple[int, Size]:
        nodes = ([node.target] if node.target else []) + node.args
        visited = [self.visit(each) for each in nodes]
        spent, sizes = [cost for cost, _ in visited], [size for _, size in visited]
        match node.name:
            case "_&&_" | "_||_":
                return _sum(*spent), ONE
            case "_?_:_":
                return _sum(spent[0], max(spent[1:])), _union(sizes[1], sizes[2]) or of_type(node.type)
            case "dyn":
                return _sum(1, spent[0]), sizes[0]
            case "or" | "orValue":
                return _sum(1, _sum(*spent)), _union(sizes[0], sizes[1]) or of_type(node.type)
            case "value" | "optional.of":
                return _sum(1, spent[0]), sizes[0]
        total = 0
        for cost in spent:
            total = _sum(total, cost)
        cost = _OWN.get(node.name, _flat)(sizes, [each.type for each in nodes])
        return _sum(total, cost), self._result(node, sizes)

    def _result(self, node: ast.Call, sizes: list[Size]) -> Size:
        made = _RESULTS.get(node.name)
        if made is None:
            return of_type(node.type)
        return made(sizes)

    def _macro(self, node: ast.Macro) -> tuple[int, Size]:
        cost, size = self.visit(node.over)
        if node.name in ("optMap", "optFlatMap"):
            self.scopes.append({node.variables[0]: size})
            body, result = self.visit(node.args[0])
            self.scopes.pop()
            return _sum(_sum(cost, costs.LIST + 2), body), result
        if node.name == "bind":
            self.scopes.append({node.variables[0]: size})
            body, result = self.visit(node.args[0])
            self.scopes.pop()
            return _sum(_sum(cost, costs.LIST), body), result
        self.scopes.append(self._iterated(node, size))
        visited = [self.visit(arg) for arg in node.args]
        self.scopes.pop()
        turn = _TURNS[node.name]
        for each, _ in visited:
            turn = _sum(turn, each)
        made = costs.MAP if node.name.startswith("transformMap") else costs.LIST
        start = made if node.name in ("map", "filter") or node.name.startswith("transform") else 0
        total = _sum(_sum(cost, start + 2), _product(size.most, turn))
        if node.name == "filter":
            return total, Size(size.most, size.item if node.over.type.name == "list" else size.key)
        if node.name in ("map", "transformList"):
            return total, Size(size.most, visited[-1][1])
        if node.name.startswith("transform"):
            return total, Size(size.most, visited[-1][1], size.key)
        return total, ONE

    def _iterated(self, node: ast.Macro, size: Size) -> dict[str, Size]:
        unknown = Size(UNBOUNDED)
        if node.over.type.name == "map":
            found = [size.key or unknown, size.item or unknown]
        elif len(node.variables) == 1:
            found = [size.item or unknown]
        else:
            found = [ONE, size.item or unknown]
        return dict(zip(node.variables, found, strict=False))


# What a turn of each loop adds to its parts.
_TURNS: Final = {
    "all": 3, "exists": 4, "exists_one": 2, "filter": 13, "map": 12, "transformList": 12, "transformMap": 3,
    "transformMapEntry": 3,
}  # fmt: skip

Sizes = list[Size]
Types = list[Type]


def _flat(_: Sizes, __: Types) -> int:
    return 1


def _compared(sizes: Sizes, _: Types) -> int:
    return _factor(min(sizes[0].most, sizes[1].most), 10)


def _ordered(sizes: Sizes, kinds: Types) -> int:
    return _compared(sizes, kinds) if kinds[0].name in ("string", "bytes", "dyn") else 1


def _added(sizes: Sizes, kinds: Types) -> int:
    if kinds[0].name in ("string", "bytes", "dyn"):
        return _factor(_sum(sizes[0].most, sizes[1].most), 10)
    return 1


def _in(sizes: Sizes, kinds: Types) -> int:
    return 1 if kinds[1].name == "map" else sizes[1].most


def _regex(sizes: Sizes, _: Types) -> int:
    return _product(_factor(_sum(sizes[0].most, 1), 10), _factor(sizes[1].most, 4))


def _validated(sizes: Sizes, _: Types) -> int:
    return _product(_factor(_sum(sizes[1].most, 1), 10), costs.quarter(costs.FORMAT_REGEX))


def _through(argument: int, times: int = 1) -> Callable[[Sizes, Types], int]:
    return lambda sizes, _: _factor(_product(sizes[argument].most, times), 10)


def _contained(sizes: Sizes, _: Types) -> int:
    return _product(_factor(sizes[0].most, 10), _factor(sizes[1].most, 10))


def _gone_through(sizes: Sizes, kinds: Types) -> int:
    if kinds[0].name != "list":
        return _factor(sizes[0].most, 10)
    items = kinds[0].parameters[0].name if kinds[0].parameters else "dyn"
    each = 1
    if items in ("string", "bytes"):
        each = _sum(1, _factor((sizes[0].item or Size(UNBOUNDED)).most, 10))
    return _product(sizes[0].most, each)


def _joined_size(sizes: Sizes) -> Size:
    item = (sizes[0].item or Size(UNBOUNDED)).most
    separator = sizes[1].most if len(sizes) > 1 else 0
    return Size(_sum(_product(sizes[0].most, item), _product(max(sizes[0].most - 1, 0), separator)))


def _joined(sizes: Sizes, _: Types) -> int:
    return _factor(_joined_size(sizes).most, 10)


def _replaced(sizes: Sizes) -> Size:
    whole, old, new = sizes[0].most, sizes[1], sizes[2]
    if old.least == 0:
        return Size(_sum(whole, _product(_sum(whole, 1), new.most)))
    if new.most <= old.least:
        return Size(whole)
    return Size(_product(_factor(whole, old.least), new.most))


def _products(sizes: Sizes, _: Types) -> int:
    return max(1, _product(sizes[0].most, sizes[1].most))


def _squared(sizes: Sizes, _: Types) -> int:
    return max(1, _product(sizes[0].most, sizes[0].most))


def _whole(sizes: Sizes, _: Types) -> int:
    return sizes[0].most


def _texts(sizes: Sizes, kinds: Types) -> int:
    return _factor(sizes[0].most, 10) if kinds[0].name in ("string", "bytes", "dyn") else 1


_OWN: Final[Mapping[str, Callable[[Sizes, Types], int]]] = {
    "check": lambda *_: costs.CHECK,
    **dict.fromkeys(("_==_", "_!=_"), _compared),
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _ordered),
    "_+_": _added,
    "@in": _in,
    **dict.fromkeys(("matches", "find", "findAll"), _regex),
    "validate": _validated,
    **dict.fromkeys(("startsWith", "endsWith"), _through(1)),
    "contains": _contained,
    **dict.fromkeys(costs.READS_ONCE, _through(0)),
    **dict.fromkeys(("ip", "string", "bytes"), _texts),
    **dict.fromkeys(("replace", "split", "ip.isCanonical"), _through(0, 2)),
    "join": _joined,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _gone_through),
    **dict.fromkeys(("sets.contains", "sets.equivalent", "sets.intersects"), _products),
    **dict.fromkeys(("distinct", "sort"), _squared),
    **dict.fromkeys(("flatten", "reverse", "slice"), _whole),
}


def _same(sizes: Sizes) -> Size:
    return sizes[0]


def _both_sizes(sizes: Sizes) -> Size:
    left, right = sizes[0], sizes[1]
    return Size(
        _sum(left.most, right.most), _union(left.item, right.item), None, _sum(left.least, right.least)
    )


_KEEPS: Final = (
    "lowerAscii", "upperAscii", "substring", "trim", "url", "jsonpatch.escapeKey", "reverse", "slice",
    "distinct", "sort",
)  # fmt: skip
_RESULTS: Final[Mapping[str, Callable[[Sizes], Size]]] = {
    "_+_": _both_sizes,
    **dict.fromkeys(_KEEPS, _same),
    "replace": _replaced,
    "join": _joined_size,
    "split": lambda sizes: Size(sizes[0].most, Size(sizes[0].most)),
    "find": lambda sizes: Size(sizes[0].most),
    "findAll": lambda sizes: Size(sizes[0].most, Size(sizes[0].most)),
    "strings.quote": lambda sizes: Size(_sum(_product(sizes[0].most, 2), 2)),
    "bytes": lambda sizes: Size(_product(sizes[0].most, 4)),
}


def estimate(node: ast.Node) -> int:
    """The cost of a checked expression at most; UNBOUNDED where nothing bounds it."""
    return _Estimator().visit(node)[0]
