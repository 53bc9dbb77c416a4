"""The watches that are open, by what they look at, so that a change costs those who see it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from walras.kube.context import EVERY_CLUSTER
from walras.kube.events import Event, Matcher, Told
from walras.kube.state import Effect
from walras.kube.watch import Watch, WatchEverywhere, Where

BOOKMARK_EVERY_S: Final = 60


@dataclass(frozen=True, slots=True)
class View:
    """What a watch looks at; namespace and name "" are all.

    Where `bookmark_kind` is set, (apiVersion, kind), idle readers get bookmarks.
    """

    cluster: str
    resource: str
    namespace: str = ""
    matches: Matcher | None = None
    bookmark_kind: tuple[str, str] | None = None
    name: str = ""
    # Whether events have the state before them.
    whole: bool = False


class Hub:
    """Watches by cluster, resource, namespace and name. One timer serves the bookmarks of all."""

    def __init__(self, revision: Callable[[str], int]) -> None:
        self._watches: dict[Where, dict[Watch, None]] = {}
        # How many views of each resource of a cluster somebody watches: of most it is none.
        self._looked_at: Counter[tuple[str, str]] = Counter()
        self._revision = revision
        self._timer: asyncio.TimerHandle | None = None
        # One bound method for all watches.
        self._on_end = self._forget

    def open(self, view: View, start: Iterable[Event], after: int) -> Watch:
        """A watch that first yields `start`, then every change beyond revision `after`."""
        kind = WatchEverywhere if view.cluster == EVERY_CLUSTER else Watch
        watch = kind(start, after, view.matches)
        watch.bookmark_kind, watch.whole = view.bookmark_kind, view.whole
        watch.where, watch.on_end = (view.cluster, view.resource, view.namespace, view.name), self._on_end
        if watch.where not in self._watches:
            self._watches[watch.where] = {}
            self._looked_at[view.cluster, view.resource] += 1
        self._watches[watch.where][watch] = None
        if view.bookmark_kind and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self.mark)
        return watch

    def _forget(self, watch: Watch) -> None:
        watches = self._watches.get(watch.where)
        if watches is not None:
            watches.pop(watch, None)
            if not watches:
                del self._watches[watch.where]
                seen = watch.where[:2]
                self._looked_at[seen] -= 1
                if not self._looked_at[seen]:
                    del self._looked_at[seen]

    def dispatch(self, effects: Iterable[Effect]) -> None:
        """Tells each watch of what it looks at."""
        for effect in effects:
            cluster, resource, namespace, name = effect.record.key
            told: Told | None = None
            for seen in (cluster, EVERY_CLUSTER):
                if (seen, resource) not in self._looked_at:
                    continue
                told = told or Told(effect)
                for where in _views(seen, resource, namespace, name):
                    watches = self._watches.get(where)
                    for watch in tuple(watches) if watches else ():
                        watch.offer(told)

    def mark(self) -> None:
        """Gives a bookmark to every idle watch that takes them."""
        self._timer = None
        for watches in tuple(self._watches.values()):
            for watch in watches:
                if watch.bookmark_kind:
                    watch.mark(self._revision(watch.where[0]))
                    if self._timer is None:
                        self._timer = asyncio.get_running_loop().call_later(BOOKMARK_EVERY_S, self.mark)

    def end(self, cluster: str, resource: str = "") -> None:
        """Ends the watches of a resource, or of all resources of a cluster."""
        for where in [w for w in self._watches if w[0] == cluster and resource in ("", w[1])]:
            for watch in tuple(self._watches[where]):
                watch.end()

    def __len__(self) -> int:
        return sum(map(len, self._watches.values()))


def _views(cluster: str, resource: str, namespace: str, name: str) -> tuple[Where, ...]:
    """Every view that holds the object."""
    if not namespace:
        return (cluster, resource, "", ""), (cluster, resource, "", name)
    return (
        (cluster, resource, "", ""),
        (cluster, resource, namespace, ""),
        (cluster, resource, "", name),
        (cluster, resource, namespace, name),
    )
