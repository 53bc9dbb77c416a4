"""Decides every second how many instances the revisions need that have any, or that are asked."""

from __future__ import annotations

import asyncio
from typing import Final

from walras.core.clock import Clock
from walras.functions.autoscaler import Seen, decide
from walras.functions.backend import Backend
from walras.functions.backends import Backends
from walras.functions.words import REVISIONS
from walras.kube.api import API
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import is_true

TICK_MS: Final = 1_000
# A connection that no request has used for this long is closed.
IDLE_S: Final = 5.0
_KEY: Final = Key("", "", "functions")


class Scaler:
    """One for all clusters; it rests while there is nothing to decide."""

    def __init__(self, api: API, clock: Clock, manager: Manager, backends: Backends) -> None:
        self._api, self._clock, self._manager, self._backends = api, clock, manager, backends

    def wake(self) -> None:
        """There is a revision to be watched."""
        self._manager.add(self, _KEY, TICK_MS)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del cluster, namespace, name
        watched = False
        for backend in self._backends:
            if backend.is_idle:
                self._backends.forget(backend.where)
                continue
            watched = True
            _trim(backend)
            self._decide(backend)
        return TICK_MS if watched else None

    def _decide(self, backend: Backend) -> None:
        where, scaling, now_ms = backend.where, backend.scaling, self._clock.now_ms()
        revision = self._api.find(where.cluster, REVISIONS, where.namespace, where.name)
        if revision is None or not is_true(revision, "ResourcesAvailable"):
            # Until it has had its first instances, their number is what it asks for, or one for requests.
            if backend.wanted and not backend.meter.level:
                backend.wanted = 0
                self._backends.changed(where)
            return
        measure = backend.meter.rate_milli if scaling.metric == "rps" else backend.meter.concurrency_milli
        seen = Seen(
            measure(now_ms, scaling.window_ms),
            measure(now_ms, scaling.panic_window_ms),
            backend.ready,
            now_ms,
            backend.is_reachable,
        )
        backend.mind, wanted = decide(backend.mind, scaling, seen)
        # A request that is there needs an instance, however little the averages say of it.
        wanted = max(wanted, min(1, backend.meter.level))
        if wanted != backend.wanted:
            backend.wanted = wanted
            self._backends.changed(backend.where)


def _trim(backend: Backend) -> None:
    """Closes connections that are not used."""
    since_s = asyncio.get_running_loop().time() - IDLE_S
    for instance in backend.instances.values():
        while instance.idle and (instance.idle[0].used_s < since_s or not instance.idle[0].is_open):
            instance.idle.pop(0).close()
