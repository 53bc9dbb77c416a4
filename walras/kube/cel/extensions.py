"""cel-go's extensions that Kubernetes turns on: strings (version 2), sets, lists (version 3)."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.cel.conversions import float_text
from walras.kube.cel.functions import compare
from walras.kube.cel.values import (
    NONE,
    CelError,
    CostExceeded,
    Duration,
    Optional,
    Timestamp,
    TypeValue,
    UInt,
    equal,
    key_text,
    no_overload,
    type_of,
)

# Characters that one call may make; what costs say of a call counts what it is given, not what it makes.
MADE_MAX: Final = 16 << 20
RANGE_MAX: Final = 1_000_000


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return value


def number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise no_overload()
    return value


def items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise no_overload()
    return value


def _char_at(given: Any, place: Any) -> str:
    value, at = text(given), number(place)
    if not 0 <= at <= len(value):
        raise CelError(f"index out of range: {at}")
    return value[at : at + 1]


def _index_of(value: Any, part: Any, start: Any = 0) -> Any:
    if isinstance(value, list):
        return next((at for at, item in enumerate(value) if equal(item, part)), -1)
    value, part, start = text(value), text(part), number(start)
    if not part:
        return start
    if not 0 <= start < max(len(value), 1):
        raise CelError(f"index out of range: {start}")
    return value.find(part, start)


def _last_index_of(value: Any, part: Any, start: Any = None) -> Any:
    if isinstance(value, list):
        return next((at for at in range(len(value) - 1, -1, -1) if equal(value[at], part)), -1)
    value, part = text(value), text(part)
    if not part:
        return len(value) if start is None else number(start)
    if start is None:
        return value.rfind(part)
    if not 0 <= number(start) < max(len(value), 1):
        raise CelError(f"index out of range: {start}")
    return value.rfind(part, 0, start + len(part))


def _join(value: Any, separator: Any = "") -> str:
    parts = [text(item) for item in items(value)]
    if sum(map(len, parts)) + len(text(separator)) * len(parts) > MADE_MAX:
        raise CostExceeded("operation cancelled: actual cost limit exceeded")
    return text(separator).join(parts)


def _replace(value: Any, old: Any, new: Any, most: Any = -1) -> Any:
    value, old, new, most = text(value), text(old), text(new), number(most)
    times = len(value) + 1 if not old else value.count(old)
    times = times if most < 0 else min(times, most)
    if len(value) + times * len(new) > MADE_MAX:
        raise CostExceeded("operation cancelled: actual cost limit exceeded")
    return value.replace(old, new, most if most >= 0 else -1)


def _split(value: Any, separator: Any, most: Any = -1) -> Any:
    value, separator, most = text(value), text(separator), number(most)
    if most == 0:
        return []
    if not separator:
        parts = list(value)
        return parts if most < 0 or most >= len(parts) else [*parts[: most - 1], "".join(parts[most - 1 :])]
    return value.split(separator, most - 1 if most > 0 else -1)


def _substring(value: Any, start: Any, end: Any = None) -> Any:
    value, start = text(value), number(start)
    end = len(value) if end is None else number(end)
    if not 0 <= start <= len(value):
        raise CelError(f"index out of range: {start}")
    if not 0 <= end <= len(value):
        raise CelError(f"index out of range: {end}")
    if start > end:
        raise CelError(f"invalid substring range. start: {start}, end: {end}")
    return value[start:end]


def _ascii(change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: "".join(change(each) if each.isascii() else each for each in text(value))


def _slice(value: Any, start: Any, end: Any) -> Any:
    value, start, end = items(value), number(start), number(end)
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(value):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(value)}")
    return value[start:end]


def _flatten(value: Any, depth: Any = 1) -> list[Any]:
    depth = number(depth)
    if depth < 0:
        raise CelError("level must be non-negative")
    found: list[Any] = []
    for item in items(value):
        if isinstance(item, list) and depth > 0:
            found += _flatten(item, depth - 1)
        else:
            found.append(item)
    return found


def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    for item in items(value):
        if not any(equal(item, each) for each in found):
            found.append(item)
    return found


def _range(count: Any) -> list[int]:
    if number(count) > RANGE_MAX:
        raise CostExceeded("operation cancelled: actual cost limit exceeded")
    return list(range(number(count)))


def _sort(value: Any) -> list[Any]:
    return sorted(items(value), key=functools.cmp_to_key(compare))


def _covers(left: Any, right: Any) -> bool:
    return all(any(equal(a, b) for b in items(left)) for a in items(right))


def _format(pattern: Any, values: Any) -> str:
    pattern, values = text(pattern), items(values)
    out: list[str] = []
    at = used = 0
    while at < len(pattern):
        if pattern[at] != "%":
            following = pattern.find("%", at)
            following = len(pattern) if following < 0 else following
            out.append(pattern[at:following])
            at = following
            continue
        if pattern[at + 1 : at + 2] == "%":
            out.append("%")
            at += 2
            continue
        at += 1
        precision = 6
        if pattern[at : at + 1] == ".":
            end = at + 1
            while pattern[end : end + 1].isdigit():
                end += 1
            precision = int(pattern[at + 1 : end] or 0) if end - at < 4 else 1001
            if precision > 1000:
                raise CelError("precision too large")
            at = end
        if used >= len(values):
            raise CelError(f"index {used} out of range")
        out.append(_formatted(pattern[at : at + 1], precision, values[used]))
        used += 1
        at += 1
        if sum(map(len, out)) > MADE_MAX:
            raise CostExceeded("operation cancelled: actual cost limit exceeded")
    return "".join(out)


def _formatted(clause: str, precision: int, value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match clause:
        case "s":
            return shown(value)
        case "d" if whole:
            return str(int(value))
        case "d" if isinstance(value, float) and not math.isfinite(value):
            return _infinite(value)
        case "f" | "e" if whole or isinstance(value, float):
            number = float(value)
            if not math.isfinite(number):
                return _infinite(number)
            return f"{number:.{precision}{clause}}"
        case "b" if isinstance(value, int):
            return f"{int(value):b}"
        case "x" | "X":
            if whole:
                return f"{int(value):{clause}}"
            if isinstance(value, str | bytes):
                raw = value.encode() if isinstance(value, str) else value
                return raw.hex() if clause == "x" else raw.hex().upper()
        case "o" if whole:
            return f"{int(value):o}"
    raise CelError(f"error during formatting: unrecognized formatting clause for {type_of(value)}: %{clause}")


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def shown(value: Any) -> str:
    """A value as `%s` of format writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case UInt() | int():
            return str(int(value))
        case float():
            return float_text(value) if math.isfinite(value) else _infinite(value)
        case bytes():
            return value.decode(errors="replace")
        case Timestamp() | Duration():
            return str(value)
        case list():
            return f"[{', '.join(shown(item) for item in value)}]"
        case dict():
            pairs = sorted((key_text(key), shown(item)) for key, item in value.items())
            return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
        case TypeValue():
            return value.name
    raise CelError(
        "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, "
        f"maps, lists, types, durations, and timestamps, was given {type_of(value)}"
    )


EXTENSIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "charAt": _char_at,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "join": _join,
    "lowerAscii": _ascii(str.lower),
    "upperAscii": _ascii(str.upper),
    "replace": _replace,
    "reverse": lambda value: items(value)[::-1],
    "split": _split,
    "substring": _substring,
    "trim": lambda value: text(value).strip(),
    "format": _format,
    "strings.quote": lambda value: json.dumps(text(value), ensure_ascii=False),
    "sets.contains": _covers,
    "sets.equivalent": lambda left, right: _covers(left, right) and _covers(right, left),
    "sets.intersects": lambda left, right: any(equal(a, b) for a in items(left) for b in items(right)),
    "slice": _slice,
    "flatten": _flatten,
    "distinct": _distinct,
    "lists.range": _range,
    "sort": _sort,
    "first": lambda value: Optional(True, items(value)[0]) if items(value) else NONE,
    "last": lambda value: Optional(True, items(value)[-1]) if items(value) else NONE,
}
