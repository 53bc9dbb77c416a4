"""The JSONPath of printer columns and selectable fields: client-go's dialect, read once and asked often."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final

from walras.kube.patch import same

LENGTH_MAX: Final = 4096

Step = Callable[[list[Any]], list[Any]]


class PathFault(ValueError):
    """The text is no JSONPath, or it asks for what a value cannot give."""


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path."""

    text: str
    steps: tuple[Step, ...]

    def find(self, value: Any) -> list[Any]:
        """Every value at the path, in order; empty when there is none or the path does not fit the value."""
        try:
            return self.follow([value])
        except PathFault:
            return []

    def follow(self, values: list[Any]) -> list[Any]:
        for step in self.steps:
            values = step(values)
        return values


@lru_cache(maxsize=4096)
def parse(text: str) -> Path:
    """The path written as `.spec.items[?(@.type=="x")].name`. Raises PathFault."""
    if len(text) > LENGTH_MAX:
        raise PathFault(f"longer than {LENGTH_MAX} characters")
    reader = _Reader(text[1:-1] if text.startswith("{") and text.endswith("}") else text)
    steps = tuple(reader.steps())
    if reader.rest:
        raise PathFault(f"unrecognized character in {text!r} at {reader.rest!r}")
    return Path(text, steps)


_NAME: Final = re.compile(r"(?:\\.|[^\\.\[\]\s,'\"@$(){}|=!<>?*])+")
_KEY: Final = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_SLICE: Final = re.compile(r"(-?\d*)(?::(-?\d*))?(?::(\d*))?", re.ASCII)
_LITERAL: Final = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|-?\d+(?:\.\d+)?|true|false", re.ASCII)
_OPERATOR: Final = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")


class _Reader:
    """Recursive descent over the text that is left."""

    def __init__(self, text: str) -> None:
        self.rest = text.strip()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.rest)
        if match:
            self.rest = self.rest[match.end() :]
        return match

    def starts(self, prefix: str) -> bool:
        found = self.rest.startswith(prefix)
        if found:
            self.rest = self.rest[len(prefix) :]
        return found

    def steps(self) -> Iterator[Step]:
        self.starts("$") or self.starts("@")
        while self.rest:
            if self.starts(".."):
                yield _descendants
                if name := self.take(_NAME):
                    yield _field(_unescaped(name.group()))
            elif self.starts(".*"):
                yield _children
            elif self.starts("."):
                name = self.take(_NAME)
                if name:
                    yield _field(_unescaped(name.group()))
                elif self.rest and self.rest[0] not in "[)=!<> ":
                    raise PathFault(f"unrecognized character at {self.rest!r}")
            elif self.starts("["):
                yield self.bracket()
            else:
                return

    def bracket(self) -> Step:
        if self.starts("?("):
            step = self.condition()
            if not self.starts(")]"):
                raise PathFault("unterminated filter")
            return step
        parts = [self.subscript()]
        while self.starts(","):
            parts.append(self.subscript())
        if not self.starts("]"):
            raise PathFault("unterminated array")
        return parts[0] if len(parts) == 1 else _union(parts)

    def subscript(self) -> Step:
        self.rest = self.rest.lstrip()
        if self.starts("*"):
            return _children
        if key := self.take(_KEY):
            return _field(_unescaped(key.group(1) if key.group(1) is not None else key.group(2)))
        match = self.take(_SLICE)
        if match is None or not match.group():
            raise PathFault(f"invalid array index at {self.rest!r}")
        start, end, step = match.groups()
        if end is None:
            return _index(int(start))
        return _slice(int(start) if start else None, int(end) if end else None, int(step) if step else 1)

    def condition(self) -> Step:
        left = self.operand()
        operator = self.take(_OPERATOR)
        if operator is None:
            return _where(lambda item: bool(left(item)))
        right = self.operand()
        compare = _COMPARISONS[operator.group(1)]
        return _where(lambda item: _compared(left(item), right(item), compare))

    def operand(self) -> Callable[[Any], list[Any]]:
        self.rest = self.rest.lstrip()
        if literal := self.take(_LITERAL):
            value = _literal(literal.group())
            return lambda _item: [value]
        if not self.rest.startswith(("@", "$", ".")):
            raise PathFault(f"unrecognized filter at {self.rest!r}")
        path = Path("", tuple(self.steps()))
        self.rest = self.rest.lstrip()
        return lambda item: path.follow([item])


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _literal(text: str) -> Any:
    if text[0] in "'\"":
        return _unescaped(text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)


def _field(name: str) -> Step:
    return lambda values: [value[name] for value in values if isinstance(value, dict) and name in value]


def _children(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_inside(value))
    return found


def _descendants(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        inside = list(_inside(value))
        if inside:
            found.append(value)
            found.extend(_descendants(inside))
    return found


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _lists(values: list[Any]) -> Iterator[list[Any]]:
    for value in values:
        if value is None:
            continue
        if not isinstance(value, list):
            raise PathFault("not an array")
        yield value


def _index(at: int) -> Step:
    def step(values: list[Any]) -> list[Any]:
        lists = list(_lists(values))
        if any(not -len(items) <= at < len(items) for items in lists):
            raise PathFault(f"array index out of bounds: index {at}")
        return [items[at] for items in lists]

    return step


def _slice(start: int | None, end: int | None, step: int) -> Step:
    if step <= 0:
        raise PathFault("step must be > 0")
    return lambda values: [item for items in _lists(values) for item in items[start:end:step]]


def _union(parts: list[Step]) -> Step:
    return lambda values: [item for part in parts for item in part(values)]


def _where(holds: Callable[[Any], bool]) -> Step:
    return lambda values: [item for items in _lists(values) for item in items if holds(item)]


_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": same, "!=": lambda left, right: not same(left, right), "<": lt, ">": gt, "<=": le, ">=": ge,
}  # fmt: skip


def _compared(left: list[Any], right: list[Any], compare: Callable[[Any, Any], bool]) -> bool:
    if not left or not right:
        return False
    if len(left) > 1 or len(right) > 1:
        raise PathFault("can only compare one element at a time")
    try:
        return compare(left[0], right[0])
    except TypeError:
        raise PathFault("incompatible types for comparison") from None
