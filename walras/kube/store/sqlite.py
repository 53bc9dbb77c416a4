"""SQLite in WAL mode with synchronous=FULL: what was acknowledged survives a power cut."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import apsw

from walras.core.errors import StorageError
from walras.kube.store.base import Batch, ClusterRow, Compaction, Group, Params, Replay, Row
from walras.kube.store.lock import FileLock

_SCHEMA: Final = (
    """CREATE TABLE clusters (name TEXT PRIMARY KEY, compacted INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE versions (
         cluster TEXT NOT NULL, revision INTEGER NOT NULL,
         resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
         previous INTEGER NOT NULL, deleted INTEGER NOT NULL, data BLOB NOT NULL) STRICT""",
    """CREATE UNIQUE INDEX versions_by_revision ON versions (cluster, revision)""",
    """CREATE UNIQUE INDEX versions_by_key ON versions (cluster, resource, namespace, name, revision)""",
    """ALTER TABLE clusters ADD COLUMN asleep INTEGER NOT NULL DEFAULT 0""",
)
_COLUMNS: Final = "cluster, revision, resource, namespace, name, previous, deleted, data"
_OF_V: Final = ", ".join(f"v.{column}" for column in _COLUMNS.split(", "))
_LATER: Final = """SELECT 1 FROM versions n WHERE n.cluster = v.cluster AND n.resource = v.resource
  AND n.namespace = v.namespace AND n.name = v.name AND n.revision > v.revision"""
_LIVE: Final = f"SELECT {_OF_V} FROM versions v WHERE NOT v.deleted AND NOT EXISTS ({_LATER})"  # noqa: S608
_AWAKE: Final = "SELECT name FROM clusters WHERE NOT asleep"
# Powers of two, so that few statements are prepared: a statement inserts many rows because every step
# of a statement costs the writer thread a turn of the interpreter lock.
_CHUNKS: Final = (256, 64, 16, 4, 1)
_INSERT: Final = {
    size: f"INSERT INTO versions ({_COLUMNS}) VALUES " + ", ".join(["(?,?,?,?,?,?,?,?)"] * size)  # noqa: S608
    for size in _CHUNKS
}
# A page that several groups change is moved from the log into the database once: every 4,000 pages (16 MB).
# The writer's cache keeps the pages of indexes that every group changes; a reader comes by seldom.
_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 4000",
)
_WRITER_CACHE_KIB: Final = 16_384
_READER_CACHE_KIB: Final = 1_024
MEMORY: Final = ":memory:"


def _refusal(error: BaseException, path: str) -> StorageError:
    match error:
        case apsw.FullError():
            return StorageError(f"the disk that holds {path} is full; free some space and try again")
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.CantOpenError():
            return StorageError(f"{path} cannot be written; check its owner and permissions ({error})")
        case apsw.CorruptError() | apsw.NotADBError():
            return StorageError(f"{path} is damaged or no Walras database; restore it from a copy ({error})")
    return StorageError(f"{path}: {error}")


class SqliteStore:
    """The store port on one file, or on nothing for path ":memory:".

    Raises StorageError when another process uses the file, or when it cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        in_memory = self._path == MEMORY
        self._file_lock = None if in_memory else FileLock(Path(f"{self._path}.lock"))
        self._write_lock = threading.Lock()
        try:
            if not in_memory:
                # It holds everybody's secrets; SQLite gives its log files the permissions of the database.
                Path(self._path).touch(mode=0o600)
            self._writer = self._open(_WRITER_CACHE_KIB)
            self._migrate("kube", _SCHEMA)
            self._reader = self._writer if in_memory else self._open(_READER_CACHE_KIB)
        except (apsw.Error, OSError) as error:
            self._release()
            raise _refusal(error, self._path) from None
        # In memory, readers share the writer's connection and must not see half a group.
        self._read_lock = self._write_lock if in_memory else threading.Lock()
        self._groups: SimpleQueue[tuple[Group, Callable[[Exception | None], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="walras-store", daemon=True)
        self._thread.start()

    def _open(self, cache_kib: int) -> apsw.Connection:
        connection = apsw.Connection(self._path, statementcachesize=128)
        connection.set_busy_timeout(5000)
        for pragma in (*_PRAGMAS, f"cache_size = -{cache_kib}"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def clusters(self) -> list[ClusterRow]:
        rows = self.query(
            "SELECT name, max(compacted, 1, coalesce((SELECT max(revision) FROM versions "
            "WHERE cluster = clusters.name), 1)), compacted, asleep FROM clusters ORDER BY name"
        )
        return [ClusterRow(name, last, gone, bool(asleep)) for name, last, gone, asleep in rows]

    def current(self) -> Iterator[Row]:
        with self._read_lock:
            yield from map(Row._make, self._reader.execute(f"{_LIVE} AND v.cluster IN ({_AWAKE})"))

    def load(self, cluster: str) -> list[Row]:
        return [Row._make(row) for row in self.query(f"{_LIVE} AND v.cluster = ?", (cluster,))]

    def sleeping(self, resource: str) -> list[Row]:
        sql = (
            f"SELECT {_OF_V} FROM clusters c CROSS JOIN versions v "  # noqa: S608
            "ON v.cluster = c.name AND v.resource = ? "
            f"WHERE c.asleep AND NOT v.deleted AND NOT EXISTS ({_LATER}) "
            "ORDER BY v.cluster, v.namespace, v.name"
        )
        return [Row._make(row) for row in self.query(sql, (resource,))]

    def history(self, cluster: str, resource: str, after: int, upto: int) -> list[Replay]:
        sql = (
            f"SELECT {_OF_V}, p.data FROM versions v "  # noqa: S608
            "LEFT JOIN versions p ON v.previous > 0 AND p.cluster = v.cluster AND p.revision = v.previous "
            "WHERE v.cluster = ? AND v.revision > ? AND v.revision <= ? AND v.resource = ? "
            "ORDER BY v.revision"
        )
        rows = self.query(sql, (cluster, after, upto, resource))
        return [Replay(Row._make(row[:-1]), row[-1]) for row in rows]

    def snapshot(
        self, cluster: str, resource: str, namespace: str, *, at: int, after: tuple[str, str], limit: int
    ) -> list[Row]:
        within = "v.namespace = ? AND v.name > ?" if namespace else "(v.namespace, v.name) > (?, ?)"
        sql = (
            f"SELECT {_OF_V} FROM versions v "  # noqa: S608
            f"WHERE v.cluster = ? AND v.resource = ? AND {within} "
            f"AND v.revision <= ? AND NOT v.deleted AND NOT EXISTS ({_LATER} AND n.revision <= ?) "
            "ORDER BY v.namespace, v.name LIMIT ?"
        )
        start = (namespace, after[1]) if namespace else after
        return [Row._make(row) for row in self.query(sql, (cluster, resource, *start, at, at, limit))]

    def query(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        try:
            with self._read_lock:
                return list(self._reader.execute(sql, tuple(params)))
        except apsw.Error as error:
            raise _refusal(error, self._path) from None

    def migrate(self, name: str, steps: Sequence[str]) -> None:
        try:
            with self._write_lock:
                self._migrate(name, steps)
        except apsw.Error as error:
            raise _refusal(error, self._path) from None

    def _migrate(self, name: str, steps: Sequence[str]) -> None:
        with self._writer:
            self._writer.execute(
                "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, steps INTEGER NOT NULL) STRICT"
            )
            row = self._writer.execute("SELECT steps FROM migrations WHERE name = ?", (name,)).fetchone()
            done = row[0] if row else 0
            if done > len(steps):
                raise apsw.NotADBError(f"{name} was written by a later release of Walras")
            if row and done == len(steps):
                # Nothing to write: a full disk can still be read.
                return
            for step in steps[done:]:
                self._writer.execute(step)
            self._writer.execute("INSERT OR REPLACE INTO migrations VALUES (?, ?)", (name, len(steps)))

    def submit(self, group: Group, done: Callable[[Exception | None], None]) -> None:
        self._groups.put((group, done))

    def close(self) -> None:
        if self._thread.is_alive():
            self._groups.put(None)
            self._thread.join()
        self._reader.close()
        self._writer.close()
        self._release()

    def _release(self) -> None:
        if self._file_lock is not None:
            self._file_lock.release()

    def _run(self) -> None:
        while (item := self._groups.get()) is not None:
            group, done = item
            done(self._commit(group))

    def _commit(self, group: Group) -> Exception | None:
        with self._write_lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._write(group)
                self._writer.execute("COMMIT")
            except Exception as error:  # the caller is told; this thread must live on
                if self._writer.in_transaction:
                    with suppress(apsw.Error):
                        self._writer.execute("ROLLBACK")
                return _refusal(error, self._path)
        return None

    def _write(self, group: Group) -> None:
        rows: list[Row] = []
        for batch in group.batches:
            if batch.clusters_created or batch.clusters_dropped or batch.slept or batch.woken:
                self._insert(rows)
                rows = []
                self._change_clusters(batch)
            rows += batch.rows
            for sql, params in batch.statements:
                self._writer.executemany(sql, params)
        self._insert(rows)
        for compaction in group.compactions:
            self._compact(compaction)

    def _insert(self, rows: Sequence[Row]) -> None:
        start = 0
        for size in _CHUNKS:
            while len(rows) - start >= size:
                values = [value for row in rows[start : start + size] for value in row]
                self._writer.execute(_INSERT[size], values)
                start += size

    def _change_clusters(self, batch: Batch) -> None:
        for name in batch.clusters_created:
            self._writer.execute("INSERT INTO clusters (name, compacted) VALUES (?, 0)", (name,))
        for name in batch.clusters_dropped:
            self._writer.execute("DELETE FROM versions WHERE cluster = ?", (name,))
            self._writer.execute("DELETE FROM clusters WHERE name = ?", (name,))
        for name in batch.slept:
            self._writer.execute("UPDATE clusters SET asleep = 1 WHERE name = ?", (name,))
        for name in batch.woken:
            self._writer.execute("UPDATE clusters SET asleep = 0 WHERE name = ?", (name,))

    def _compact(self, compaction: Compaction) -> None:
        cluster, after, upto = compaction
        self._writer.execute(
            "DELETE FROM versions WHERE cluster = ?1 AND revision IN (SELECT previous FROM versions "
            "WHERE cluster = ?1 AND revision > ?2 AND revision <= ?3)",
            (cluster, after, upto),
        )
        self._writer.execute(
            "DELETE FROM versions WHERE cluster = ? AND revision > ? AND revision <= ? AND deleted",
            (cluster, after, upto),
        )
        self._writer.execute("UPDATE clusters SET compacted = ? WHERE name = ?", (upto, cluster))
