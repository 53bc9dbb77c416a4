"""Writes a pod's status, many changes in one write, the last one always."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from walras.core.errors import NotFound, WalrasError
from walras.runtimes.services import Services

log = structlog.get_logger(__name__)

Object = dict[str, Any]
PODS: Final = "pods"
_RETRY_S: Final = 1.0


class Publisher:
    """`render` makes the whole status from the pod's latest state."""

    def __init__(
        self, services: Services, cluster: str, pod: Object, render: Callable[[Object], Object]
    ) -> None:
        self._services, self._cluster, self._render = services, cluster, render
        self._namespace, self._name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._uid = pod["metadata"]["uid"]
        self._task: asyncio.Task[None] | None = None
        self._dirty = False
        self.silent = False

    def mark(self) -> None:
        """The status is to be written soon."""
        if self.silent:
            return
        self._dirty = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Returns when everything marked is durable, or the pod is gone."""
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        while self._dirty and not self.silent:
            self._dirty = False
            if not await self._once(self._edit):
                self._dirty = True
                await self._services.sleep(_RETRY_S)

    async def remove(self) -> None:
        """Writes the last status and removes the pod, in one step; returns when both are durable."""
        await self.flush()
        while not await self._once(self._finish):
            await self._services.sleep(_RETRY_S)

    async def _once(self, stage: Callable[[Any], None]) -> bool:
        """False when the store refused, and it is worth trying again."""
        transaction = self._services.api.transaction()
        try:
            found = transaction.peek(self._cluster, PODS, self._namespace, self._name)
            if found is not None and found["metadata"].get("uid") == self._uid:
                stage(transaction)
                await transaction.commit()
        except NotFound:
            return True
        except WalrasError as error:
            log.warning("pod status not written", cluster=self._cluster, pod=self._name, error=error.message)
            return False
        return True

    def _edit(self, transaction: Any) -> None:
        def change(pod: Object) -> None:
            pod["status"] = self._render(pod)

        transaction.edit(self._cluster, PODS, self._namespace, self._name, change)

    def _finish(self, transaction: Any) -> None:
        self._edit(transaction)
        found = transaction.peek(self._cluster, PODS, self._namespace, self._name)
        if found is not None:
            transaction.delete(
                self._cluster, PODS, self._namespace, self._name, grace_seconds=0, propagation=""
            )
