"""Single values as Go's decoder reads them: quantities and times, and what it says of what is none. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from walras.core.clock import parse_rfc3339, rfc3339, rfc3339_micro
from walras.core.errors import Invalid
from walras.core.quantity import canonical

_DATE_AND_TIME: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
_RFC3339: Final = re.compile(_DATE_AND_TIME + r"(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_UTC_SECONDS: Final = re.compile(_DATE_AND_TIME + "Z", re.ASCII)
_UTC_MICROS: Final = re.compile(_DATE_AND_TIME + r"\.\d{6}Z", re.ASCII)
_MICROS: Final = re.compile(r"\.\d{6}(?:Z|[+-]\d\d:\d\d)", re.ASCII)
_QUANTITY_CHARACTERS: Final = re.compile(r"[+-]?[0-9.]+[eEinumkKMGTP]*[-+]?[0-9]*", re.ASCII)


class CannotDecode(Exception):
    """What Go's decoder says of a value that it cannot take."""


class Mismatch(CannotDecode):
    """A value of another type than the field's, which Go's decoder tells once it has read the rest."""


def quantity(value: Any) -> str:
    """A quantity in canonical form. Raises CannotDecode."""
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    try:
        return canonical(text)
    except Invalid:
        if _QUANTITY_CHARACTERS.fullmatch(text):
            raise CannotDecode("unable to parse quantity's suffix") from None
        raise CannotDecode(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None


def time(value: Any, *, micro: bool) -> str:
    """A `metav1.Time`, or a `MicroTime`, in the form in which it is stored. Raises CannotDecode."""
    if not isinstance(value, str):
        raise CannotDecode(f"json: cannot unmarshal {json_type(value)} into Go value of type string")
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    if not _RFC3339.fullmatch(value):
        raise CannotDecode(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"')
    try:
        at_ms = parse_rfc3339(value)
        if (_UTC_MICROS if micro else _UTC_SECONDS).fullmatch(value):
            return value
        if micro and not _MICROS.fullmatch(value[19:]):
            rest = value[19:]
            raise CannotDecode(f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as ".000000"')
        # The first and the last day may be in no year of four digits where it is UTC.
        return rfc3339_micro(at_ms) if micro else rfc3339(at_ms)
    except (ValueError, OverflowError):
        raise CannotDecode(f'parsing time "{value}": {_out_of_range(value)} out of range') from None


def _out_of_range(value: str) -> str:
    """What of a time that there cannot be is to blame, in the order in which Go looks."""
    month, hour, minute, second = (int(value[at : at + 2]) for at in (5, 11, 14, 17))
    if not 1 <= month <= 12:
        return "month"
    if hour > 23:
        return "hour"
    if minute > 59:
        return "minute"
    return "second" if second > 59 else "day"


def base64_fault(text: str) -> int:
    """Where Go's decoder stops: at the first character that does not belong, or at a group that is cut."""
    group = 0
    for at, char in enumerate(text):
        if char in "\r\n":
            continue
        if not (char.isascii() and char.isalnum()) and char not in "+/":
            rest = text[at + 1 :].lstrip("\r\n")
            if char != "=" or group < 2 or (group == 2 and rest and rest[0] != "="):
                return at
            end = rest[1:].lstrip("\r\n") if group == 2 else rest
            return len(text) - len(end)
        group = (group + 1) % 4
    return len(text) - group


def json_type(value: Any) -> str:
    """What Go's decoder calls it."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
