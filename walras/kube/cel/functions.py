"""CEL's standard functions over values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.cel import regex
from walras.kube.cel.conversions import (
    integer,
    is_number,
    text_of,
    to_bool,
    to_bytes,
    to_double,
    to_duration,
    to_int,
    to_timestamp,
    to_uint,
    unsigned,
)
from walras.kube.cel.times import (
    duration_of,
    milliseconds,
    part,
    timestamp_of,
    truncated,
    year,
)
from walras.kube.cel.values import (
    NANOS,
    NONE,
    CelError,
    Duration,
    Opaque,
    Optional,
    Timestamp,
    TypeValue,
    UInt,
    alike,
    equal,
    no_overload,
    type_of,
)

# A function takes its arguments, a member's target first.
Function = Callable[..., Any]


def _add(left: Any, right: Any) -> Any:
    match left, right:
        case (bool(), _) | (_, bool()):
            pass
        case UInt(), UInt():
            return unsigned(int(left) + int(right))
        case (UInt(), int()) | (int(), UInt()):
            pass
        case int(), int():
            return integer(left + right)
        case float(), float():
            return left + right
        case str(), str():
            return left + right
        case bytes(), bytes():
            return left + right
        case list(), list():
            return left + right
        case Timestamp(), Duration():
            return timestamp_of(left.ns + right.ns)
        case Duration(), Timestamp():
            return timestamp_of(left.ns + right.ns)
        case Duration(), Duration():
            return duration_of(left.ns + right.ns)
    raise no_overload()


def _subtract(left: Any, right: Any) -> Any:
    match left, right:
        case (bool(), _) | (_, bool()):
            pass
        case UInt(), UInt():
            return unsigned(int(left) - int(right))
        case (UInt(), int()) | (int(), UInt()):
            pass
        case int(), int():
            return integer(left - right)
        case float(), float():
            return left - right
        case Timestamp(), Timestamp():
            return duration_of(left.ns - right.ns)
        case Timestamp(), Duration():
            return timestamp_of(left.ns - right.ns)
        case Duration(), Duration():
            return duration_of(left.ns - right.ns)
    raise no_overload()


def _arithmetic(whole: Callable[[int, int], int], real: Callable[[float, float], float] | None) -> Function:
    def run(left: Any, right: Any) -> Any:
        if type(left) is UInt and type(right) is UInt:
            return unsigned(whole(int(left), int(right)))
        if type(left) is int and type(right) is int:
            return integer(whole(left, right))
        if type(left) is float and type(right) is float and real is not None:
            return real(left, right)
        raise no_overload()

    return run


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise CelError("division by zero")
    return truncated(left, right)


def _modulo(left: int, right: int) -> int:
    if right == 0:
        raise CelError("modulus by zero")
    return abs(left) % abs(right) * (-1 if left < 0 else 1)


def _real_divide(left: float, right: float) -> float:
    if right == 0:
        return (
            math.nan
            if left == 0 or math.isnan(left)
            else math.copysign(math.inf, left) * math.copysign(1, right)
        )
    return left / right


def compare(left: Any, right: Any) -> int:
    """Less than, equal to or greater than zero. Raises CelError for what has no order."""
    comparable = (is_number(left) and is_number(right)) or (
        type(left) is type(right) and isinstance(left, bool | str | bytes | Timestamp | Duration)
    )
    if not comparable:
        raise no_overload()
    if (isinstance(left, float) and math.isnan(left)) or (isinstance(right, float) and math.isnan(right)):
        raise CelError("NaN values cannot be ordered")
    left, right = alike(left, right)
    return -1 if left < right else int(left > right)


def _negate(value: Any) -> Any:
    if type(value) is int:
        return integer(-value)
    if isinstance(value, float):
        return -value
    raise no_overload()


def _not(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    raise no_overload()


def contains(item: Any, whole: Any) -> bool:
    """`item in whole`."""
    if isinstance(whole, dict):
        return map_key(whole, item) in whole
    if isinstance(whole, list):
        return any(equal(item, each) for each in whole)
    raise no_overload()


def map_key(whole: Mapping[Any, Any], key: Any) -> Any:
    """The key as a dictionary finds it: whole numbers are one key whatever their type."""
    if isinstance(key, float) and key.is_integer():
        return int(key)
    if isinstance(key, bool) and key not in whole:
        return key
    if isinstance(key, list | dict):
        raise no_overload()
    return key


def _size(value: Any) -> int:
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    raise no_overload()


def _strings(run: Callable[[str, str], Any]) -> Function:
    def checked(left: Any, right: Any) -> Any:
        if isinstance(left, str) and isinstance(right, str):
            return run(left, right)
        raise no_overload()

    return checked


def _matches(text: str, pattern: str) -> bool:
    try:
        return regex.matches(pattern, text)
    except regex.PatternError as error:
        raise CelError(f"error parsing regexp: {error}") from None


def _value(value: Any) -> Any:
    if not isinstance(value, Optional):
        raise no_overload()
    if not value.has:
        raise CelError("optional.none() dereference")
    return value.value


def _non_zero(value: Any) -> Optional:
    return Optional(True, value) if value or isinstance(value, Timestamp | Opaque) else NONE


def _has_value(value: Any) -> bool:
    if not isinstance(value, Optional):
        raise no_overload()
    return value.has


def order(test: Callable[[int], bool]) -> Function:
    return lambda left, right: test(compare(left, right))


STANDARD: Final[Mapping[str, Function]] = {
    "!_": _not,
    "-_": _negate,
    "_==_": equal,
    "_!=_": lambda left, right: not equal(left, right),
    "@in": contains,
    "_+_": _add,
    "_-_": _subtract,
    "_*_": _arithmetic(lambda a, b: a * b, lambda a, b: a * b),
    "_/_": _arithmetic(_divide, _real_divide),
    "_%_": _arithmetic(_modulo, None),
    "_<_": order(lambda sign: sign < 0),
    "_<=_": order(lambda sign: sign <= 0),
    "_>_": order(lambda sign: sign > 0),
    "_>=_": order(lambda sign: sign >= 0),
    "size": _size,
    "bool": to_bool,
    "bytes": to_bytes,
    "double": to_double,
    "duration": to_duration,
    "dyn": lambda value: value,
    "int": to_int,
    "string": text_of,
    "timestamp": to_timestamp,
    "type": lambda value: TypeValue(type_of(value)),
    "uint": to_uint,
    "contains": _strings(lambda text, part: part in text),
    "endsWith": _strings(lambda text, part: text.endswith(part)),
    "startsWith": _strings(lambda text, part: text.startswith(part)),
    "matches": _strings(_matches),
    "getFullYear": year,
    "getMonth": part(lambda at: at.month - 1),
    "getDayOfYear": part(lambda at: at.timetuple().tm_yday - 1),
    "getDayOfMonth": part(lambda at: at.day - 1),
    "getDate": part(lambda at: at.day),
    "getDayOfWeek": part(lambda at: at.isoweekday() % 7),
    "getHours": part(lambda at: at.hour, 3600 * NANOS),
    "getMinutes": part(lambda at: at.minute, 60 * NANOS),
    "getSeconds": part(lambda at: at.second, NANOS),
    "getMilliseconds": milliseconds,
    "optional.of": lambda value: Optional(True, value),
    "optional.ofNonZeroValue": _non_zero,
    "optional.none": lambda: NONE,
    "hasValue": _has_value,
    "value": _value,
    "or": lambda value, other: value if _has_value(value) else other,
    "orValue": lambda value, other: value.value if _has_value(value) else other,
}
