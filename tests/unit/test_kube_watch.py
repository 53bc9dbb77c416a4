"""Watches and lists: resumed from the store without a gap, seen through selectors, ended when too slow."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import BadRequest, Expired, Invalid, Timeout
from walras.kube import committer, state, watch
from walras.kube.api import API
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Context, Identity, Page, Verbs
from walras.kube.watch import Watch

Object = dict[str, Any]


class World:
    """An API on a file, that can be started again, and an operator's view of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self.store = SqliteStore(self.path)
        # What is proved here does not need the disk's patience.
        self.store._writer.execute("PRAGMA synchronous = OFF")
        self.api = API(self.store, VirtualClock(), SequenceIds())
        self.verbs = Verbs(self.api)

    def restart(self) -> None:
        self.store.close()
        self.start()

    async def put(self, name: str, cluster: str = "a", namespace: str = "default", **labels: str) -> Object:
        if self.api.find(cluster, "configmaps", namespace, name) is None:
            obj = {"metadata": {"name": name, "namespace": namespace, "labels": labels}}
            return await self.api.create(cluster, "configmaps", obj)
        return await self.api.edit(
            cluster, "configmaps", namespace, name, lambda o: o["metadata"].update(labels=labels)
        )

    async def drop(self, name: str, cluster: str = "a") -> None:
        await self.api.delete(cluster, "configmaps", "default", name)

    def watch(self, since: str = "", cluster: str = "a", namespace: str = "", **more: Any) -> Watch:
        resource = self.api.registry(cluster)["configmaps"]
        context = Context(Identity("op"), cluster)
        return self.verbs.watch(context, resource, namespace, resource_version=since, **more)

    def list(self, cluster: str = "a", namespace: str = "", **more: Any) -> Page:
        resource = self.api.registry(cluster)["configmaps"]
        return self.verbs.list(Context(Identity("op"), cluster), resource, namespace, **more)


def seen(watch: Watch) -> list[str]:
    """What is queued, as "TYPE name@revision"."""
    found = []
    while (event := watch.ready()) is not None:
        kind, obj = event
        metadata = obj["metadata"]
        found.append(f"{kind} {metadata.get('name', '')}@{metadata['resourceVersion']}")
    return found


