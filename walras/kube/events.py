"""What a watch tells: events, each encoded once for everybody who reads it as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from walras.kube.record import Object, Record, encode
from walras.kube.state import Effect

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
CLUSTER_ANNOTATION: Final = "walras.dev/cluster"
Matcher = Callable[[Object], bool]


class Event:
    """A pair of type and object. Types are ADDED, MODIFIED, DELETED and BOOKMARK.

    Made of a record, decoded when somebody looks, or of an object.
    """

    __slots__ = ("_line", "_object", "previous", "record", "type")

    def __init__(
        self,
        type_: str,
        record: Record | None = None,
        obj: Object | None = None,
        previous: Record | None = None,
    ) -> None:
        self.type = type_
        self.record = record
        self._object = obj
        self._line = b""
        # The state before the change, for those who want to know it.
        self.previous = previous

    @property
    def object(self) -> Object:
        """Shared: never mutate it."""
        if self._object is not None:
            return self._object
        assert self.record is not None
        return self.record.object

    @property
    def size(self) -> int:
        """Bytes of its JSON, as far as they are known."""
        return len(self.record.raw) if self.record is not None else 0

    @property
    def line(self) -> bytes:
        """The event as a line of JSON."""
        if not self._line:
            raw = encode(self._object) if self.record is None else self.record.raw
            self._line = line(self.type, raw)
        return self._line

    def __iter__(self) -> Iterator[Any]:
        yield self.type
        yield self.object


def line(type_: str, raw: bytes) -> bytes:
    """A line of a watch's stream."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), raw)


class Told:
    """One committed change as its watchers see it; those who see the same share the event."""

    __slots__ = ("_events", "effect")

    def __init__(self, effect: Effect) -> None:
        self.effect = effect
        self._events: dict[str, Event] = {}

    def event(self, type_: str) -> Event:
        found = self._events.get(type_)
        if found is None:
            found = self._events[type_] = Event(type_, self.effect.record)
        return found

    def whole(self) -> Event:
        """The change with the state before it, for whoever selects by what that was in another version."""
        return Event(self.effect.type, self.effect.record, previous=self.effect.previous)

    def through(self, matches: Matcher | None) -> Event | None:
        """The event for a watcher with a selector; None when it concerns nothing selected.

        An object that stops matching is DELETED, in its last matching state with the revision of the change.
        """
        effect = self.effect
        if matches is None:
            return self.event(effect.type)
        previous = effect.previous
        was = previous is not None and matches(previous.object)
        if not effect.deleted and matches(effect.record.object):
            return self.event("MODIFIED" if was else "ADDED")
        if not was:
            return None
        if effect.deleted:
            return self.event("DELETED")
        assert previous is not None
        metadata = {**previous.object["metadata"], "resourceVersion": str(effect.record.revision)}
        return Event("DELETED", obj={**previous.object, "metadata": metadata})


def in_cluster(cluster: str, obj: Object) -> Object:
    """A copy that says which cluster it is from."""
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), CLUSTER_ANNOTATION: cluster}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def bookmark(api_version: str, kind: str, revision: int, *, initial_end: bool = False) -> Event:
    """An event that says only: everything up to `revision` was sent."""
    metadata: Object = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return Event("BOOKMARK", obj={"apiVersion": api_version, "kind": kind, "metadata": metadata})
