"""Who is told of every committed change of a resource, over all clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from walras.kube.collection import is_default
from walras.kube.record import Object, Record
from walras.kube.state import ChangeType, Effect, State

log = structlog.get_logger(__name__)


class Change:
    """A committed change of one object, for subscribers. The objects are shared: never mutate them.

    They are decoded when somebody looks; `namespace`, `name` and `mentions` cost nothing of the kind.
    """

    __slots__ = (
        "_object",
        "_old",
        "_previous",
        "_record",
        "cluster",
        "name",
        "namespace",
        "resource",
        "type",
    )

    def __init__(
        self, cluster: str, type_: ChangeType, obj: Object, old: Object | None, resource: str
    ) -> None:
        self.cluster, self.type, self.resource = cluster, type_, resource
        self.namespace, self.name = str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])
        self._object: Object | None = obj
        self._old = old
        self._record: Record | None = None
        self._previous: Record | None = None

    @classmethod
    def of(cls, type_: ChangeType, record: Record, previous: Record | None) -> Change:
        change = cls.__new__(cls)
        change.type = type_
        change.cluster, change.resource, change.namespace, change.name = record.key
        change._object = change._old = None
        change._record, change._previous = record, previous
        return change

    @property
    def object(self) -> Object:
        # Kept for as long as its change is told: the memory of records may be too small for it.
        if self._object is None:
            assert self._record is not None
            self._object = self._record.object
        return self._object

    @property
    def old(self) -> Object | None:
        if self._old is None and self._previous is not None:
            self._old = self._previous.object
        return self._old

    def mentions(self, *words: bytes) -> bool:
        """Whether the JSON before or after the change has one of these words in it, as a key or otherwise."""
        if self._record is None:
            return True
        after, before = self._record.raw, self._previous.raw if self._previous is not None else b""
        return any(word in after or word in before for word in words)


Handler = Callable[[Change], None]
Forget = Callable[[str], object]


class Subscribers:
    """Handlers by resource. One that raises is logged and called again for the next change."""

    def __init__(self, state: State) -> None:
        self._state = state
        # Replaced whenever it changes, so that who is told may end it.
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._forgetters: list[Forget] = []

    def subscribe(self, resource: str, handler: Handler) -> Callable[[], None]:
        """Calls the handler with what there is, by cluster, namespace and name; returns what ends it."""
        for _, collection in self._state.everywhere(resource):
            for record in collection.listed():
                if not is_default(record):
                    _call(handler, Change.of("ADDED", record, None))
                    # What there is at a start is looked at once: it is not worth being kept decoded.
                    record.release()
        self._handlers[resource] = (*self._handlers.get(resource, ()), handler)

        def unsubscribe() -> None:
            left = list(self._handlers[resource])
            if handler in left:
                left.remove(handler)
                self._handlers[resource] = tuple(left)

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
            handlers = self._handlers.get(resource, ())
            for record in collection.stored() if handlers else ():
                for handler in handlers:
                    _call(handler, Change.of("ADDED", record, None))

    def tell(self, effects: Sequence[Effect]) -> None:
        """Tells of what became visible, in order."""
        handlers = dict(self._handlers)
        for effect in effects:
            them = handlers.get(effect.record.key.resource)
            if them:
                change = Change.of(effect.type, effect.record, effect.previous)
                for handler in them:
                    _call(handler, change)


def _call(handler: Handler, change: Change) -> None:
    try:
        handler(change)
    except Exception:
        log.exception("subscriber failed", cluster=change.cluster, resource=change.resource)
