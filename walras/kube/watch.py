"""Watches: what changed since a revision from the store, then what changes, with no gap and no repetition."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from walras.core.errors import Expired
from walras.kube.context import EVERY_CLUSTER
from walras.kube.record import Key, Object, Record
from walras.kube.state import Effect
from walras.kube.store.base import Replay

QUEUE_MAX: Final = 10_000
# What may wait for a reader, all in all, since it last had read everything.
QUEUE_BYTES_MAX: Final = 64 * 2**20
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
CLUSTER_ANNOTATION: Final = "walras.dev/cluster"
BOOKMARK_EVERY_S: Final = 60
Event = tuple[str, Object]
Matcher = Callable[[Object], bool]


def too_old(revision: int, compacted: int) -> Expired:
    return Expired(f"too old resource version: {revision} ({compacted})")


def seen_through(effect: Effect, namespace: str, matches: Matcher | None) -> Event | None:
    """The event of a change for a watcher with a selector; None when it concerns nothing selected.

    An object that stops matching is DELETED, in its last matching state with the revision of the change.
    """
    record, previous = effect.record, effect.previous
    if namespace and record.key.namespace != namespace:
        return None
    if matches is None:
        return effect.type, record.object
    was = previous is not None and matches(previous.object)
    if not effect.deleted and matches(record.object):
        return ("MODIFIED" if was else "ADDED"), record.object
    if not was:
        return None
    if effect.deleted:
        return "DELETED", record.object
    assert previous is not None
    metadata = {**previous.object["metadata"], "resourceVersion": str(record.revision)}
    return "DELETED", {**previous.object, "metadata": metadata}


def in_cluster(cluster: str, obj: Object) -> Object:
    """A copy that says which cluster it is from."""
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), CLUSTER_ANNOTATION: cluster}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


class Watch:
    """An async iterator of (type, object); types are ADDED, MODIFIED, DELETED and BOOKMARK.

    It ends when it is closed or its cluster or type goes away. Raises Expired, once what came before was
    read, when the reader was too slow to be waited for.
    """

    def __init__(
        self,
        start: Iterable[Event],
        after: int,
        namespace: str,
        matches: Matcher | None,
        on_close: Callable[[Watch], None],
    ) -> None:
        self._queue: deque[Event] = deque(start)
        self._after = after
        self._namespace = namespace
        self._matches = matches
        self._on_close = on_close
        self._wake: asyncio.Future[None] | None = None
        self._ended = False
        self._overrun = False
        self._unread_bytes = 0

    def offer(self, effect: Effect) -> None:
        """Called for each committed change, in order of revisions."""
        if self._ended or effect.record.revision <= self._after:
            return
        self._after = effect.record.revision
        self._push(seen_through(effect, self._namespace, self._matches), len(effect.record.raw))

    def _push(self, event: Event | None, size: int = 0) -> None:
        if event is None:
            return
        self._unread_bytes = self._unread_bytes + size if self._queue else size
        if len(self._queue) >= QUEUE_MAX or (self._queue and self._unread_bytes > QUEUE_BYTES_MAX):
            self._overrun = True
            self.end()
            return
        self._queue.append(event)
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def end(self) -> None:
        """Ends the stream after what is queued."""
        self._ended = True
        self._on_close(self)
        self._notify()

    def close(self) -> None:
        """Ends the stream and forgets what is queued. Idempotent."""
        self._queue.clear()
        self.end()

    def append(self, event: Event) -> None:
        """Puts an event after those that are there, however many they are."""
        self._queue.append(event)
        self._notify()

    def mark(self, api_version: str, kind: str, revision: int) -> None:
        """Tells an idle reader that it knows everything up to the revision."""
        if not self._queue and not self._ended:
            self._push(bookmark(api_version, kind, revision))

    def ready(self) -> Event | None:
        """The next event if it is there already."""
        return self._queue.popleft() if self._queue else None

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._overrun:
                raise Expired("the watch fell too far behind and was ended; list again")
            if self._ended:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._queue.popleft()


class WatchEverywhere(Watch):
    """The same over all clusters. Revisions of different clusters have no order, so none is kept."""

    def offer(self, effect: Effect) -> None:
        if self._ended:
            return
        event = seen_through(effect, self._namespace, self._matches)
        told = event and (event[0], in_cluster(effect.record.key.cluster, event[1]))
        self._push(told, len(effect.record.raw))


@dataclass(frozen=True, slots=True)
class View:
    """What a watch looks at. Where `bookmark_kind` is set, (apiVersion, kind), idle readers get bookmarks."""

    cluster: str
    resource: str
    namespace: str = ""
    matches: Matcher | None = None
    bookmark_kind: tuple[str, str] | None = None


class Hub:
    """The watches that are open, by cluster and resource. One timer serves the bookmarks of all."""

    def __init__(self, revision: Callable[[str], int]) -> None:
        self._watches: dict[tuple[str, str], dict[Watch, View]] = {}
        self._revision = revision
        self._timer: asyncio.TimerHandle | None = None

    def open(self, view: View, start: Iterable[Event], after: int) -> Watch:
        """A watch that first yields `start`, then every change beyond revision `after`."""
        where = (view.cluster, view.resource)
        kind = WatchEverywhere if view.cluster == EVERY_CLUSTER else Watch
        watch = kind(start, after, view.namespace, view.matches, lambda closed: self._forget(where, closed))
        self._watches.setdefault(where, {})[watch] = view
        if view.bookmark_kind and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self.mark)
        return watch

    def _forget(self, where: tuple[str, str], watch: Watch) -> None:
        watches = self._watches.get(where)
        if watches is not None:
            watches.pop(watch, None)
            if not watches:
                del self._watches[where]

    def dispatch(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            key = effect.record.key
            for where in ((key.cluster, key.resource), (EVERY_CLUSTER, key.resource)):
                for watch in tuple(self._watches.get(where, ())):
                    watch.offer(effect)

    def mark(self) -> None:
        """Gives a bookmark to every idle watch that takes them."""
        self._timer = None
        for watches in tuple(self._watches.values()):
            for watch, view in watches.items():
                if view.bookmark_kind:
                    watch.mark(*view.bookmark_kind, self._revision(view.cluster))
                    if self._timer is None:
                        self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self.mark)

    def end(self, cluster: str, resource: str = "") -> None:
        """Ends the watches of a resource, or of all resources of a cluster."""
        for where in [w for w in self._watches if w[0] == cluster and resource in ("", w[1])]:
            for watch in tuple(self._watches[where]):
                watch.end()

    def __len__(self) -> int:
        return sum(map(len, self._watches.values()))


def bookmark(api_version: str, kind: str, revision: int, *, initial_end: bool = False) -> Event:
    """An event that says only: everything up to `revision` was sent."""
    metadata: Object = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return "BOOKMARK", {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def past(replays: Iterable[Replay], namespace: str, matches: Matcher | None) -> list[Event]:
    """The events of changes read back from the store."""
    found = (seen_through(_effect(replay), namespace, matches) for replay in replays)
    return [event for event in found if event is not None]


def _effect(replay: Replay) -> Effect:
    row, before = replay
    key = Key(row.cluster, row.resource, row.namespace, row.name)
    previous = None if before is None else Record(key, row.previous, before)
    return Effect(Record(key, row.revision, row.data), previous, bool(row.deleted))
