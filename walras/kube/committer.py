"""Group commit: what is staged while one group reaches the disk makes up the next group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from walras.core.errors import StorageError
from walras.kube.state import Effect, State
from walras.kube.store.base import Batch, Compaction, Group, Store

# Versions that a cluster keeps for watches and paged lists to resume from, and how many beyond them
# may pile up before a group commit also clears them away. Large ones are kept for so many marks at most.
HISTORY_REVISIONS: Final = 5_000
HISTORY_MARKS: Final = 32
COMPACT_STEP: Final = 500
COMPACT_MAX: Final = 4_000


@dataclass(slots=True)
class Pending:
    """A staged batch on its way to the disk."""

    batch: Batch
    effects: list[Effect]
    future: asyncio.Future[None]


class Committer:
    """One group in flight at a time. `publish` is called in the loop's thread once a group is durable."""

    def __init__(self, store: Store, state: State, publish: Callable[[list[Pending]], None]) -> None:
        self._store = store
        self._state = state
        self._publish = publish
        self._waiting: list[Pending] = []
        self._flight: list[Pending] = []
        self._compactions: list[Compaction] = []
        self._results: deque[Exception | None] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, batch: Batch, effects: list[Effect]) -> asyncio.Future[None]:
        """A future that is done once the batch is durable and visible; StorageError if it never will be."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if loop is not self._loop:
            self._loop = loop
            self._settle()
        self._waiting.append(Pending(batch, effects, future))
        if len(self._waiting) == 1 and not self._flight:
            # At the end of this turn of the loop, with everything that is staged until then.
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        if self._flight or not self._waiting:
            return
        self._flight, self._waiting = self._waiting, []
        touched = {effect.record.key.cluster for pending in self._flight for effect in pending.effects}
        self._compactions = list(self._due(touched))
        self._store.submit(
            Group(tuple(pending.batch for pending in self._flight), tuple(self._compactions)), self._committed
        )

    def _due(self, clusters: Iterable[str]) -> Iterable[Compaction]:
        for name in sorted(clusters):
            cluster = self._state.clusters.get(name)
            if cluster is None:
                continue
            after, upto = cluster.compacted, cluster.revision - HISTORY_REVISIONS
            due = upto - after >= COMPACT_STEP
            while len(cluster.marks) > HISTORY_MARKS:
                mark = cluster.marks.pop(0)
                if mark > max(after, upto):
                    upto, due = mark, True
            if due:
                # From now on nobody may start reading there.
                cluster.compacted = min(upto, after + COMPACT_MAX)
                yield Compaction(name, after, cluster.compacted)

    def _committed(self, error: Exception | None) -> None:
        """Called in the store's thread."""
        self._results.append(error)
        loop = self._loop
        assert loop is not None
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        while self._results:
            error = self._results.popleft()
            flight, self._flight = self._flight, []
            if error is None:
                self._publish(flight)
                for pending in flight:
                    _resolve(pending.future, None)
            else:
                self._fail(flight, error)
        self._flush()

    def _fail(self, flight: list[Pending], error: Exception) -> None:
        """What was staged after builds on what failed, so all of it goes."""
        waiting, self._waiting = self._waiting, []
        for compaction in self._compactions:
            self._state.clusters[compaction.cluster].compacted = compaction.after
        self._state.abandon()
        for pending in (*flight, *waiting):
            _resolve(pending.future, error)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done() or future.get_loop().is_closed():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(StorageError(getattr(error, "message", str(error))))
