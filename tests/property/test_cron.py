"""Cron schedules against the plainest possible reading: every minute looked at, one after the other."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core import cron

MINUTE = 60_000
START = 1_700_000_000_000


def field(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    one = number.map(str)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    part = st.one_of(one, span, step)
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


SCHEDULES = st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)).map(" ".join)


def matches(text: str, ms: int) -> bool:
    at = datetime.fromtimestamp(ms / 1000, UTC)
    minute, hour, day, month, weekday = text.split()

    def holds(spec: str, value: int, least: int, most: int) -> bool:
        for part in spec.split(","):
            span, _, step = part.partition("/")
            low, dash, high = span.partition("-")
            first = least if low == "*" else int(low)
            last = most if low == "*" else int(high) if dash else most if step else first
            if first <= value <= last and (value - first) % int(step or 1) == 0:
                return True
        return False

    def star(spec: str) -> bool:
        return any(part in ("*", "*/1") for part in spec.split(","))

    in_month = holds(day, at.day, 1, 31)
    in_week = holds(weekday, at.isoweekday() % 7, 0, 6)
    days = in_month and in_week if star(day) or star(weekday) else in_month or in_week
    return (
        days
        and holds(minute, at.minute, 0, 59)
        and holds(hour, at.hour, 0, 23)
        and holds(month, at.month, 1, 12)
    )


@settings(max_examples=200, deadline=None)
@given(SCHEDULES, st.integers(0, 525_600), st.integers(0, 59_999))
def test_the_next_time_is_the_first_minute_that_matches(text: str, minutes: int, rest: int) -> None:
    since = START + minutes * MINUTE + rest
    found = cron.parse(text).after(since)
    first = since - since % MINUTE + MINUTE
    for ms in range(first, first + 1500 * MINUTE, MINUTE):
        if matches(text, ms):
            assert found == ms
            return
    assert found is None or found >= first + 1500 * MINUTE


@settings(max_examples=200, deadline=None)
@given(SCHEDULES, st.integers(0, 525_600), st.integers(0, 525_600))
def test_the_latest_time_is_followed_by_none_until_now(text: str, minutes: int, elapsed: int) -> None:
    since = START + minutes * MINUTE
    now = since + elapsed * MINUTE
    schedule = cron.parse(text)
    found = cron.latest(schedule, since, now)
    following = schedule.after(since if found is None else found)
    assert following is None or following > now
    assert found is None or (since < found <= now and matches(text, found))
