"""Kubernetes Events: what happened to an object, in words, the same thing counted instead of repeated."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from walras.core.clock import Clock, rfc3339
from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import EVENTS, NAMESPACES, Object, deleting, parse_ms

BUFFER_MAX: Final = 10_000
BATCH_MAX: Final = 500
# kube-apiserver's default --event-ttl.
LIFETIME_MS: Final = 3_600_000
MESSAGE_MAX: Final = 1024


class Entry(NamedTuple):
    cluster: str
    involved: Object
    type: str
    reason: str
    message: str
    component: str


class Noted(NamedTuple):
    """What waits to be written, and what raises NotFound once the cluster is another."""

    entry: Entry
    still: Callable[[], None]


class Staged:
    """What one step of a controller tells of one object."""

    def __init__(
        self, recorder: Recorder, transaction: Transaction, cluster: str, about: Object, component: str
    ) -> None:
        self._recorder = recorder
        self._where = (transaction, cluster, about)
        self._component = component

    def normal(self, reason: str, message: str) -> None:
        self._recorder.stage(*self._where, "Normal", reason, message=message, component=self._component)

    def warning(self, reason: str, message: str) -> None:
        self._recorder.stage(*self._where, "Warning", reason, message=message, component=self._component)


class Recorder:
    """Writes Events in the background; when more come than can be written, the newest are dropped."""

    def __init__(self, api: API, clock: Clock, manager: Manager) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._waiting: deque[Noted] = deque()

    def event(
        self, cluster: str, about: Object, type_: str, reason: str, message: str, *, component: str = "walras"
    ) -> None:
        """Notes an Event of type "Normal" or "Warning" about an object; returns at once and never fails."""
        if len(self._waiting) < BUFFER_MAX:
            entry = Entry(cluster, _involved(about), type_, reason, message, component)
            self._waiting.append(Noted(entry, self._api.hold_to(cluster)))
            self._manager.add(self, Key("", "", "recorder"))

    def stage(
        self,
        transaction: Transaction,
        cluster: str,
        about: Object,
        type_: str,
        reason: str,
        *,
        message: str,
        component: str = "walras",
    ) -> None:
        """The same within a transaction, so that the Event is there exactly when what it tells is."""
        self._write(transaction, Entry(cluster, _involved(about), type_, reason, message, component))

    def about(self, transaction: Transaction, cluster: str, obj: Object, component: str) -> Staged:
        """Events of one component about one object, staged in one transaction."""
        return Staged(self, transaction, cluster, obj, component)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        """Writes what waits; what cannot be stored stays for the next try."""
        del cluster, namespace, name
        batch = [self._waiting[i] for i in range(min(BATCH_MAX, len(self._waiting)))]
        transaction = self._api.transaction()
        for entry, still in batch:
            with suppress(NotFound):
                # Another cluster by the name is not told of it.
                still()
                if self._api.has_cluster(entry.cluster):
                    self._write(transaction, entry)
        await transaction.commit()
        for _ in batch:
            self._waiting.popleft()
        return 0 if self._waiting else None

    def _write(self, transaction: Transaction, entry: Entry) -> None:
        namespace = entry.involved.get("namespace") or "default"
        now = rfc3339(self._clock.now_ms())
        name = _event_name(entry)

        def again(event: Object) -> None:
            event["count"] = event.get("count", 1) + 1
            event["lastTimestamp"] = now

        if not self._takes_events(entry.cluster, namespace):
            return
        try:
            transaction.edit(entry.cluster, EVENTS, namespace, name, again)
        except NotFound:
            transaction.create(entry.cluster, EVENTS, _event(entry, namespace, name, now))

    def _takes_events(self, cluster: str, namespace: str) -> bool:
        """A namespace on its way out takes nothing new, or it would never be empty."""
        found = self._api.find(cluster, NAMESPACES, "", namespace)
        return found is not None and not deleting(found)


def _involved(about: Object) -> Object:
    metadata = about["metadata"]
    reference: Object = {
        "kind": about.get("kind", ""),
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
        "apiVersion": about.get("apiVersion", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
    return {field: value for field, value in reference.items() if value}


def _event_name(entry: Entry) -> str:
    involved = entry.involved
    same = "\0".join(
        (involved.get("uid", ""), involved.get("kind", ""), entry.type, entry.reason, entry.message)
    )
    digest = hashlib.sha256(f"{entry.component}\0{same}".encode()).hexdigest()[:16]
    return f"{involved['name'][:236]}.{digest}"


def _event(entry: Entry, namespace: str, name: str, now: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": entry.involved,
        "type": entry.type,
        "reason": entry.reason,
        "message": entry.message[:MESSAGE_MAX],
        "source": {"component": entry.component},
        "reportingComponent": entry.component,
        "reportingInstance": "",
        "firstTimestamp": now,
        "lastTimestamp": now,
        "eventTime": None,
        "count": 1,
    }


class EventExpiry:
    """Deletes Events an hour after they last happened; one timer for each cluster that has any."""

    def __init__(self, api: API, clock: Clock, manager: Manager) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(EVENTS, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type == "ADDED":
            self._manager.add(self, Key(change.cluster, "", EVENTS), LIFETIME_MS)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace, name
        if not self._api.has_cluster(cluster):
            return None
        now_ms, next_ms = self._clock.now_ms(), None
        transaction = self._api.transaction()
        for event in self._api.list(cluster, EVENTS):
            last = event.get("lastTimestamp") or event.get("eventTime")
            ends_ms = (
                parse_ms(last) or parse_ms(event["metadata"].get("creationTimestamp")) or 0
            ) + LIFETIME_MS
            if ends_ms <= now_ms:
                transaction.delete(cluster, EVENTS, event["metadata"]["namespace"], event["metadata"]["name"])
            else:
                next_ms = ends_ms if next_ms is None else min(next_ms, ends_ms)
        await transaction.commit()
        return None if next_ms is None else next_ms - now_ms
