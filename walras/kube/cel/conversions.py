"""From one type of value to another, as CEL's functions named after types do it."""

from __future__ import annotations

import math
import re
from typing import Any

from walras.kube.cel.times import duration_of, parse_duration, parse_timestamp, timestamp_of
from walras.kube.cel.values import (
    INT_MAX,
    INT_MIN,
    NANOS,
    UINT_MAX,
    CelError,
    Duration,
    Opaque,
    Timestamp,
    UInt,
    no_overload,
)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def integer(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise CelError("integer overflow")
    return value


def unsigned(value: int) -> UInt:
    if not 0 <= value <= UINT_MAX:
        raise CelError("unsigned integer overflow")
    return UInt(value)


def float_text(value: float) -> str:
    """As Go's strconv writes it with 'g' and the fewest digits."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    digits, _, exponent = f"{abs(value):.16e}".partition("e")
    for precision in range(17):
        short, _, scale = f"{abs(value):.{precision}e}".partition("e")
        if float(f"{short}e{scale}") == abs(value):
            digits, exponent = short, scale
            break
    sign, power = "-" if math.copysign(1, value) < 0 else "", int(exponent)
    plain = digits.replace(".", "")
    if -4 <= power < 6:
        if power < 0:
            return f"{sign}0.{'0' * (-power - 1)}{plain}"
        plain = plain.ljust(power + 1, "0")
        whole, fraction = plain[: power + 1], plain[power + 1 :]
        return f"{sign}{whole}.{fraction}" if fraction else sign + whole
    return f"{sign}{digits}e{exponent[0]}{exponent[1:].rjust(2, '0')}"


def to_int(value: Any) -> int:
    match value:
        case bool():
            raise no_overload()
        case int():
            return integer(int(value))
        case float():
            if math.isnan(value) or math.isinf(value) or not INT_MIN < value < INT_MAX:
                raise CelError("integer overflow")
            return int(value)
        case str():
            if re.fullmatch(r"[+-]?\d+", value, re.ASCII):
                return integer(int(value)) if len(value) < 64 else integer(INT_MAX + 1)
            raise CelError(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        case Timestamp():
            return value.ns // NANOS
        case Duration():
            return value.ns
    raise no_overload()


def to_uint(value: Any) -> UInt:
    match value:
        case bool():
            raise no_overload()
        case int():
            return unsigned(int(value))
        case float():
            if math.isnan(value) or not 0 <= value < UINT_MAX:
                raise CelError("unsigned integer overflow")
            return UInt(int(value))
        case str():
            if re.fullmatch(r"\d+", value, re.ASCII):
                return unsigned(int(value)) if len(value) < 64 else unsigned(UINT_MAX + 1)
            raise CelError(f'strconv.ParseUint: parsing "{value}": invalid syntax')
    raise no_overload()


def to_double(value: Any) -> float:
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        try:
            if not re.fullmatch(r"\s+.*|.*_.*|.*\s+", value, re.S):
                return float(value)
        except ValueError:
            pass
        raise CelError(f'strconv.ParseFloat: parsing "{value}": invalid syntax')
    raise no_overload()


def to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in ("true", "True", "TRUE", "t", "1"):
            return True
        if value in ("false", "False", "FALSE", "f", "0"):
            return False
        raise CelError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    raise no_overload()


def text_of(value: Any) -> str:
    """`string(value)`."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(int(value))
        case float():
            return float_text(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
        case Timestamp() | Duration():
            return str(value)
        case Opaque() if value.TYPE in ("net.IP", "net.CIDR"):
            return str(value)
    raise no_overload()


def to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, bytes):
        return value
    raise no_overload()


def to_timestamp(value: Any) -> Timestamp:
    match value:
        case Timestamp():
            return value
        case str():
            return parse_timestamp(value)
        case bool():
            raise no_overload()
        case int():
            return timestamp_of(int(value) * NANOS)
    raise no_overload()


def to_duration(value: Any) -> Duration:
    match value:
        case Duration():
            return value
        case str():
            return parse_duration(value)
        case bool():
            raise no_overload()
        case int():
            return duration_of(int(value))
    raise no_overload()
