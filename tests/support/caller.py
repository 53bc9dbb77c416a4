"""Callers from outside, on an API in memory: what unit tests of the request verbs speak through."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.api import API
from walras.kube.registry import Resource
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Context, Identity, Verbs

Object = dict[str, Any]


class Caller:
    """An agent at its own cluster, or the operator, with the parameters that do not matter filled in."""

    def __init__(self, api: API, cluster: str = "a", identity: str = "a", quota: int = 10_000) -> None:
        self.api = api
        self.verbs = Verbs(api, lambda _: quota)
        self.cluster = cluster
        self.identity = Identity("someone", (), identity)
        self.warnings: list[str] = []

    def context(self, **more: Any) -> Context:
        given = {"field_manager": "test", **more}
        return Context(self.identity, self.cluster, warnings=self.warnings, **given)

    def resource(self, key: str) -> Resource:
        """By its key, or at a version: "autoscaling/v1/horizontalpodautoscalers"."""
        registry = self.api.registry(self.cluster)
        if "/" not in key:
            return registry[key]
        found = registry.find(*key.split("/"))
        assert found is not None, key
        return found

    async def create(self, key: str, obj: Object, namespace: str | None = "default", **more: Any) -> Object:
        resource = self.resource(key)
        where = (namespace or "") if resource.namespaced else ""
        return await self.verbs.create(self.context(**more), resource, where, self._typed(resource, obj))

    def _typed(self, resource: Resource, obj: Object) -> Object:
        """A custom resource says what it is, unless it says something else."""
        return obj if resource.builtin else {"apiVersion": resource.api_version, "kind": resource.kind, **obj}

    async def update(self, key: str, obj: Object, subresource: str = "", **more: Any) -> Object:
        metadata, resource = obj["metadata"], self.resource(key)
        return await self.verbs.update(
            self.context(**more),
            resource,
            metadata.get("namespace", ""),
            metadata["name"],
            self._typed(resource, obj),
            subresource=subresource,
        )

    async def patch(
        self, key: str, name: str, change: Any, kind: str = "merge-patch+json", **more: Any
    ) -> Object:
        resource = self.resource(key)
        options = {part: more.pop(part) for part in ("subresource", "force") if part in more}
        return await self.verbs.patch(
            self.context(**more),
            resource,
            "default" if resource.namespaced else "",
            name,
            change if isinstance(change, bytes) else msgspec.json.encode(change),
            f"application/{kind}",
            **options,
        )

    async def delete(self, key: str, name: str, **options: Any) -> Object:
        resource = self.resource(key)
        where = "default" if resource.namespaced else ""
        return await self.verbs.delete(self.context(), resource, where, name, options)

    def get(self, key: str, name: str, subresource: str = "") -> Object:
        resource = self.resource(key)
        where = "default" if resource.namespaced else ""
        return self.verbs.get(self.context(), resource, where, name, subresource)


def run(story: Callable[[Caller], Coroutine[Any, Any, None]], **caller: Any) -> None:
    """Tells a story to an agent's cluster "a" that has a namespace "default"."""

    async def told() -> None:
        store = SqliteStore(":memory:")
        api = API(store, VirtualClock(), SequenceIds())
        for cluster in ("fleet", "a", "b"):
            await api.create_cluster(cluster)
            await api.create(cluster, "namespaces", {"metadata": {"name": "default"}})
        await story(Caller(api, **caller))
        store.close()

    asyncio.run(told())
