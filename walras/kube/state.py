"""What is committed, and over it what is staged: plain memory, no I/O, one thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from walras.kube.collection import NO_DEFAULTS, Collection, Defaults, is_default
from walras.kube.objects import CRDS, conflict, not_found
from walras.kube.record import Key, Object, Record
from walras.kube.store.base import ClusterRow, Row

MARK_BYTES: Final = 1 << 20

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(slots=True)
class Cluster:
    """A logical cluster's counters. `revision` is committed, `staged` the last one handed out."""

    name: str
    revision: int
    compacted: int
    staged: int = 0
    # Objects, and the bytes of their JSON, counting what is staged.
    objects: int = 0
    bytes: int = 0
    # Committed since the last mark; a mark is the revision at which another MARK_BYTES had been written.
    unmarked_bytes: int = 0
    marks: list[int] = field(default_factory=list)
    dropping: bool = False
    # The revision at which this process began to know what changes.
    known_from: int = 0
    collections: dict[str, Collection] = field(default_factory=dict)
    # Its objects are on the disk alone; whoever asks for one brings all of them back.
    asleep: bool = False
    # The disk may say that it sleeps; the next write says otherwise.
    flagged: bool = False
    # Somebody asked for its objects since this was last set back.
    used: bool = True
    # Whether it may have definitions of its own.
    defines: bool = True


class Effect(NamedTuple):
    """One committed change; `record` of a deletion is the last state with the deletion's revision."""

    record: Record
    previous: Record | None
    deleted: bool

    @property
    def type(self) -> ChangeType:
        if self.deleted:
            return "DELETED"
        return "MODIFIED" if self.previous else "ADDED"


class Write(NamedTuple):
    """What a transaction wants: `base` is the version it saw (None: nothing there)."""

    key: Key
    base: Record | None
    obj: Object
    deleted: bool


