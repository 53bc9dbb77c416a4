"""Cron schedules: what the five fields mean, and the times that they name."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from walras.core import cron
from walras.core.errors import BadRequest

NEW_YORK = ZoneInfo("America/New_York")


def ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def after(schedule: str, text: str, zone: str = "UTC") -> str:
    found = cron.parse(schedule, ZoneInfo(zone)).after(ms(text, zone))
    assert found is not None
    return datetime.fromtimestamp(found / 1000, ZoneInfo(zone)).isoformat(" ", "minutes")[:16]


# The first cases are of github.com/robfig/cron's own tests (spec_test.go).
@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        ("0/15 * * * *", "2012-07-09 14:45", "2012-07-09 15:00"),
        ("0/15 * * * *", "2012-07-09 14:59:59", "2012-07-09 15:00"),
        ("20-35/15 * * * *", "2012-07-09 15:45", "2012-07-09 16:20"),
        ("0 0 1 */3 *", "2012-07-09 14:00", "2012-10-01 00:00"),
        ("0 0 9 Apr-Oct ?", "2012-07-09 23:35", "2012-08-09 00:00"),
        ("0 0 */3 Apr,Aug,Oct Mon", "2012-07-08 23:35", "2012-08-01 00:00"),
        ("0 0 29 Feb ?", "2012-07-09 23:35", "2016-02-29 00:00"),
        ("0 0 * Feb Mon", "2012-07-09 23:35", "2013-02-04 00:00"),
        ("0 0 * 5 Mon/2", "2012-07-09 23:35", "2013-05-01 00:00"),
        ("* * * * *", "2012-12-31 23:59:45", "2013-01-01 00:00"),
        ("30 6-16/4 * * 1-5", "2024-01-05 14:31", "2024-01-08 06:30"),
        ("0 12 13 * FRI", "2024-01-01 00:00", "2024-01-05 12:00"),
        ("@weekly", "2024-01-03 00:00", "2024-01-07 00:00"),
        ("@yearly", "2024-01-03 00:00", "2025-01-01 00:00"),
    ],
)  # fmt: skip
def test_the_next_time(schedule: str, since: str, expected: str) -> None:
    assert after(schedule, since) == expected


def test_a_day_that_the_calendar_never_has_has_no_time() -> None:
    assert cron.parse("0 0 31 2 *").after(ms("2024-01-01")) is None


def test_every_counts_from_the_time_before() -> None:
    schedule = cron.parse("@every 1h30m5s")
    assert schedule.after(ms("2012-07-09 14:45")) == ms("2012-07-09 16:15:05")
    assert cron.parse("@every 10ms").after(5000) == 6000


def test_an_hour_that_the_clock_skips_has_no_times_and_one_that_it_repeats_has_them_twice() -> None:
    zone = "America/New_York"
    # robfig's daylight saving cases.
    assert after("30 2 11 Mar ?", "2012-03-11 00:00", zone) == "2013-03-11 02:30"
    assert after("0 * * * *", "2012-03-11 01:00", zone) == "2012-03-11 03:00"
    schedule = cron.parse("30 1 * * *", NEW_YORK)
    first = schedule.after(ms("2012-11-04 00:00", zone))
    assert first is not None
    second = schedule.after(first)
    assert second is not None
    assert second - first == 3_600_000


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7", "5-1 * * * *",
     "*/0 * * * *", "a * * * *", "1-2-3 * * * *", "@often", "@every", "@every 1 fortnight", "-1 * * * *",
     "9999999999 * * * *", "* * * * * *", "TZ=UTC * * * * *"],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        cron.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("*/-5 * * * *", "negative number (-5) not allowed: -5"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("@every x", 'failed to parse duration @every x: time: invalid duration "x"'),
    ],
)
def test_it_is_told_in_the_words_of_kubernetes_library(text: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        cron.parse(text)
    assert refused.value.message == said


def test_commas_alone_are_allowed_and_name_no_time() -> None:
    assert cron.parse(", * * * *").after(0) is None


def test_the_latest_time_is_found_after_years_of_neglect() -> None:
    since, now = ms("2014-01-01"), ms("2024-06-15 12:34:56")
    assert cron.latest(cron.parse("*/5 * * * *"), since, now) == ms("2024-06-15 12:30")
    assert cron.latest(cron.parse("0 0 1 1 *"), since, now) == ms("2024-01-01")
    assert cron.latest(cron.parse("@every 1h"), since, now) == ms("2024-06-15 12:00")
    assert cron.latest(cron.parse("0 0 1 1 *"), ms("2024-02-01"), now) is None
