"""Values of CEL as Python has them, and the few kinds that Python lacks.

int, bool, str, bytes, None, float, list and dict stand for themselves; a list or dict is never mutated.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
UINT_MAX: Final = 2**64 - 1
NANOS: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# 0001-01-01 to the end of 9999, in seconds since the epoch.
TIME_MIN_S: Final = -62135596800
TIME_MAX_S: Final = 253402300799


class CelError(Exception):
    """What an expression fails with while it runs; the text says why, in cel-go's words."""


class CostExceeded(CelError):
    """An evaluation took more than it may; no logical operator absorbs this."""


def no_overload() -> CelError:
    return CelError("no such overload")


class UInt(int):
    """An unsigned integer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A moment, in nanoseconds since the epoch, UTC."""

    ns: int

    def moment(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.ns // 1000)

    def __str__(self) -> str:
        whole, rest = divmod(self.ns, NANOS)
        text = (_EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")
        # strftime does not pad years below 1000.
        text = text.rjust(19, "0")
        return f"{text}.{rest:09d}".rstrip("0") + "Z" if rest else text + "Z"


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A span of time in nanoseconds."""

    ns: int

    def __str__(self) -> str:
        whole, rest = divmod(abs(self.ns), NANOS)
        sign = "-" if self.ns < 0 else ""
        return f"{sign}{whole}.{rest:09d}".rstrip("0") + "s" if rest else f"{sign}{whole}s"


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be missing."""

    has: bool
    value: Any = None


NONE: Final = Optional(False)


@dataclass(frozen=True, slots=True)
class TypeValue:
    """A type as a value, by its name."""

    name: str


class Opaque:
    """A value of a library: compared by `==`, and with a type of its own."""

    TYPE = ""

    def member(self, name: str) -> Any:
        """What is below it under a name. Raises CelError."""
        raise CelError(f"no such key: {name}")


def type_of(value: Any) -> str:  # noqa: PLR0912  one case a type
    """The value's type as CEL names it."""
    match value:
        case None:
            return "null_type"
        case bool():
            return "bool"
        case UInt():
            return "uint"
        case int():
            return "int"
        case float():
            return "double"
        case str():
            return "string"
        case bytes():
            return "bytes"
        case list():
            return "list"
        case dict():
            return "map"
        case Timestamp():
            return "google.protobuf.Timestamp"
        case Duration():
            return "google.protobuf.Duration"
        case Optional():
            return "optional_type"
        case TypeValue():
            return "type"
    return str(getattr(value, "TYPE", type(value).__name__))


def size_of(value: Any) -> int:
    """The value's size as costs count it: characters, bytes, items; 1 for what has none."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    if isinstance(value, Optional) and value.has:
        return size_of(value.value)
    return 1


def equal(left: Any, right: Any) -> bool:
    """CEL's equality: numbers by value whatever their type, others only with their own kind."""
    if left is right:
        return not (isinstance(left, float) and math.isnan(left))
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool) and left == right
    if isinstance(left, list):
        return (
            isinstance(right, list)
            and len(left) == len(right)
            and all(equal(a, b) for a, b in zip(left, right, strict=True))
        )
    if isinstance(left, dict):
        if not isinstance(right, dict) or len(left) != len(right):
            return False
        return all(key in right and equal(value, right[key]) for key, value in left.items())
    if isinstance(left, Optional):
        if not isinstance(right, Optional) or left.has != right.has:
            return False
        return equal(left.value, right.value)
    left, right = alike(left, right)
    return bool(left == right)


def alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both as doubles where one of two numbers is: upstream compares so, though large ones lose digits."""
    if isinstance(left, float) and isinstance(right, int):
        return left, float(right)
    if isinstance(left, int) and isinstance(right, float):
        return float(left), right
    return left, right


def plain(value: Any) -> Any:
    """The value as JSON has it. Raises CelError for what JSON cannot say."""
    match value:
        case None | bool() | str() | int():
            return int(value) if isinstance(value, UInt) else value
        case float():
            if not math.isfinite(value):
                raise CelError(f"type conversion error: {value} is not a JSON number")
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key_text(key): plain(item) for key, item in value.items()}
        case Timestamp() | Duration():
            return str(value)
        case Optional():
            return plain(value.value) if value.has else None
    to_json = getattr(value, "to_json", None)
    if to_json is not None:
        return to_json()
    raise CelError(f"type conversion error from '{type_of(value)}' to JSON")


def key_text(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)
