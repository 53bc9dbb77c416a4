"""Watches as the application streams them: how they begin, how they end, how many one caller has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from support.application import application

from walras.core.errors import Expired
from walras.kube.serve import streams
from walras.kube.serve.app import Application
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs


class Streaming:
    """One streamed request, driven by hand: what was sent, and a client that leaves when told."""

    def __init__(self, app: Application, path: str, token: str = "one") -> None:
        url = httpx.URL(f"https://walras/clusters/one{path}")
        self.sent: list[Any] = []
        self.news = asyncio.Condition()
        self.left = asyncio.Event()
        self.scope = {
            "type": "http", "method": "GET", "path": url.path, "raw_path": url.path.encode(),
            "query_string": url.query, "headers": [(b"authorization", f"Bearer {token}".encode())],
        }  # fmt: skip
        self.task = asyncio.create_task(app(self.scope, self.receive, self.send))

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        async with self.news:
            self.sent.append(message)
            self.news.notify_all()

    @property
    def events(self) -> list[Any]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        return [json.loads(line) for line in body.splitlines()]

    async def started(self) -> None:
        """Returns when the headers and the empty first chunk, which carries them, were sent."""
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: len(self.sent) >= 2), 10)

    async def until(self, count: int) -> list[Any]:
        async with self.news:
            await asyncio.wait_for(self.news.wait_for(lambda: len(self.events) >= count), 10)
        return self.events


def streaming(
    store: SqliteStore, story: Callable[[Application, Callable[[str], Streaming]], Awaitable[None]]
) -> None:
    async def run() -> None:
        app = await application(store)
        await story(app, lambda path: Streaming(app, path))

    asyncio.run(run())


WATCH_LIST = (
    "/api/v1/namespaces/default/configmaps?watch=true&sendInitialEvents=true"
    "&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
)


def test_a_watch_list_ends_its_initial_objects_with_a_bookmark_and_goes_on(store: SqliteStore) -> None:
    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream(WATCH_LIST)
        added, bookmark = await stream.until(2)
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "here")
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        api = app.verbs.api
        await api.edit("one", "configmaps", "default", "here", lambda obj: obj["data"].update(x="y"))
        assert (await stream.until(3))[2]["type"] == "MODIFIED"
        stream.left.set()
        await stream.task
        assert not app.streams and len(api.hub) == 0

    streaming(store, story)


def test_a_client_that_leaves_ends_its_watch_at_once(store: SqliteStore) -> None:
    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream("/api/v1/configmaps?watch=true&resourceVersion=1")
        await stream.started()
        assert len(app.verbs.api.hub) == 1
        stream.left.set()
        await asyncio.wait_for(stream.task, 5)
        assert len(app.verbs.api.hub) == 0

    streaming(store, story)


def test_a_client_that_leaves_before_the_first_chunk_leaves_nothing_behind(store: SqliteStore) -> None:
    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream(WATCH_LIST)
        stream.left.set()
        await asyncio.wait_for(stream.task, 5)
        assert not app.streams and len(app.verbs.api.hub) == 0

    streaming(store, story)


def test_a_revision_that_is_gone_is_an_error_event_in_the_stream(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expired(*_: Any, **__: Any) -> None:
        raise Expired("too old resource version: 1 (9)")

    monkeypatch.setattr(Verbs, "watch", expired)

    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream("/api/v1/configmaps?watch=true&resourceVersion=1")
        await asyncio.wait_for(stream.task, 5)
        (event,) = stream.events
        assert (stream.sent[0]["status"], event["type"]) == (200, "ERROR")
        assert (event["object"]["reason"], event["object"]["code"]) == ("Expired", 410)

    streaming(store, story)


def test_closing_ends_the_watches_with_a_last_chunk_and_refuses_new_ones(store: SqliteStore) -> None:
    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream(WATCH_LIST)
        await stream.until(2)
        await app.close()
        await asyncio.wait_for(stream.task, 5)
        assert stream.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        late = open_stream(WATCH_LIST)
        await asyncio.wait_for(late.task, 5)
        assert late.sent[0]["status"] == 503
        unready = open_stream("/readyz")
        await asyncio.wait_for(unready.task, 5)
        assert unready.sent[0]["status"] == 503

    streaming(store, story)


def test_one_callers_streams_are_limited(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 1)

    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        first = open_stream(WATCH_LIST)
        await first.until(2)
        second = open_stream(WATCH_LIST)
        await asyncio.wait_for(second.task, 5)
        assert second.sent[0]["status"] == 429
        assert (b"retry-after", b"5") in second.sent[0]["headers"]
        assert len(app.verbs.api.hub) == 1
        other = Streaming(app, WATCH_LIST.replace("/api", "/api", 1), "operator")
        await other.until(2)
        await app.close()
        await asyncio.gather(first.task, other.task)

    streaming(store, story)


def test_a_table_watch_names_its_columns_once(store: SqliteStore) -> None:
    async def story(app: Application, open_stream: Callable[[str], Streaming]) -> None:
        stream = open_stream(WATCH_LIST)
        stream.task.cancel()
        await asyncio.wait((stream.task,))
        table = Streaming(app, WATCH_LIST)
        table.scope["headers"].append((b"accept", b"application/json;as=Table;v=v1;g=meta.k8s.io"))  # type: ignore[attr-defined]
        first, bookmark = await table.until(2)
        await app.verbs.api.edit(
            "one", "configmaps", "default", "here", lambda obj: obj["data"].update(x="y")
        )
        second = (await table.until(3))[2]
        assert first["object"]["kind"] == bookmark["object"]["kind"] == second["object"]["kind"] == "Table"
        assert first["object"]["columnDefinitions"] and not second["object"]["columnDefinitions"]
        assert second["object"]["rows"][0]["cells"][:2] == ["here", 2]
        await app.close()
        await table.task

    streaming(store, story)