def names(page: Page) -> list[str]:
    return [item["metadata"]["name"] for item in page.items]


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    def telling(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def told() -> None:
            world = World(tmp_path / "db")
            await world.api.create_cluster("a")
            await world.api.create_cluster("b")
            await story(world)
            world.store.close()

        asyncio.run(told())

    return telling


Tell = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def test_a_watch_from_nothing_begins_with_what_there_is(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        stream = world.watch()
        await world.put("y")
        await world.put("x", v="2")
        await world.drop("y")
        assert seen(stream) == ["ADDED x@2", "ADDED y@3", "MODIFIED x@4", "DELETED y@5"]

    tell(story)


def test_a_watch_resumes_where_a_list_ended_also_after_a_restart(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        since = world.list().resource_version
        await world.put("y")
        await world.put("x", v="2")
        await world.drop("y")
        world.restart()
        stream = world.watch(since)
        await world.put("z")
        assert seen(stream) == ["ADDED y@3", "MODIFIED x@4", "DELETED y@5", "ADDED z@6"]
        assert seen(world.watch("5")) == ["ADDED z@6"]
        assert seen(world.watch("6")) == []

    tell(story)


def test_what_is_staged_is_not_seen_before_it_is_durable(tell: Tell) -> None:
    async def story(world: World) -> None:
        stream = world.watch()
        writing = asyncio.ensure_future(world.put("x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert world.list().items == [] and seen(stream) == []
        late = world.watch("1")
        await writing
        assert seen(stream) == seen(late) == ["ADDED x@2"]

    tell(story)


def test_a_waiting_reader_is_woken(tell: Tell) -> None:
    async def story(world: World) -> None:
        stream = world.watch()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await world.put("x")
        kind, obj = await waiting
        assert (kind, obj["metadata"]["name"]) == ("ADDED", "x")
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        stream.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert len(world.api.hub) == 0

    tell(story)


def test_an_object_enters_and_leaves_a_selection(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x", color="red")
        since = world.list().resource_version
        live = world.watch(since, label_selector="color=blue")
        await world.put("x", color="blue")
        await world.put("x", color="blue", size="2")
        await world.put("x", color="green")
        await world.put("x", color="blue")
        await world.drop("x")
        expected = ["ADDED x@3", "MODIFIED x@4", "DELETED x@5", "ADDED x@6", "DELETED x@7"]
        assert seen(live) == expected
        assert seen(world.watch(since, label_selector="color=blue")) == expected
        left = world.watch("4", label_selector="color=blue").ready()
        assert left is not None and left.object["metadata"]["labels"] == {"color": "blue", "size": "2"}

    tell(story)


def test_a_watch_of_a_namespace_and_of_one_name(tell: Tell) -> None:
    async def story(world: World) -> None:
        here = world.watch(namespace="here")
        one = world.watch(field_selector="metadata.name=x")
        await world.put("x", namespace="here")
        await world.put("y", namespace="there")
        assert seen(here) == ["ADDED x@2"] and seen(one) == ["ADDED x@2"]

    tell(story)


def test_a_compacted_revision_is_expired_and_a_later_one_is_not(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "HISTORY_REVISIONS", 10)
    monkeypatch.setattr(committer, "COMPACT_STEP", 5)

    async def story(world: World) -> None:
        for number in range(40):
            await world.put("x", v=str(number))
        compacted = world.api.state.clusters["a"].compacted
        assert 25 <= compacted <= 35
        with pytest.raises(Expired, match="too old resource version: 2 "):
            world.watch("2")
        assert len(seen(world.watch(str(compacted)))) == 41 - compacted
        world.restart()
        with pytest.raises(Expired):
            world.watch(str(compacted - 1))
        assert len(seen(world.watch(str(compacted)))) == 41 - compacted
        (rows,) = world.store.query("SELECT count(*) FROM versions WHERE cluster = 'a'")[0]
        assert rows <= 20

    tell(story)


def test_the_history_of_large_objects_is_kept_by_their_bytes(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MARK_BYTES", 10_000)
    monkeypatch.setattr(committer, "HISTORY_MARKS", 4)

    async def story(world: World) -> None:
        for number in range(60):
            await world.put("x", v=f"{number}".ljust(5_000, "y"))
        (stored,) = world.store.query("SELECT sum(length(data)) FROM versions WHERE cluster = 'a'")[0]
        assert stored <= 6 * 10_000 + 2 * 5_500
        compacted = world.api.state.clusters["a"].compacted
        assert compacted > 40
        assert len(seen(world.watch(str(compacted)))) == 61 - compacted

    tell(story)


def test_a_slow_reader_is_ended_and_told_to_list_again(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUEUE_MAX", 3)

    async def story(world: World) -> None:
        stream = world.watch()
        for number in range(5):
            await world.put("x", v=str(number))
        assert [(await anext(stream)).type for _ in range(3)] == ["ADDED", "MODIFIED", "MODIFIED"]
        with pytest.raises(Expired, match="too far behind"):
            await anext(stream)
        assert len(world.api.hub) == 0

    tell(story)


def test_a_reader_slow_by_bytes_is_ended_and_one_that_keeps_up_is_not(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUEUE_BYTES_MAX", 5000)

    async def story(world: World) -> None:
        slow, quick = world.watch(), world.watch()
        for number in range(20):
            await world.put("x", v=str(number) + "x" * 1000)
            assert (await anext(quick)).type in ("ADDED", "MODIFIED")
        waiting = [event for _ in range(20) if (event := slow.ready())]
        assert 1 < len(waiting) < 6
        with pytest.raises(Expired, match="too far behind"):
            await anext(slow)
        assert len(world.api.hub) == 1

    tell(story)


def test_more_initial_objects_than_may_wait_still_end_with_their_bookmark(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "QUEUE_MAX", 3)

    async def story(world: World) -> None:
        for name in "abcde":
            await world.put(name)
        stream = world.watch(send_initial_events=True, bookmarks=True)
        assert [(await anext(stream)).type for _ in range(6)] == ["ADDED"] * 5 + ["BOOKMARK"]

    tell(story)


def test_initial_events_end_with_a_bookmark(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        stream = world.watch("2", send_initial_events=True, bookmarks=True)
        assert stream.ready() is not None
        kind, mark = await anext(stream)
        assert kind == "BOOKMARK"
        assert mark == {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"resourceVersion": "2", "annotations": {"k8s.io/initial-events-end": "true"}},
        }
        with pytest.raises(Timeout, match="Too large resource version: 9, current: 2"):
            world.watch("9", send_initial_events=True)

    tell(story)


def test_idle_watches_that_take_bookmarks_get_them(tell: Tell) -> None:
    async def story(world: World) -> None:
        taking, plain = world.watch("1", bookmarks=True), world.watch("1")
        await world.api.create("a", "secrets", {"metadata": {"name": "s", "namespace": "default"}})
        world.api.hub.mark()
        assert seen(taking) == ["BOOKMARK @2"] and seen(plain) == []
        taking.close()
        world.api.hub.mark()
        assert world.api.hub._timer is None

    tell(story)


def test_watches_end_with_their_cluster(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        stream, everywhere = world.watch("2"), world.watch("", "*")
        await world.api.delete_cluster("a")
        assert [kind async for kind, _ in stream] == []
        assert seen(everywhere) == ["ADDED x@2", "DELETED x@2"]

    tell(story)


def test_a_watch_over_all_clusters_says_which_one(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x", cluster="a")
        page = world.list("*")
        stream = world.watch(page.resource_version, "*")
        await world.put("y", cluster="b")
        await world.put("z", cluster="a")
        events = [stream.ready(), stream.ready()]
        clusters = [
            event.object["metadata"]["annotations"]["walras.dev/cluster"] for event in events if event
        ]
        assert clusters == ["b", "a"]
        assert [i["metadata"]["annotations"] for i in page.items] == [{"walras.dev/cluster": "a"}]
        with pytest.raises(Expired):
            world.watch(page.resource_version, "*")

    tell(story)


# ---- lists


def test_pages_are_of_one_moment_whatever_happens_between_them(tell: Tell) -> None:
    async def story(world: World) -> None:
        for name in "abcde":
            await world.put(name)
        first = world.list(limit=2)
        assert names(first) == ["a", "b"] and first.remaining == 3
        await world.drop("c")
        await world.put("bb")
        await world.put("d", v="2")
        second = world.list(limit=2, continue_=first.continue_)
        assert names(second) == ["c", "d"] and second.resource_version == first.resource_version
        assert second.items[1]["metadata"].get("labels") in (None, {})
        world.restart()
        third = world.list(limit=2, continue_=second.continue_)
        assert names(third) == ["e"] and third.continue_ == ""
        assert names(world.list()) == ["a", "b", "bb", "d", "e"]

    tell(story)


def test_a_page_that_fits_exactly_is_the_last(tell: Tell) -> None:
    async def story(world: World) -> None:
        for name in "abcd":
            await world.put(name)
        first = world.list(limit=2)
        second = world.list(limit=2, continue_=first.continue_)
        assert names(second) == ["c", "d"] and second.continue_ == ""

    tell(story)


def test_pages_with_a_selector_are_full(tell: Tell) -> None:
    async def story(world: World) -> None:
        for name in "abcdef":
            await world.put(name, even=str("bdf".count(name)))
        first = world.list(limit=2, label_selector="even=1")
        assert names(first) == ["b", "d"] and first.remaining is None
        assert names(world.list(limit=2, label_selector="even=1", continue_=first.continue_)) == ["f"]

    tell(story)


def test_a_list_can_be_of_an_exact_revision(tell: Tell) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        await world.put("y", namespace="other")
        await world.drop("x")
        world.restart()
        exact = {"resource_version_match": "Exact"}
        assert names(world.list(resource_version="3", **exact)) == ["x", "y"]
        assert names(world.list(resource_version="3", namespace="default", **exact)) == ["x"]
        assert names(world.list(resource_version="4", **exact)) == ["y"]
        assert names(world.list(resource_version="3", resource_version_match="NotOlderThan")) == ["y"]
        with pytest.raises(Timeout, match="Too large"):
            world.list(resource_version="99", **exact)

    tell(story)


def test_an_old_page_token_is_expired(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "HISTORY_REVISIONS", 5)
    monkeypatch.setattr(committer, "COMPACT_STEP", 2)

    async def story(world: World) -> None:
        for name in "abc":
            await world.put(name)
        page = world.list(limit=1)
        for number in range(20):
            await world.put("a", v=str(number))
        with pytest.raises(Expired, match="continue parameter is too old"):
            world.list(limit=1, continue_=page.continue_)

    tell(story)


NO_TOKENS = (
    b"{}",
    b'{"v":1}',
    b'{"v":"meta.k8s.io/v1","rv":-1,"start":"a\\u0000b"}',
    b'{"v":"meta.k8s.io/v1","rv":1,"start":"a"}',
)


@pytest.mark.parametrize(
    "token", ["x", "!!!!", "AAAA" * 9, *(base64.b64encode(body).decode() for body in NO_TOKENS)]
)
def test_a_made_up_page_token_is_refused(tell: Tell, token: str) -> None:
    async def story(world: World) -> None:
        with pytest.raises(BadRequest, match="continue key is not valid"):
            world.list(continue_=token)

    tell(story)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"resource_version": "x"}, BadRequest),
        ({"resource_version": "-1"}, BadRequest),
        ({"resource_version_match": "Exact"}, Invalid),
        ({"resource_version": "0", "resource_version_match": "Exact"}, Invalid),
        ({"resource_version": "2", "resource_version_match": "Sometime"}, Invalid),
        ({"label_selector": "a=="}, None),
        ({"label_selector": "=a"}, BadRequest),
        ({"field_selector": "spec.x=1"}, BadRequest),
    ],
)
def test_parameters_that_mean_nothing_are_refused(
    tell: Tell, more: dict[str, Any], error: type[Exception] | None
) -> None:
    async def story(world: World) -> None:
        await world.put("x")
        if error is None:
            world.list(**more)
            return
        with pytest.raises(error):
            world.list(**more)

    tell(story)
