"""Watch streams: one JSON document a line, in the representation that the client asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.kube import tables, versions
from walras.kube.events import Event, line
from walras.kube.registry import Resource
from walras.kube.serve import status
from walras.kube.serve.answers import encode
from walras.kube.serve.negotiate import Representation
from walras.kube.watch import Watch

Object = dict[str, Any]
Shaper = Callable[[Event], bytes]

# A watch without timeoutSeconds ends after this; clients go on from where they were.
DEFAULT_TIMEOUT_S: Final = 1800
TIMEOUT_S_MAX: Final = 4 * 3600
_CHUNK_BYTES: Final = 64 * 1024


class Following:
    """An answer that goes on for as long as its watch.

    It has no task and no timer of its own, since there may be a hundred thousand: whoever sends it asks for
    `take`, and waits for the watch when that has nothing. `sending_since_s` is theirs too: when it began to
    send what the client has not taken yet, 0 otherwise.
    """

    __slots__ = ("_error", "_shaper", "due_s", "sending_since_s", "task", "timeout_s", "watch")

    def __init__(self, watch: Watch, shaper: Shaper | None, timeout_s: int) -> None:
        self.watch = watch
        self.timeout_s = timeout_s
        self.due_s = 0
        self.sending_since_s = 0.0
        self.task: asyncio.Task[Any] | None = None
        # None: the lines as all readers share them.
        self._shaper = shaper
        self._error: WalrasError | None = None

    @classmethod
    def failed(cls, error: WalrasError) -> Following:
        """A watch that never was: its only event is the error."""
        following = cls(Watch((), 0, None), None, 1)
        following.watch.end()
        following._error = error
        return following

    @property
    def pending(self) -> bool:
        """Whether lines follow once `convert` returns."""
        return False

    async def convert(self) -> None:
        """Has somebody else say what the events are in the version of the watch."""

    def close(self) -> None:
        """Where it is not sent after all."""
        self.watch.close()

    def take(self) -> bytes:
        """The lines that are there, as many as a slow reader still takes in one piece; b"" for none."""
        watch, shaper, parts, size = self.watch, self._shaper, [], 0
        while size < _CHUNK_BYTES and (event := watch.ready()) is not None:
            part = event.line if shaper is None else shaper(event)
            parts.append(part)
            size += len(part)
        if not parts:
            return self._last()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _last(self) -> bytes:
        error, self._error = self._error, None
        try:
            # Raises where it was ended for being too slow.
            assert self.watch.over in (True, False)
        except WalrasError as expired:
            error = expired
        return b"" if error is None else line("ERROR", encode(status.failure(error)))


class Deadlines:
    """Ends watches when their time is over: one timer for all of them, which rings on whole seconds."""

    def __init__(self) -> None:
        self._due: dict[int, set[Following]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, following: Following) -> None:
        loop = asyncio.get_running_loop()
        following.due_s = int(loop.time()) + 1 + following.timeout_s
        earliest = min(self._due, default=following.due_s + 1)
        self._due.setdefault(following.due_s, set()).add(following)
        if following.due_s < earliest:
            self._arm(loop)

    def discard(self, following: Following) -> None:
        due = self._due.get(following.due_s)
        if due is not None:
            due.discard(following)
            if not due:
                del self._due[following.due_s]

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._timer = loop.call_at(min(self._due), self._ring)

    def _ring(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for second in [each for each in self._due if each <= now_s]:
            for following in self._due.pop(second):
                following.watch.close()
        self._arm(loop)


def shaper(
    resource: Resource, shape: Representation, include_object: str, now: Callable[[], int]
) -> Shaper | None:
    """What turns events into lines of the representation; None where they are as they are stored."""
    as_stored = not shape.as_ and resource.is_as_stored
    return None if as_stored else _Shaper(resource, shape, include_object, now)


class _Shaper:
    """Turns the events of one stream into the representation; a Table names its columns once."""

    def __init__(
        self, resource: Resource, shape: Representation, include_object: str, now: Callable[[], int]
    ) -> None:
        self._resource, self._shape, self._include, self._now = resource, shape, include_object, now
        self._columns_told = False

    def __call__(self, event: Event) -> bytes:
        obj = event.object
        if event.type != "BOOKMARK" and self._resource.converter is None:
            obj = versions.served(self._resource, obj)
        return line(event.type, encode(self._shaped(event.type, obj)))

    def _shaped(self, kind: str, obj: Object) -> Object:
        if not self._shape.as_:
            return obj
        if self._shape.as_ != "Table":
            return tables.partial(obj)
        if kind == "BOOKMARK":
            return self._bookmark(obj)
        headers, self._columns_told = not self._columns_told, True
        table = tables.table(
            self._resource, [obj], now_ms=self._now(), include_object=self._include, headers=headers
        )
        return {**table, "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}}

    def _bookmark(self, obj: Object) -> Object:
        row = {"cells": [], "object": tables.partial(obj)}
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        empty = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return {**empty, "columnDefinitions": [], "rows": [row]}
