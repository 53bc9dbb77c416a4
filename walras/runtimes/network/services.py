"""Services, endpoints and names of agents as their networks need them, kept true to the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from walras.kube.api import API, Change
from walras.runtimes.network.forwards import SERVICE_NAME, forwards
from walras.runtimes.network.names import Names
from walras.runtimes.network.networks import Networks
from walras.runtimes.network.nftables import Forward
from walras.tenants.objects import ENDPOINT_SLICES, SERVICES

Object = Mapping[str, Any]
# Changes within this time are one, and so are those within twice the time that the last ones took.
_GATHER_S: Final = 0.05


class Directory:
    """Follows all clusters at once, and acts for those that have a network."""

    def __init__(self, api: API, networks: Networks) -> None:
        self._api, self._networks = api, networks
        self._dirty: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(each, self._changed) for each in (SERVICES, ENDPOINT_SLICES)]

    def _changed(self, change: Change) -> None:
        if change.cluster not in self._networks.live:
            return
        self._dirty.add(change.cluster)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        clock, took_s = asyncio.get_running_loop().time, 0.0
        while self._dirty:
            await asyncio.sleep(max(_GATHER_S, 2 * took_s))
            began_s = clock()
            for cluster in [self._dirty.pop() for _ in range(len(self._dirty))]:
                await self._networks.refresh(cluster)
            took_s = clock() - began_s

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def forwards(self, cluster: str) -> list[Forward]:
        if not self._api.has_cluster(cluster):
            return []
        return forwards(self._api.list(cluster, SERVICES), self._api.list(cluster, ENDPOINT_SLICES))

    def names(self, cluster: str, api_address: str) -> Names:
        def service(namespace: str, name: str) -> Object | None:
            return self._api.find(cluster, SERVICES, namespace, name)

        def slices(namespace: str, name: str) -> Sequence[Object]:
            return [
                each
                for each in self._api.list(cluster, ENDPOINT_SLICES, namespace)
                if (each["metadata"].get("labels") or {}).get(SERVICE_NAME) == name
            ]

        return Names(service, slices, api_address, lambda: self._api.list(cluster, SERVICES))
