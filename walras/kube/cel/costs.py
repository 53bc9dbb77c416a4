"""What a call costs while it runs (k8s.io/apiserver/pkg/cel/library/cost.go over cel-go's runtimecost.go)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.cel.values import Opaque, size_of

IDENT: Final = 1
LIST: Final = 10
MAP: Final = 30
STRUCT: Final = 40
# A tenth of a unit a character of a string that is gone through, a quarter one of a pattern.
CHECK: Final = 350_000
FORMAT_REGEX: Final = 128

Cost = Callable[[tuple[Any, ...], Any], int]


def tenth(size: int) -> int:
    """The cost of going through so many characters once."""
    return -(-size // 10)


def quarter(size: int) -> int:
    return -(-size // 4)


def traversal(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value) // 10
    if isinstance(value, list):
        return sum(map(traversal, value))
    if isinstance(value, dict):
        return sum(traversal(key) + traversal(item) for key, item in value.items())
    return 1


def _smaller(args: tuple[Any, ...], _: Any) -> int:
    return tenth(min(size_of(args[0]), size_of(args[1])))


def _equality(args: tuple[Any, ...], _: Any) -> int:
    return 1 if isinstance(args[0], Opaque) else tenth(min(size_of(args[0]), size_of(args[1])))


def _ordering(args: tuple[Any, ...], _: Any) -> int:
    return _smaller(args, _) if isinstance(args[0], str | bytes) else 1


def _addition(args: tuple[Any, ...], _: Any) -> int:
    if isinstance(args[0], str | bytes):
        return tenth(size_of(args[0]) + size_of(args[1]))
    return 1


def _membership(args: tuple[Any, ...], _: Any) -> int:
    return len(args[1]) if isinstance(args[1], list) else 1


def _pattern(args: tuple[Any, ...], _: Any) -> int:
    return tenth(1 + size_of(args[0])) * quarter(size_of(args[1]))


def _part(args: tuple[Any, ...], _: Any) -> int:
    return tenth(size_of(args[1]))


def _contains(args: tuple[Any, ...], _: Any) -> int:
    return tenth(size_of(args[0])) * tenth(size_of(args[1]))


def _first(args: tuple[Any, ...], _: Any) -> int:
    return tenth(size_of(args[0]))


def _first_twice(args: tuple[Any, ...], _: Any) -> int:
    return -(-size_of(args[0]) * 2 // 10)


def _result_twice(_: tuple[Any, ...], result: Any) -> int:
    return -(-size_of(result) * 2 // 10)


def _traversed(args: tuple[Any, ...], _: Any) -> int:
    return traversal(args[0])


def _text_only(args: tuple[Any, ...], _: Any) -> int:
    return tenth(len(args[0])) if isinstance(args[0], str | bytes) else 1


def _product(args: tuple[Any, ...], _: Any) -> int:
    return max(1, size_of(args[0]) * size_of(args[1]))


def _squared(args: tuple[Any, ...], _: Any) -> int:
    return max(1, size_of(args[0]) ** 2)


def _length(args: tuple[Any, ...], result: Any) -> int:
    return max(size_of(args[0]), size_of(result))


# Functions that go through their first argument once.
READS_ONCE: Final = (
    "url", "isURL", "lowerAscii", "upperAscii", "substring", "trim", "jsonpatch.escapeKey", "cidr", "isIP",
    "isCIDR", "quantity", "isQuantity", "semver", "isSemver", "strings.quote", "format",
)  # fmt: skip

COSTS: Final[Mapping[str, Cost]] = {
    "check": lambda *_: CHECK,
    "fieldSelector": lambda args, _: LIST + tenth(size_of(args[1])) + size_of(args[1]) // 2 * (LIST + STRUCT),
    "labelSelector": lambda args, _: LIST + tenth(size_of(args[1])) + size_of(args[1]) // 2 * (LIST + STRUCT),
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _traversed),
    **dict.fromkeys(READS_ONCE, _first),
    "ip": _text_only,
    "string": _text_only,
    "bytes": _text_only,
    **dict.fromkeys(("replace", "split", "ip.isCanonical"), _first_twice),
    "join": _result_twice,
    **dict.fromkeys(("find", "findAll", "matches"), _pattern),
    "startsWith": _part,
    "endsWith": _part,
    "contains": _contains,
    "containsIP": lambda args, _: 4 + (tenth(size_of(args[1])) if isinstance(args[1], str) else 0),
    "containsCIDR": lambda args, _: 6 + (tenth(size_of(args[1])) if isinstance(args[1], str) else 0),
    "validate": lambda args, _: tenth(1 + size_of(args[1])) * quarter(FORMAT_REGEX),
    "_==_": _equality,
    "_!=_": _smaller,
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _ordering),
    "_+_": _addition,
    "@in": _membership,
    **dict.fromkeys(("sets.contains", "sets.equivalent", "sets.intersects"), _product),
    **dict.fromkeys(("distinct", "sort"), _squared),
    **dict.fromkeys(("flatten", "reverse", "slice", "lists.range"), _length),
}