class State:
    """Every cluster's objects. Readers see `visible`; writers stage against `latest`.

    A cluster may sleep: it keeps its counters, and `load` brings its objects when they are asked for, after
    which `on_wake` is called. Who asks notices nothing of it, but `everywhere` leaves out those that sleep.
    """

    def __init__(
        self,
        clusters: Iterable[ClusterRow],
        rows: Iterable[Row],
        load: Callable[[str], Iterable[Row]],
        defaults: Mapping[str, Defaults] = MappingProxyType({}),
    ) -> None:
        self.defaults = dict(defaults)
        # What a cluster has of a resource while it stores nothing of it.
        self._untouched = {resource: Collection(records) for resource, records in defaults.items()}
        self.clusters: dict[str, Cluster] = {
            row.name: Cluster(
                row.name, row.revision, row.compacted, row.revision,
                known_from=row.revision, asleep=row.asleep, flagged=row.asleep,
            )
            for row in clusters
        }  # fmt: skip
        self._load = load
        self.on_wake: Callable[[str], None] = lambda _: None
        self._by_resource: dict[str, dict[str, Collection]] = {}
        self._overlay: dict[Key, Effect] = {}
        self._take(rows)
        for cluster in self.clusters.values():
            _forget_changes(cluster)

    def share(self, table: Mapping[str, Defaults]) -> None:
        """Every cluster has these too, by resource, without storing them."""
        for resource, records in table.items():
            shared = self.defaults[resource] = {**self.defaults.get(resource, {}), **records}
            self._untouched[resource] = Collection(shared)
            for collection in self._by_resource.get(resource, {}).values():
                collection.share(shared)

    def default(self, key: Key) -> Record | None:
        """What every cluster has of the name without storing it."""
        return self.defaults.get(key.resource, NO_DEFAULTS).get((key.namespace, key.name))

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            key = Key(row.cluster, row.resource, row.namespace, row.name)
            self._collection(key).put(Record(key, row.revision, row.data))
            self.clusters[row.cluster].objects += 1
            self.clusters[row.cluster].bytes += len(row.data)

    def _collection(self, key: Key) -> Collection:
        cluster = self.clusters[key.cluster]
        found = cluster.collections.get(key.resource)
        if found is None:
            resource = sys.intern(key.resource)
            found = cluster.collections[resource] = Collection(self.defaults.get(resource, NO_DEFAULTS))
            self._by_resource.setdefault(resource, {})[cluster.name] = found
        return found

    # Sleep

    def is_quiet(self, name: str) -> bool:
        """Whether the cluster is there, and nothing of it is on its way to the disk."""
        cluster = self.clusters.get(name)
        return cluster is not None and not cluster.dropping and cluster.staged == cluster.revision

    def sleep(self, name: str) -> bool:
        """Lets go of the objects of a cluster that the disk says sleeps; whether it still did."""
        if not self.is_quiet(name) or not self.clusters[name].flagged or self.clusters[name].asleep:
            return False
        cluster = self.clusters[name]
        cluster.defines = bool(CRDS in cluster.collections and cluster.collections[CRDS].records)
        for resource, collection in cluster.collections.items():
            del self._by_resource[resource][name]
            for record in collection.stored():
                record.release()
        cluster.collections = {}
        cluster.asleep = True
        return True

    def unflag(self, names: Iterable[str]) -> tuple[str, ...]:
        """Which of them the disk may still say sleep, when something of them is about to be written."""
        flagged = tuple(name for name in names if self.clusters[name].flagged)
        for name in flagged:
            self.clusters[name].flagged = False
        return flagged

    def _wake(self, cluster: Cluster) -> None:
        rows = list(self._load(cluster.name))
        cluster.asleep = False
        cluster.objects = cluster.bytes = 0
        self._take(rows)
        _forget_changes(cluster)
        self.on_wake(cluster.name)

    def counters(self, name: str) -> Cluster:
        """The cluster as it is, awake or not. Raises NotFound, also while it is being deleted."""
        found = self.clusters.get(name)
        if found is None or found.dropping:
            raise not_found("clusters", name)
        return found

    def cluster(self, name: str) -> Cluster:
        """The cluster with its objects. Raises NotFound, also while it is being deleted."""
        found = self.counters(name)
        found.used = True
        if found.asleep:
            self._wake(found)
        return found

    # Reads

    def visible(self, key: Key) -> Record | None:
        cluster = self.clusters.get(key.cluster)
        if cluster is None:
            return None
        cluster.used = True
        if cluster.asleep:
            self._wake(cluster)
        collection = cluster.collections.get(key.resource) or self._untouched.get(key.resource)
        return collection.records.get((key.namespace, key.name)) if collection else None

    def latest(self, key: Key) -> Record | None:
        staged = self._overlay.get(key)
        if staged is None:
            return self.visible(key)
        return None if staged.deleted else staged.record

    def collection(self, cluster: str, resource: str) -> Collection | None:
        """The committed objects; None when there never was one."""
        return self.cluster(cluster).collections.get(resource) or self._untouched.get(resource)

    def changed(self, cluster: str, resource: str) -> int:
        """The last revision at which the resource's committed objects changed, or a later one."""
        counters = self.counters(cluster)
        if counters.asleep:
            return counters.revision
        collection = counters.collections.get(resource)
        return collection.changed if collection else counters.known_from

    def total_revision(self) -> int:
        """Grows with every change of any cluster."""
        return sum(cluster.revision for cluster in self.clusters.values())

    def everywhere(self, resource: str) -> list[tuple[str, Collection]]:
        """The committed objects of every cluster that is awake, by its name."""
        return sorted(self._by_resource.get(resource, {}).items())

    def latest_of(self, cluster: str, resource: str) -> Iterator[Record]:
        """Committed and staged objects of a resource, in no order."""
        collection = self.collection(cluster, resource)
        for where, record in collection.records.items() if collection else ():
            if Key(cluster, resource, *where) not in self._overlay:
                yield record
        for key, staged in self._overlay.items():
            if not staged.deleted and (key.cluster, key.resource) == (cluster, resource):
                yield staged.record

    def stage(self, writes: Sequence[Write]) -> tuple[tuple[Row, ...], list[Effect]]:
        """Puts writes over the committed state, each with its cluster's next revision.

        Raises NotFound or Conflict, and then stages none, when what a write was based on is gone.
        """
        self._check(writes)
        rows, effects = [], []
        for write in writes:
            key = write.key
            cluster, previous = self.clusters[key.cluster], self.latest(key)
            cluster.staged += 1
            stored = previous if previous is not None and not is_default(previous) else None
            cluster.objects += (not write.deleted) - (stored is not None)
            record = Record.of(key, cluster.staged, write.obj)
            cluster.bytes += (0 if write.deleted else len(record.raw)) - (len(stored.raw) if stored else 0)
            effect = self._overlay[key] = Effect(record, previous, write.deleted)
            before = stored.revision if stored else 0
            rows.append(Row(key.cluster, record.revision, key.resource, key.namespace, key.name,
                            before, write.deleted, record.raw))  # fmt: skip
            effects.append(effect)
        return tuple(rows), effects

    def _check(self, writes: Sequence[Write]) -> None:
        seen: set[Key] = set()
        for write in writes:
            self.cluster(write.key.cluster)
            if write.key not in seen and self.latest(write.key) is not write.base:
                raise conflict(write.key.resource, write.key.name)
            seen.add(write.key)

    def publish(self, effects: Iterable[Effect]) -> None:
        """Staged effects became durable: readers see them from now on."""
        for effect in effects:
            record, key = effect.record, effect.record.key
            if effect.deleted:
                self._collection(key).remove((key.namespace, key.name), record.revision)
            else:
                self._collection(key).put(record)
            cluster = self.clusters[key.cluster]
            cluster.revision = record.revision
            cluster.unmarked_bytes += len(record.raw)
            if cluster.unmarked_bytes >= MARK_BYTES:
                cluster.unmarked_bytes = 0
                cluster.marks.append(record.revision)
            if self._overlay.get(key) is effect:
                del self._overlay[key]

    def abandon(self) -> None:
        """Nothing of what is staged will become durable: memory is what the disk has."""
        self._overlay.clear()
        for cluster in self.clusters.values():
            cluster.staged, cluster.dropping = cluster.revision, False
            # Whether the disk knows who sleeps is not known any more.
            cluster.flagged = True
            if cluster.asleep:
                continue
            records = [record for c in cluster.collections.values() for record in c.stored()]
            cluster.objects, cluster.bytes = len(records), sum(len(record.raw) for record in records)

    def add_cluster(self, name: str) -> None:
        """An empty cluster."""
        self.clusters[name] = Cluster(name, 1, 0, 1)

    def drop_cluster(self, name: str) -> list[Effect]:
        """Forgets a cluster; returns the deletion of every object it had."""
        cluster = self.clusters.pop(name)
        assert not cluster.asleep, "a cluster is woken before it is dropped"
        for resource in cluster.collections:
            del self._by_resource[resource][name]
        records = [r for collection in cluster.collections.values() for r in collection.listed()]
        return [Effect(record, record, True) for record in records if not is_default(record)]


def _forget_changes(cluster: Cluster) -> None:
    """Deletions before the load are not known, so nothing older is."""
    cluster.known_from = cluster.revision
    for collection in cluster.collections.values():
        collection.changed = cluster.revision
