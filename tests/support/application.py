"""The application over clusters "fleet", "one" and "two", asked over HTTP in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.serve.app import Application
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.kube.verbs import Verbs

TOKENS = {
    "operator": Identity("walras:operator", ("system:masters",), ""),
    "one": Identity("agent:one", ("system:masters",), "one"),
    "two": Identity("agent:two", ("system:masters",), "two"),
}
Client = httpx.AsyncClient


class Tokens:
    def identify(self, token: str) -> Identity | None:
        return TOKENS.get(token)


@pytest.fixture
def store() -> Iterator[SqliteStore]:
    store = SqliteStore(MEMORY)
    yield store
    store.close()


async def application(store: SqliteStore) -> Application:
    clock = VirtualClock()
    api = API(store, clock, SequenceIds())
    for cluster in ("fleet", "one", "two"):
        await api.create_cluster(cluster)
        await api.create(cluster, "namespaces", {"metadata": {"name": "default"}})
        await api.create(
            cluster,
            "configmaps",
            {"metadata": {"name": "here", "namespace": "default"}, "data": {"secret": f"of-{cluster}"}},
        )
    return Application(Verbs(api), Tokens(), clock)


def client(app: Application, token: str) -> Client:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return Client(transport=httpx.ASGITransport(app=app), base_url="https://walras", headers=headers)  # type: ignore[arg-type]


def asking(store: SqliteStore, token: str, ask: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with client(await application(store), token) as http:
            return await ask(http)

    return asyncio.run(run())
