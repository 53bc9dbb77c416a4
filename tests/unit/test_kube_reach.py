"""Calls to webhooks that wait, and what becomes of the cluster meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import NotFound
from walras.kube.admission.http import Streams
from walras.kube.admission.reach import CALLS_MAX, Reach
from walras.kube.api import API
from walras.kube.store.sqlite import MEMORY, SqliteStore

CLIENT = {"service": {"name": "hook", "namespace": "default"}}


async def with_webhook(api: API, name: str) -> None:
    await api.create_cluster("one")
    metadata = {"name": "hook", "namespace": "default", "labels": {"app": "hook"}}
    spec = {"selector": {"app": "hook"}, "ports": [{"port": 443}]}
    await api.create("one", "services", {"metadata": metadata, "spec": spec})
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    pod = {"metadata": {**metadata, "name": name}, "spec": {"containers": []}, "status": ready}
    await api.create("one", "pods", pod)


def test_a_call_that_waits_does_not_reach_a_webhook_of_the_next_cluster_of_the_name() -> None:
    async def run() -> None:
        store = SqliteStore(MEMORY)
        api = API(store, VirtualClock(), SequenceIds())
        await with_webhook(api, "old")
        reached: list[str] = []
        all_reached, closed = asyncio.Event(), asyncio.Event()

        async def dial(_: str, pod: Any, __: int) -> Streams:
            reached.append(pod["metadata"]["name"])
            if len(reached) == CALLS_MAX:
                all_reached.set()
            await closed.wait()
            raise OSError("closed")

        reach = Reach(api, dial)
        calls = [asyncio.create_task(reach.ask("one", CLIENT, b"{}", 10)) for _ in range(CALLS_MAX + 1)]
        await all_reached.wait()
        await api.delete_cluster("one")
        await with_webhook(api, "new")
        closed.set()
        with pytest.raises(NotFound):
            await calls[-1]
        await asyncio.gather(*calls, return_exceptions=True)
        assert set(reached) == {"old"}
        store.close()

    asyncio.run(run())
