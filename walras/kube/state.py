"""What is committed, and over it what is staged: plain memory, no I/O, one thread."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from walras.kube.objects import conflict, not_found
from walras.kube.record import Key, Object, Record
from walras.kube.store.base import ClusterRow, Row

MARK_BYTES: Final = 1 << 20

# Objects of a resource that every cluster has without storing them, by (namespace, name). Their key names no
# cluster.
Defaults = Mapping[tuple[str, str], Record]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


class Collection:
    """The committed objects of one resource in one cluster, in order of (namespace, name).

    `defaults` are there from the start and again when what the cluster put in their place is removed.
    """

    __slots__ = ("_defaults", "_order", "changed", "records")

    def __init__(self, defaults: Defaults = MappingProxyType({})) -> None:
        self._defaults = defaults
        self.records: dict[tuple[str, str], Record] = dict(defaults)
        # Kept from the first listing on; most resources of most clusters are never listed.
        self._order: list[tuple[str, str]] | None = None
        # The revision of the last change, deletions too.
        self.changed = 0

    def put(self, record: Record) -> None:
        where = (record.key.namespace, record.key.name)
        if where not in self.records and self._order is not None:
            insort(self._order, where)
        self.records[where] = record
        self.changed = record.revision

    def remove(self, where: tuple[str, str], revision: int) -> None:
        if where in self._defaults:
            self.records[where] = self._defaults[where]
        elif self.records.pop(where, None) is not None and self._order is not None:
            del self._order[bisect_left(self._order, where)]
        self.changed = revision

    def listed(self, namespace: str = "", after: tuple[str, str] | None = None) -> list[Record]:
        """Records in order, of one namespace or of all, beyond the place `after`."""
        if self._order is None:
            self._order = sorted(self.records)
        order, start, end = self._order, 0, len(self._order)
        if namespace:
            start, end = bisect_left(order, (namespace, "")), bisect_left(order, (namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect_left(order, (after[0], after[1] + "\0")))
        records = self.records
        return [records[where] for where in order[start:end]]

    def stored(self) -> list[Record]:
        """The records of the cluster's own, in no order."""
        return [record for record in self.records.values() if not is_default(record)]


def is_default(record: Record) -> bool:
    """Whether the record is what every cluster has without storing it."""
    return not record.key.cluster


_NONE: Final[Defaults] = MappingProxyType({})


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
    marks: deque[int] = field(default_factory=deque)
    dropping: bool = False
    # The revision at which this process began to know what changes.
    known_from: int = 0
    collections: dict[str, Collection] = field(default_factory=dict)


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
    """Every cluster's objects. Readers see `visible`; writers stage against `latest`."""

    def __init__(
        self,
        clusters: Iterable[ClusterRow],
        rows: Iterable[Row],
        defaults: Mapping[str, Defaults] = MappingProxyType({}),
    ) -> None:
        self.defaults = defaults
        # What a cluster has of a resource while it stores nothing of it.
        self._untouched = {resource: Collection(records) for resource, records in defaults.items()}
        self.clusters: dict[str, Cluster] = {
            row.name: Cluster(row.name, row.revision, row.compacted, row.revision, known_from=row.revision)
            for row in clusters
        }
        self._by_resource: dict[str, dict[str, Collection]] = {}
        self._overlay: dict[Key, Effect] = {}
        for row in rows:
            key = Key(row.cluster, row.resource, row.namespace, row.name)
            self._collection(key).put(Record(key, row.revision, row.data))
            self.clusters[row.cluster].objects += 1
            self.clusters[row.cluster].bytes += len(row.data)
        for cluster in self.clusters.values():
            for collection in cluster.collections.values():
                # Deletions before the start are not known here, so nothing older is.
                collection.changed = cluster.revision

    def _collection(self, key: Key) -> Collection:
        found = self.clusters[key.cluster].collections.get(key.resource)
        if found is None:
            found = self.clusters[key.cluster].collections[key.resource] = Collection(
                self.defaults.get(key.resource, _NONE)
            )
            self._by_resource.setdefault(key.resource, {})[key.cluster] = found
        return found

    def cluster(self, name: str) -> Cluster:
        """Raises NotFound, also while the cluster is being deleted."""
        found = self.clusters.get(name)
        if found is None or found.dropping:
            raise not_found("clusters", name)
        return found

    def visible(self, key: Key) -> Record | None:
        cluster = self.clusters.get(key.cluster)
        collection = (
            cluster.collections.get(key.resource) or self._untouched.get(key.resource) if cluster else None
        )
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
        counters = self.cluster(cluster)
        collection = counters.collections.get(resource)
        return collection.changed if collection else counters.known_from

    def total_revision(self) -> int:
        """Grows with every change of any cluster."""
        return sum(cluster.revision for cluster in self.clusters.values())

    def everywhere(self, resource: str) -> list[tuple[str, Collection]]:
        """The committed objects of every cluster, by its name."""
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
            records = [record for c in cluster.collections.values() for record in c.stored()]
            cluster.objects, cluster.bytes = len(records), sum(len(record.raw) for record in records)

    def add_cluster(self, name: str) -> None:
        """An empty cluster."""
        self.clusters[name] = Cluster(name, 1, 0, 1)

    def drop_cluster(self, name: str) -> list[Effect]:
        """Forgets a cluster; returns the deletion of every object it had."""
        cluster = self.clusters.pop(name)
        for resource in cluster.collections:
            del self._by_resource[resource][name]
        records = [r for collection in cluster.collections.values() for r in collection.listed()]
        return [Effect(record, record, True) for record in records if not is_default(record)]
