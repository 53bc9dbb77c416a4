"""Watches: what changed since a revision from the store, then what changes, with no gap and no repetition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

from walras.core.errors import Expired
from walras.kube.events import Event, Matcher, Told, bookmark, in_cluster
from walras.kube.record import Key, Record
from walras.kube.state import Effect
from walras.kube.store.base import Replay

QUEUE_MAX: Final = 10_000
# What may wait for a reader, all in all, since it last had read everything.
QUEUE_BYTES_MAX: Final = 64 * 2**20
_NOTHING: Final[list[Event]] = []
# Cluster, resource, namespace and name; "" for all namespaces, or names.
Where = tuple[str, str, str, str]


def too_old(revision: int, compacted: int) -> Expired:
    return Expired(f"too old resource version: {revision} ({compacted})")


class Watch:
    """An async iterator of events, for one reader.

    It ends when it is closed or its cluster or type goes away. Raises Expired, once what came before was
    read, when the reader was too slow to be waited for.
    """

    __slots__ = (
        "_after", "_ended", "_matches", "_next", "_overrun", "_queue", "_unread_bytes", "_wake",
        "bookmark_kind", "on_end", "where", "whole",
    )  # fmt: skip

    def __init__(self, start: Iterable[Event], after: int, matches: Matcher | None) -> None:
        # Most watches have nothing in store most of the time, and then nothing of their own.
        self._queue = list(start) or _NOTHING
        self._next = 0
        self._after = after
        self._matches = matches
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._overrun = False
        self._unread_bytes = 0
        self.bookmark_kind: tuple[str, str] | None = None
        self.whole = False
        # What to call in the end, and what it knows the watch by.
        self.on_end: Callable[[Watch], None] | None = None
        self.where: Where = ("", "", "", "")

    def offer(self, told: Told) -> None:
        """Called for each committed change, in order of revisions."""
        record = told.effect.record
        if self._ended or record.revision <= self._after:
            return
        self._after = record.revision
        if self.whole:
            before = told.effect.previous
            self._push(told.whole(), len(record.raw) + (len(before.raw) if before else 0))
        else:
            self._push(told.through(self._matches), len(record.raw))

    def _push(self, event: Event | None, size: int = 0) -> None:
        if event is None:
            return
        waiting = len(self._queue) - self._next
        self._unread_bytes = self._unread_bytes + size if waiting else size
        if waiting >= QUEUE_MAX or (waiting and self._unread_bytes > QUEUE_BYTES_MAX):
            self._overrun = True
            self.end()
            return
        self.append(event)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self) -> None:
        """Ends the stream after what is queued."""
        self._ended = True
        if self.on_end is not None:
            self.on_end(self)
        self._notify()

    def close(self) -> None:
        """Ends the stream and forgets what is queued. Idempotent."""
        self._queue, self._next = _NOTHING, 0
        self.end()

    def append(self, event: Event) -> None:
        """Puts an event after those that are there, however many they are."""
        if self._queue is _NOTHING:
            self._queue = []
        self._queue.append(event)
        self._notify()

    def mark(self, revision: int) -> None:
        """Tells an idle reader that takes bookmarks that it knows everything up to the revision."""
        if self.bookmark_kind and self._queue is _NOTHING and not self._ended:
            self._push(bookmark(*self.bookmark_kind, revision))

    def ready(self) -> Event | None:
        """The next event if it is there already."""
        if self._queue is _NOTHING:
            return None
        event = self._queue[self._next]
        self._next += 1
        if self._next == len(self._queue):
            self._queue, self._next = _NOTHING, 0
        elif self._next >= 512:
            del self._queue[: self._next]
            self._next = 0
        return event

    @property
    def over(self) -> bool:
        """Whether no event will come any more. Raises Expired, once, where the reader was too slow."""
        if self._queue is not _NOTHING or not self._ended:
            return False
        if self._overrun:
            self._overrun = False
            raise Expired("the watch fell too far behind and was ended; list again")
        return True

    async def wait(self) -> None:
        """Returns when there is an event, or the end; for the one reader."""
        if self._queue is _NOTHING and not self._ended:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while (event := self.ready()) is None:
            if self.over:
                raise StopAsyncIteration
            await self.wait()
        return event


class WatchEverywhere(Watch):
    """The same over all clusters. Revisions of different clusters have no order, so none is kept."""

    __slots__ = ()

    def offer(self, told: Told) -> None:
        if self._ended:
            return
        record, event = told.effect.record, told.through(self._matches)
        if event is not None:
            obj = in_cluster(record.key.cluster, event.object)
            self._push(Event(event.type, obj=obj), len(record.raw))


def past(
    replays: Iterable[Replay], namespace: str, name: str, matches: Matcher | None, *, whole: bool = False
) -> list[Event]:
    """The events of changes read back from the store, of one namespace and name or ("") of all.

    If `whole`, with the states before them, and whatever is selected.
    """
    if whole:
        return [
            Told(_effect(replay)).whole()
            for replay in replays
            if namespace in ("", replay.row.namespace) and name in ("", replay.row.name)
        ]
    return [
        event
        for replay in replays
        if namespace in ("", replay.row.namespace)
        and name in ("", replay.row.name)
        and (event := Told(_effect(replay)).through(matches)) is not None
    ]


def _effect(replay: Replay) -> Effect:
    row, before = replay
    key = Key(row.cluster, row.resource, row.namespace, row.name)
    previous = None if before is None else Record(key, row.previous, before)
    return Effect(Record(key, row.revision, row.data), previous, bool(row.deleted))
