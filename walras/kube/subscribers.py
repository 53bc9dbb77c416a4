"""Who is told of every committed change of a resource, over all clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from walras.kube.collection import is_default
from walras.kube.record import Object
from walras.kube.state import ChangeType, Effect, State

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of one object, for subscribers. The objects are shared: never mutate them."""

    cluster: str
    type: ChangeType
    object: Object
    old: Object | None
    resource: str


Handler = Callable[[Change], None]
Forget = Callable[[str], object]


class Subscribers:
    """Handlers by resource. One that raises is logged and called again for the next change."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._handlers: dict[str, list[Handler]] = {}
        self._forgetters: list[Forget] = []

    def subscribe(self, resource: str, handler: Handler) -> Callable[[], None]:
        """Calls the handler with what there is, by cluster, namespace and name; returns what ends it."""
        for cluster, collection in self._state.everywhere(resource):
            for record in collection.listed():
                if not is_default(record):
                    _call(handler, Change(cluster, "ADDED", record.object, None, resource))
        self._handlers.setdefault(resource, []).append(handler)

        def unsubscribe() -> None:
            if handler in self._handlers.get(resource, ()):
                self._handlers[resource].remove(handler)

        return unsubscribe

    def on_sleep(self, forget: Forget) -> Callable[[], None]:
        """Calls `forget` with each cluster that is put to sleep; returns what ends it."""
        self._forgetters.append(forget)
        return lambda: self._forgetters.remove(forget)

    def slept(self, cluster: str) -> None:
        for forget in self._forgetters:
            forget(cluster)

    def woke(self, cluster: str) -> None:
        """A cluster's objects are back: handlers hear of them as ADDED before anybody else sees one."""
        for resource, collection in tuple(self._state.clusters[cluster].collections.items()):
            handlers = tuple(self._handlers.get(resource, ()))
            for record in collection.stored() if handlers else ():
                for handler in handlers:
                    _call(handler, Change(cluster, "ADDED", record.object, None, resource))

    def tell(self, effects: Sequence[Effect]) -> None:
        """Tells of what became visible, in order."""
        handlers = {resource: tuple(them) for resource, them in self._handlers.items()}
        for effect in effects:
            them = handlers.get(effect.record.key.resource)
            if them:
                change = _change(effect)
                for handler in them:
                    _call(handler, change)


def _change(effect: Effect) -> Change:
    key, previous = effect.record.key, effect.previous
    old = previous.object if previous else None
    return Change(key.cluster, effect.type, effect.record.object, old, key.resource)


def _call(handler: Handler, change: Change) -> None:
    try:
        handler(change)
    except Exception:
        log.exception("subscriber failed", cluster=change.cluster, resource=change.resource)
