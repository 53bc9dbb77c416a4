"""Watches of what a webhook converts: lines follow as soon as it has answered, in order."""

from __future__ import annotations

from typing import Final

from walras.core.errors import WalrasError
from walras.kube.conversion.asking import Converter
from walras.kube.events import Event, Matcher
from walras.kube.record import Object, Record
from walras.kube.registry import Resource
from walras.kube.serve.watching import Following, Shaper
from walras.kube.watch import Watch

# Events that are converted together.
_EVENTS_MAX: Final = 500
_BYTES_MAX: Final = 1 << 20


class Converting(Following):
    """A watch in a version that a webhook is asked for. It selects by what objects are in that version."""

    __slots__ = ("_cluster", "_converter", "_converting", "_lines", "_matches", "_resource", "_taken")

    def __init__(
        self,
        watch: Watch,
        shaper: Shaper,
        timeout_s: int,
        converter: Converter,
        where: tuple[str, Resource],
        matches: Matcher | None,
    ) -> None:
        """`where` is the cluster, and the type in the version; `shaper` takes events that are converted."""
        super().__init__(watch, shaper, timeout_s)
        self._converter = converter
        self._cluster, self._resource = where
        self._matches = matches
        self._taken: list[Event] = []
        self._converting = False
        self._lines: list[bytes] = []

    @property
    def pending(self) -> bool:
        return self._converting or bool(self._taken)

    def take(self) -> bytes:
        """The lines that have been converted; b"" when there are none, or some have to be first."""
        if self._lines:
            lines, self._lines = self._lines, []
            return b"".join(lines)
        size = 0
        while len(self._taken) < _EVENTS_MAX and size < _BYTES_MAX:
            event = self.watch.ready()
            if event is None:
                break
            self._taken.append(event)
            size += event.size
        return b"" if self._taken else self._last()

    async def convert(self) -> None:
        """Converts what was taken. What cannot be ends the watch with an error."""
        taken, self._taken, self._converting = self._taken, [], True
        try:
            shown = await self._converter.told(self._cluster, self._resource, self._wanted(taken))
        except WalrasError as error:
            self._error = error
            self.watch.close()
            return
        finally:
            self._converting = False
        assert self._shaper is not None
        for event in taken:
            told = self._told(event, shown)
            if told is not None:
                self._lines.append(self._shaper(told))

    def _wanted(self, taken: list[Event]) -> list[Record]:
        """The states that have to be looked at, each once."""
        found: dict[Record, None] = {}
        for event in taken:
            if event.record is not None:
                found[event.record] = None
                if self._matches is not None and event.previous is not None:
                    found[event.previous] = None
        return list(found)

    def _told(self, event: Event, shown: dict[Record, Object]) -> Event | None:
        """The event in the version; None when it concerns nothing that is selected."""
        if event.record is None:
            return event
        obj, matches = shown[event.record], self._matches
        if matches is None:
            return Event(event.type, obj=obj)
        before = shown[event.previous] if event.previous is not None else None
        was = before is not None and matches(before)
        if event.type != "DELETED" and matches(obj):
            return Event("MODIFIED" if was else "ADDED", obj=obj)
        if event.type == "DELETED":
            return Event("DELETED", obj=obj) if was or matches(obj) else None
        if before is None or not was:
            return None
        metadata = {**before["metadata"], "resourceVersion": obj["metadata"]["resourceVersion"]}
        return Event("DELETED", obj={**before, "metadata": metadata})
