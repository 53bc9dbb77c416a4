"""The store port: versions of objects by cluster and revision, committed in groups by another thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

Params = Sequence[Any]


class Row(NamedTuple):
    """One version of one object. `data` is its JSON; of a deletion, the last state with the new revision."""

    cluster: str
    revision: int
    resource: str
    namespace: str
    name: str
    # The revision of the version that this one replaces; 0 for a creation.
    previous: int
    deleted: bool
    data: bytes


class ClusterRow(NamedTuple):
    """A cluster, its last revision, the revision up to which its history is gone, and whether it sleeps."""

    name: str
    revision: int
    compacted: int
    asleep: bool = False


class Replay(NamedTuple):
    """A version and the JSON of the one before it; None for a creation."""

    row: Row
    previous_data: bytes | None


class Batch(NamedTuple):
    """What one transaction writes, all or nothing."""

    rows: tuple[Row, ...] = ()
    statements: tuple[tuple[str, Sequence[Params]], ...] = ()
    clusters_created: tuple[str, ...] = ()
    clusters_dropped: tuple[str, ...] = ()
    # Clusters that sleep from now on, and that do so no more.
    slept: tuple[str, ...] = ()
    woken: tuple[str, ...] = ()


class Compaction(NamedTuple):
    """Versions that were replaced or deleted at a revision in (after, upto] are to be forgotten."""

    cluster: str
    after: int
    upto: int


class Group(NamedTuple):
    """Batches that share one database transaction, in the order in which they were staged."""

    batches: Sequence[Batch]
    compactions: Sequence[Compaction] = ()


class Store(Protocol):
    """Durable versions of objects. Every failure is a StorageError that says what to do."""

    def clusters(self) -> list[ClusterRow]:
        """Every cluster."""

    def current(self) -> Iterator[Row]:
        """The live version of every object of the clusters that do not sleep, in no order."""

    def load(self, cluster: str) -> list[Row]:
        """The live version of every object of one cluster, in no order."""

    def sleeping(self, resource: str) -> list[Row]:
        """The live objects of a resource in the clusters that sleep, by (cluster, namespace, name)."""

    def submit(self, group: Group, done: Callable[[Exception | None], None]) -> None:
        """Commits the group in the writer thread and calls `done` there, with the error if it failed."""

    def history(self, cluster: str, resource: str, after: int, upto: int) -> list[Replay]:
        """Versions with a revision in (after, upto], by revision. Exact only if `after` is not compacted."""

    def snapshot(
        self, cluster: str, resource: str, namespace: str, *, at: int, after: tuple[str, str], limit: int
    ) -> list[Row]:
        """At most `limit` objects as they were at revision `at`, by (namespace, name), beyond `after`.

        Namespace "" is all of them; exact only if `at` is not compacted.
        """

    def migrate(self, name: str, steps: Sequence[str]) -> None:
        """Runs those of the numbered `steps` (one statement each) that this database has not seen."""

    def query(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        """Rows of committed data."""

    def close(self) -> None:
        """Waits for the commits under way, then lets go of the files."""
