"""Cron schedules in five fields, and descriptors such as @daily and @every 1h30m, as CronJobs have them.

Read and computed as github.com/robfig/cron does, which is what Kubernetes uses: a step over everything is no
star; days of month and week both count unless one of them is a star; hours that a clock skips have no times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from walras.core.errors import BadRequest, Invalid
from walras.core.quantity import parse_duration_ms

TEXT_MAX: Final = 512
YEARS_MAX: Final = 5
_MINUTE_MS: Final = 60_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_DIGITS_MAX: Final = 18
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAMED: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class _Field:
    values: frozenset[int]
    star: bool


@dataclass(frozen=True, slots=True)
class Every:
    """At a fixed distance from the time before."""

    period_ms: int

    def after(self, ms: int) -> int | None:
        return ms - ms % 1000 + self.period_ms


@dataclass(frozen=True, slots=True)
class Cron:
    """At the minutes of a zone's clock that the five fields name."""

    minute: _Field
    hour: _Field
    day: _Field
    month: _Field
    weekday: _Field
    zone: tzinfo

    def after(self, ms: int) -> int | None:
        """The first time later than `ms`; None where there is none in the next YEARS_MAX years."""
        if not all(field.values for field in (self.minute, self.hour, self.day, self.month, self.weekday)):
            return None
        at = datetime.fromtimestamp((ms - ms % _MINUTE_MS + _MINUTE_MS) / 1000, UTC)
        last = at.year + YEARS_MAX
        while at.year <= last:
            here = at.astimezone(self.zone)
            if here.month not in self.month.values:
                at = self._midnight(here.year + here.month // 12, here.month % 12 + 1, 1)
            elif not self._is_day(here):
                following = here.date() + timedelta(days=1)
                at = max(
                    self._midnight(following.year, following.month, following.day), at + timedelta(minutes=1)
                )
            elif here.hour not in self.hour.values:
                at += timedelta(minutes=60 - here.minute)
            elif here.minute not in self.minute.values:
                at += timedelta(minutes=1)
            else:
                return round(at.timestamp() * 1000)
        return None

    def _midnight(self, year: int, month: int, day: int) -> datetime:
        return datetime(year, month, day, tzinfo=self.zone).astimezone(UTC)

    def _is_day(self, here: datetime) -> bool:
        in_month = here.day in self.day.values
        in_week = here.isoweekday() % 7 in self.weekday.values
        if self.day.star or self.weekday.star:
            return in_month and in_week
        return in_month or in_week


Schedule = Cron | Every


def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """The schedule that the text describes, by the clock of a zone. Raises BadRequest."""
    text = text.strip()
    if len(text) > TEXT_MAX:
        raise BadRequest(f"a schedule has at most {TEXT_MAX} characters")
    if text.startswith("@every "):
        return Every(_period_ms(text.removeprefix("@every ").strip()))
    if text.startswith("@"):
        if text not in _NAMED:
            raise BadRequest(f"unrecognized descriptor: {text}")
        text = _NAMED[text]
    fields = text.split()
    if len(fields) != 5:
        raise BadRequest(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    return Cron(
        _field(fields[0], 0, 59),
        _field(fields[1], 0, 23),
        _field(fields[2], 1, 31),
        _field(fields[3], 1, 12, {name: number + 1 for number, name in enumerate(_MONTHS)}),
        _field(fields[4], 0, 6, {name: number for number, name in enumerate(_DAYS)}),
        zone,
    )


def latest(schedule: Schedule, since_ms: int, now_ms: int) -> int | None:
    """The last of the schedule's times later than `since_ms` and not later than `now_ms`; None if none is."""
    first = schedule.after(since_ms)
    if first is None or first > now_ms:
        return None
    if isinstance(schedule, Every):
        return first + (now_ms - first) // schedule.period_ms * schedule.period_ms
    # Looks back further and further, so that a schedule that was forgotten for years costs no more.
    window_ms = 2 * _MINUTE_MS
    while (found := schedule.after(max(since_ms, now_ms - window_ms))) is None or found > now_ms:
        window_ms *= 4
    while (following := schedule.after(found)) is not None and following <= now_ms:
        found = following
    return found


def _field(text: str, least: int, most: int, names: Mapping[str, int] | None = None) -> _Field:
    values: set[int] = set()
    star = False
    # Commas alone are no fault and mean nothing, as there.
    for part in filter(None, text.split(",")):
        found, is_star = _range(part, least, most, names or {})
        values.update(found)
        star = star or is_star
    return _Field(frozenset(values), star)


def _range(text: str, least: int, most: int, names: Mapping[str, int]) -> tuple[range, bool]:
    span, *steps = text.split("/")
    low, *highs = span.split("-")
    star = low in ("*", "?")
    if star:
        first, last = least, most
    else:
        first = _number(low, names)
        if len(highs) > 1:
            raise BadRequest(f"too many hyphens: {text}")
        last = _number(highs[0], names) if highs else most if steps else first
    if len(steps) > 1:
        raise BadRequest(f"too many slashes: {text}")
    step = _number(steps[0], {}) if steps else 1
    if first < least:
        raise BadRequest(f"beginning of range ({first}) below minimum ({least}): {text}")
    if last > most:
        raise BadRequest(f"end of range ({last}) above maximum ({most}): {text}")
    if first > last:
        raise BadRequest(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step < 1:
        raise BadRequest(f"step of range should be a positive number: {text}")
    return range(first, last + 1, step), star and step == 1


def _number(text: str, names: Mapping[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not _INTEGER.fullmatch(text):
        raise BadRequest(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    if len(text) > _DIGITS_MAX:
        raise BadRequest(
            f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": value out of range'
        )
    number = int(text)
    if number < 0:
        raise BadRequest(f"negative number ({number}) not allowed: {text}")
    return number


def _period_ms(text: str) -> int:
    """A duration as Go writes it, in whole seconds and at least one."""
    try:
        period_ms = parse_duration_ms(text)
    except Invalid:
        raise BadRequest(f'failed to parse duration @every {text}: time: invalid duration "{text}"') from None
    return max(1000, period_ms // 1000 * 1000)
