"""Requests that move to a new revision over time, as rollout-duration says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.functions import Stage, service, stage
from support.world import AGENT

from walras.functions.rollouts import Rollout
from walras.functions.words import REVISIONS, ROUTES

Object = dict[str, Any]


def rolling(says: str = "", duration: str = "100s", **said: Any) -> Object:
    made = service(says=says, **said)
    made["metadata"]["annotations"] = {"serving.knative.dev/rollout-duration": duration}
    return made


def split(on: Stage) -> list[tuple[str, int]]:
    return [(each["revisionName"][-1], each.get("percent", 0)) for each in on.status()["traffic"]]


def ingress(on: Stage) -> tuple[str, str]:
    conditions = on.status(ROUTES)["conditions"]
    found = next(each for each in conditions if each["type"] == "IngressReady")
    return found["status"], found.get("reason", "")


async def asked(on: Stage, count: int = 100) -> Counter[str]:
    return Counter([(await on.get()).revision[-1] for _ in range(count)])


def test_a_new_revision_gets_more_and_more_of_the_requests_until_it_has_all() -> None:
    async def story(on: Stage) -> None:
        await on.ready(rolling("one", min_scale="1"))
        assert split(on) == [("1", 100)] and on.ready_of() == ("True", "")
        await on.ready(rolling("two", min_scale="1"))
        await on.world.settle()
        assert split(on) == [("1", 99), ("2", 1)]
        assert ingress(on) == ("Unknown", "RolloutInProgress")
        assert on.ready_of() == ("Unknown", "RolloutInProgress")
        assert await asked(on) == {"1": 99, "2": 1}
        await on.seconds(50)
        ((_, old), (_, new)) = split(on)
        assert 45 <= new <= 51 and old + new == 100
        assert await asked(on) == {"1": old, "2": new}
        await on.seconds(55)
        assert split(on) == [("2", 100)] and on.ready_of() == ("True", "")
        assert "annotations" not in on.status(ROUTES)

    stage(story)


def test_a_third_revision_takes_from_the_oldest_first() -> None:
    async def story(on: Stage) -> None:
        await on.ready(rolling("one", min_scale="1"))
        await on.ready(rolling("two", min_scale="1"))
        await on.seconds(40)
        (_, (_, had)) = split(on)
        await on.ready(rolling("three", min_scale="1"))
        await on.seconds(10)
        parts = dict(split(on))
        assert set(parts) == {"1", "2", "3"} and sum(parts.values()) == 100
        assert parts["2"] >= had and parts["3"] >= 5
        await on.seconds(100)
        assert split(on) == [("3", 100)]

    stage(story)


def test_a_revision_that_is_gone_is_not_asked_while_others_take_over() -> None:
    async def story(on: Stage) -> None:
        await on.ready(rolling("one", min_scale="1"))
        await on.ready(rolling("two", min_scale="1"))
        await on.world.api.delete(AGENT, REVISIONS, "default", "hello-00001")
        await on.world.settle()
        assert split(on) == [("2", 100)]

    stage(story)


def test_the_rest_of_the_traffic_and_tags_stay_as_they_are() -> None:
    async def story(on: Stage) -> None:
        await on.ready(rolling("one", min_scale="1"))
        pinned = {"revisionName": "hello-00001", "percent": 60}
        newest = {"latestRevision": True, "percent": 40, "tag": "next"}
        await on.ready(rolling("one", min_scale="1", traffic=[pinned, newest]))
        await on.ready(rolling("two", min_scale="1", traffic=[pinned, newest]))
        await on.world.settle()
        assert split(on) == [("1", 60), ("1", 39), ("2", 1)]
        assert (await on.get(f"next-hello.default.{AGENT}.functions.localhost")).revision == "hello-00002"
        await on.seconds(105)
        assert split(on) == [("1", 60), ("2", 40)]

    stage(story)


@pytest.mark.parametrize(
    "forged",
    [
        "{",
        '{"":{"to":1}}',
        '{"":{"to":"hello-00002","shares":[["x",900]],"since_ms":0}}',
        '{"":{"to":"hello-00001","shares":[["hello-00001",99]],"since_ms":1%s}}' % ("0" * 400),
    ],
)
def test_a_status_that_says_something_else_changes_nothing(forged: str) -> None:
    async def story(on: Stage) -> None:
        await on.ready(rolling("one", min_scale="1"))

        def forge(latest: Object) -> None:
            latest["status"]["annotations"] = {"serving.knative.dev/rollout": forged}

        await on.world.api.edit(AGENT, ROUTES, "default", "hello", forge)
        await on.world.settle()
        assert split(on) == [("1", 100)]

    stage(story)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
    st.integers(1, 100),
    st.integers(1, 10_000_000),
    st.integers(-1000, 20_000_000),
)
def test_parts_are_always_the_whole_and_the_new_one_never_has_less_than_before(
    shares: list[int], percent: int, duration_ms: int, now_ms: int
) -> None:
    rollout = Rollout("new", tuple((f"old-{number}", share) for number, share in enumerate(shares)), 0)
    parts = rollout.split(percent, now_ms, duration_ms)
    assert sum(part for _, part in parts) == percent and all(part > 0 for _, part in parts)
    later = rollout.split(percent, now_ms + 1000, duration_ms)
    assert parts[-1][0] == "new" and later[-1][1] >= parts[-1][1]
    if now_ms >= duration_ms:
        assert parts == (("new", percent),)
    else:
        assert rollout.next_ms(percent, now_ms, duration_ms) >= 1000
