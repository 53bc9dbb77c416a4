"""All runtimes of a server behind one port: a pod's handler says which of them runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from walras.runtimes.base import (
    ContainerSpec,
    Limits,
    Output,
    PodRef,
    PodRuntime,
    Process,
    Traits,
    no_runtime,
)
from walras.runtimes.shares import Shares, Sharing


class Runtimes(Sharing):
    """See base.Runtime. `by_handler` has one for `default`, which pods get that name no handler.

    The runtimes stand on the same `shares`, so that a node's share holds for all of its pods together.
    """

    def __init__(self, shares: Shares, by_handler: Mapping[str, PodRuntime], default: str) -> None:
        super().__init__(shares)
        self._runtimes = {**by_handler, "": by_handler[default]}
        self._all = list(by_handler.values())

    @property
    def separates_users(self) -> bool:
        return any(each.separates_users for each in self._all)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(said for each in self._all for said in each.warnings)

    async def open(self) -> None:
        await self.shares.open()
        for each in self._all:
            await each.open()

    async def close(self) -> None:
        await self.shares.close()
        await asyncio.gather(*(each.close() for each in self._all))

    def _of(self, pod: PodRef) -> PodRuntime:
        found = self._runtimes.get(pod.handler)
        if found is None:
            raise no_runtime(pod.handler)
        return found

    def traits(self, pod: PodRef) -> Traits:
        return self._of(pod).traits(pod)

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> Process:
        return await self._of(spec.pod).start(spec, output, pod_limits)

    async def remove_pod(self, pod: PodRef) -> None:
        if (found := self._runtimes.get(pod.handler)) is not None:
            await found.remove_pod(pod)

    async def forget_agent(self, cluster: str) -> None:
        for each in self._all:
            await each.forget_agent(cluster)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._of(pod).dial(pod, port)
