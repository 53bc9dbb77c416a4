"""How Go names and prints the values of JSON, for messages that do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

# From this power of ten on Go prints the exponent of a float.
_EXPONENT: Final = 6


def type_of(value: Any) -> str:
    """The type that a JSON value is decoded into, as %T prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, list):
        return "[]interface {}"
    if isinstance(value, dict):
        return "map[string]interface {}"
    return {int: "int64", float: "float64"}.get(type(value), "string")


def printed(value: Any) -> str:
    """The value as %v prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(printed, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    number = Decimal(repr(value)).normalize()
    power = number.adjusted() if number else 0
    if -4 <= power < _EXPONENT:
        return f"{number:f}"
    sign, digits, _ = number.as_tuple()
    first, *rest = map(str, digits)
    mantissa = f"{first}.{''.join(rest)}" if rest else first
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02}"
