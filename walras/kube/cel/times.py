"""Timestamps and durations: read, bounded, and taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from walras.kube.cel.values import (
    INT_MAX,
    INT_MIN,
    NANOS,
    TIME_MAX_S,
    TIME_MIN_S,
    CelError,
    Duration,
    Timestamp,
    no_overload,
)

_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?"
    r"(?:([Zz])|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_CYCLE: Final = timedelta(days=146_097)
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNITS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": NANOS, "m": 60 * NANOS,
    "h": 3600 * NANOS,
}  # fmt: skip


def timestamp_of(ns: int) -> Timestamp:
    if not TIME_MIN_S <= ns // NANOS <= TIME_MAX_S:
        raise CelError("timestamp overflow")
    return Timestamp(ns)


def duration_of(ns: int) -> Duration:
    if not INT_MIN <= ns <= INT_MAX:
        raise CelError("duration overflow")
    return Duration(ns)


def parse_timestamp(text: str) -> Timestamp:
    """Of RFC 3339. Raises CelError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise CelError(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}"')
    *parts, fraction, _, sign, hours, minutes = match.groups()
    try:
        year, month, day, hour, minute, second = map(int, parts)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise CelError(f'parsing time "{text}": out of range') from None
    offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) - offset
    return timestamp_of(whole * NANOS + int((fraction or "0").ljust(9, "0")))


def parse_duration(text: str) -> Duration:
    """Of Go's form, such as "1h30m". Raises CelError."""
    body = text[1:] if text[:1] in "+-" else text
    parts = _DURATION.findall(body)
    if body == "0":
        return Duration(0)
    if not parts or "".join(number + unit for number, unit in parts) != body or len(body) > 128:
        raise CelError(f'time: invalid duration "{text}"')
    total = 0
    for number, unit in parts:
        whole, _, fraction = number.partition(".")
        scale = _UNITS[unit]
        total += int(whole or 0) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
    return duration_of(-total if text.startswith("-") else total)


def truncated(left: int, right: int) -> int:
    """The quotient without its fraction."""
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _zone(name: Any) -> tzinfo:
    if not isinstance(name, str):
        raise no_overload()
    offset = re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name, re.ASCII)
    if offset:
        minutes = int(offset[2]) * 60 + int(offset[3])
        if minutes >= 24 * 60:
            raise CelError(f"unknown time zone {name}")
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        # Only names of the zone database: a path is none.
        if not re.fullmatch(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", name, re.ASCII):
            raise ValueError
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CelError(f"unknown time zone {name}") from None


def part(get: Callable[[datetime], int], whole_of: int = 0) -> Callable[..., int]:
    """A part of a timestamp; of a duration, all of it in units of `whole_of` nanoseconds."""

    def run(value: Any, zone: Any = "UTC") -> int:
        if isinstance(value, Duration) and whole_of:
            return truncated(value.ns, whole_of)
        if not isinstance(value, Timestamp):
            raise no_overload()
        return get(_local(value, _zone(zone)))

    return run


def year(value: Any, zone: Any = "UTC") -> int:
    if not isinstance(value, Timestamp):
        raise no_overload()
    return _local(value, _zone(zone)).year - 400 * _cycles(value)


def _cycles(value: Timestamp) -> int:
    """Cycles of the calendar, of 400 years, that bring the days around the time within Python's years."""
    return {MINYEAR: 1, MAXYEAR: -1}.get(value.moment().year, 0)


def _local(value: Timestamp, zone: tzinfo) -> datetime:
    """The time in a zone, some cycles of the calendar later or earlier: all but the year is the same then."""
    return (value.moment() + _cycles(value) * _CYCLE).astimezone(zone)


def milliseconds(value: Any, zone: Any = "UTC") -> int:
    if isinstance(value, Duration):
        return truncated(value.ns, 10**6)
    if isinstance(value, Timestamp):
        _zone(zone)
        return value.ns % NANOS // 10**6
    raise no_overload()
