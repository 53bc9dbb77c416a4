"""Two servers are told the same; one puts its clusters to sleep at random, and nobody can tell which."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import WalrasError
from walras.kube.api import API, Change
from walras.kube.context import EVERY_CLUSTER
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Context, Identity, Verbs
from walras.kube.watch import Watch

CLUSTERS, NAMES, COLORS = ("a", "b"), ("x", "y"), ("red", "blue")
OPERATOR = Identity("operator")
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "toys.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "toys", "singular": "toy", "kind": "Toy", "listKind": "ToyList"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True,
             "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
        ],
    },
}  # fmt: skip

cluster = st.sampled_from(("a", "a", "a", "b"))
anywhere = st.sampled_from(("a", "a", "b", EVERY_CLUSTER))
name = st.sampled_from(NAMES)
color = st.sampled_from(COLORS)
ago = st.sampled_from((0, 1, 1, 2, 4))
WRITE = st.one_of(
    st.tuples(st.just("create"), cluster, name, color),
    st.tuples(st.just("create"), cluster, name, color),
    st.tuples(st.just("patch"), cluster, name, color),
    st.tuples(st.just("delete"), cluster, name),
    st.tuples(st.just("delete"), cluster, name),
)
READ = st.one_of(
    st.tuples(st.just("get"), cluster, name),
    st.tuples(st.just("page"), anywhere, st.none() | ago),
    st.tuples(st.just("watch"), anywhere, st.none() | ago),
)
RARE = st.one_of(
    st.tuples(st.just("define"), cluster),
    st.tuples(st.just("toy"), cluster, name),
    st.tuples(st.just("restart")),
)
SLEEP = st.tuples(st.just("sleep"), cluster, st.sampled_from(("", "page", "watch")), ago)
STEP = st.sampled_from((WRITE, WRITE, WRITE, SLEEP, SLEEP, READ, RARE)).flatmap(lambda kind: kind)


class Server:
    """Answers in words, so that two of them can be compared. One that is tireless never sleeps."""

    def __init__(self, path: Path, *, tireless: bool) -> None:
        self.path, self.tireless = path, tireless
        # These outlive a restart of the server.
        self.ids, self.clock = SequenceIds(), VirtualClock()

    async def start(self) -> None:
        self.store = SqliteStore(self.path)
        self.store._writer.execute("PRAGMA synchronous = OFF")
        self.api = API(self.store, self.clock, self.ids)
        self.verbs = Verbs(self.api)
        self.watches: list[Watch] = []
        self.slept = 0
        for name in CLUSTERS:
            if not self.api.has_cluster(name):
                await self.api.create_cluster(name)
                await self.api.create(name, "namespaces", {"metadata": {"name": "default"}})
        # What a controller's cache holds: it forgets with each sleep and hears all again at the next wake.
        self.cache: dict[tuple[str, str], str] = {}
        self.api.on_sleep(self._forget)
        self.api.subscribe("configmaps", self._changed)

    def _forget(self, cluster: str) -> None:
        self.slept += 1
        self.cache = {key: value for key, value in self.cache.items() if key[0] != cluster}

    def _changed(self, change: Change) -> None:
        key = (change.cluster, change.object["metadata"]["name"])
        self.cache.pop(key, None)
        if change.type != "DELETED":
            self.cache[key] = change.object["metadata"]["resourceVersion"]

    async def do(self, step: tuple[Any, ...]) -> Any:
        try:
            return await getattr(self, step[0])(*step[1:])
        except WalrasError as error:
            return error.reason, error.message

    def _of(self, cluster: str, plural: str = "configmaps", group: str = "") -> tuple[Context, Any]:
        resource = self.api.registry(cluster).find(group, "v1", plural)
        return Context(OPERATOR, cluster, field_manager="test"), resource

    async def create(self, cluster: str, name: str, color: str) -> Any:
        obj = {"metadata": {"name": name, "labels": {"color": color}}, "data": {"k": color}}
        return await self.verbs.create(*self._of(cluster), "default", obj)

    async def patch(self, cluster: str, name: str, color: str) -> Any:
        body = f'{{"metadata": {{"labels": {{"color": "{color}"}}}}}}'.encode()
        return await self.verbs.patch(
            *self._of(cluster), "default", name, body, "application/merge-patch+json"
        )

    async def delete(self, cluster: str, name: str) -> Any:
        return await self.verbs.delete(*self._of(cluster), "default", name, {})

    async def define(self, cluster: str) -> Any:
        where = self._of(cluster, "customresourcedefinitions", "apiextensions.k8s.io")
        return await self.verbs.create(*where, "", CRD)

    async def toy(self, cluster: str, name: str) -> Any:
        ctx, resource = self._of(cluster, "toys", "example.com")
        if resource is None:
            return "not served"
        toy = {"apiVersion": "example.com/v1", "kind": "Toy", "metadata": {"name": name}}
        return await self.verbs.create(ctx, resource, "default", toy)

    async def get(self, cluster: str, name: str) -> Any:
        return self.verbs.get(*self._of(cluster), "default", name)

    def _ago(self, cluster: str, changes: int) -> str:
        return str(max(1, self.api.revision(cluster) - changes))

    async def page(self, cluster: str, ago: int | None) -> Any:
        """What there is, or was so many changes ago."""
        options: dict[str, Any] = {}
        if ago is not None:
            options = {"resource_version": self._ago(cluster, ago), "resource_version_match": "Exact"}
        page = self.verbs.list(*self._of(cluster), "", limit=2, **options)
        return page.items, page.resource_version, page.continue_, page.remaining

    async def watch(self, cluster: str, ago: int | None) -> Any:
        start: dict[str, Any] = {"send_initial_events": True}
        if ago is not None:
            start = {"resource_version": self._ago(cluster, ago)}
        self.watches.append(self.verbs.watch(*self._of(cluster), "", **start))
        return len(self.watches)

    async def sleep(self, cluster: str, look: str, ago: int) -> Any:
        """Then, perhaps, the first look that anybody takes at it."""
        if not self.tireless:
            await self.api.hibernate([cluster])
            assert self.api.is_asleep(cluster)
        return await self.do((look, cluster, ago)) if look else "done"

    async def restart(self) -> Any:
        self.store.close()
        await self.start()
        return "done"

    def heard(self) -> list[list[tuple[str, Any]]]:
        """What the watches have told since they were asked last."""
        told = []
        for watch in self.watches:
            events = []
            while (event := watch.ready()) is not None:
                events.append((event.type, event.object))
            told.append(events)
        return told


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=10, max_size=30))
def test_a_cluster_put_to_sleep_at_random_answers_as_one_that_never_slept(
    steps: list[tuple[Any, ...]],
) -> None:
    async def compare() -> None:
        with tempfile.TemporaryDirectory() as folder:
            tireless = Server(Path(folder) / "tireless.db", tireless=True)
            sleeper = Server(Path(folder) / "sleeper.db", tireless=False)
            for server in (tireless, sleeper):
                await server.start()
            for step in steps:
                assert await tireless.do(step) == await sleeper.do(step), step
                assert tireless.heard() == sleeper.heard(), step
            for name in CLUSTERS:
                assert tireless.api.rouse(name) and sleeper.api.rouse(name)
                counted = (tireless.api.state.cluster(name), sleeper.api.state.cluster(name))
                assert counted[0].objects == counted[1].objects
                assert counted[0].bytes == counted[1].bytes
            assert tireless.cache == sleeper.cache
            for server in (tireless, sleeper):
                server.store.close()

    asyncio.run(compare())
