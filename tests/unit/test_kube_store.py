"""The SQLite store: what was acknowledged is there, whatever happened to the process."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from walras.core.errors import StorageError
from walras.kube.store.base import Batch, ClusterRow, Compaction, Group, Row
from walras.kube.store.sqlite import SqliteStore


def commit(store: SqliteStore, *batches: Batch, compactions: tuple[Compaction, ...] = ()) -> Exception | None:
    done = threading.Event()
    errors: list[Exception | None] = []

    def finished(error: Exception | None) -> None:
        errors.append(error)
        done.set()

    store.submit(Group(batches, compactions), finished)
    assert done.wait(10)
    return errors[0]


def row(revision: int, name: str, data: bytes = b"{}", *, previous: int = 0, deleted: bool = False) -> Row:
    return Row("a", revision, "pods", "default", name, previous, deleted, data)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "db")
    assert commit(store, Batch(clusters_created=("a",))) is None
    yield store
    store.close()


def test_rows_and_clusters_are_there_after_reopening(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    commit(store, Batch(clusters_created=("a", "b")), Batch((row(2, "x"), row(3, "y"))))
    commit(store, Batch((row(4, "x", b"new", previous=2), row(5, "y", previous=3, deleted=True))))
    store.close()
    store = SqliteStore(tmp_path / "db")
    assert store.clusters() == [ClusterRow("a", 5, 0), ClusterRow("b", 1, 0)]
    assert list(store.current()) == [row(4, "x", b"new", previous=2)]
    store.close()


def test_a_group_is_all_or_nothing(store: SqliteStore) -> None:
    store.migrate("t", ["CREATE TABLE t (n INTEGER PRIMARY KEY)"])
    assert commit(store, Batch(statements=(("INSERT INTO t VALUES (?)", [(1,)]),))) is None
    error = commit(
        store, Batch((row(2, "x"),)), Batch(statements=(("INSERT INTO t VALUES (?)", [(2,), (1,)]),))
    )
    assert isinstance(error, StorageError)
    assert list(store.current()) == []
    assert store.query("SELECT n FROM t") == [(1,)]
    assert commit(store, Batch((row(2, "x"),))) is None


def test_many_rows_go_in_as_they_are(store: SqliteStore) -> None:
    rows = tuple(row(revision, f"p{revision:04}", str(revision).encode()) for revision in range(2, 600))
    assert commit(store, Batch(rows)) is None
    assert sorted(store.current()) == list(rows)


def test_history_tells_each_version_with_the_one_before(store: SqliteStore) -> None:
    commit(store, Batch((row(2, "x", b"one"), row(3, "x", b"two", previous=2), row(4, "y", b"other"))))
    replays = store.history("a", "pods", 2, 4)
    assert [(r.row.revision, r.row.data, r.previous_data) for r in replays] == [
        (3, b"two", b"one"),
        (4, b"other", None),
    ]
    assert store.history("a", "jobs.batch", 0, 9) == []


def test_a_snapshot_is_the_state_at_its_revision(store: SqliteStore) -> None:
    commit(store, Batch((row(2, "x", b"one"), row(3, "y"), row(4, "x", b"two", previous=2))))
    commit(store, Batch((row(5, "y", previous=3, deleted=True), row(6, "z"))))

    def names(at: int, after: tuple[str, str] = ("", ""), limit: int = 9, namespace: str = "") -> list[str]:
        rows = store.snapshot("a", "pods", namespace, at=at, after=after, limit=limit)
        return [f"{row.name}@{row.revision}" for row in rows]

    assert names(3) == ["x@2", "y@3"]
    assert names(4) == ["x@4", "y@3"]
    assert names(6) == ["x@4", "z@6"]
    assert names(6, limit=1) == ["x@4"]
    assert names(6, after=("default", "x"), namespace="default") == ["z@6"]
    assert names(6, namespace="elsewhere") == []


def test_compaction_forgets_what_was_replaced_or_deleted_and_nothing_else(store: SqliteStore) -> None:
    commit(store, Batch((row(2, "x", b"one"), row(3, "y"), row(4, "x", b"two", previous=2))))
    commit(store, Batch((row(5, "y", previous=3, deleted=True), row(6, "x", b"three", previous=4))))
    assert commit(store, compactions=(Compaction("a", 0, 5),)) is None
    kept = [r.row.revision for r in store.history("a", "pods", 0, 9)]
    assert kept == [4, 6]
    assert [(r.row.revision, r.previous_data) for r in store.history("a", "pods", 5, 9)] == [(6, b"two")]
    assert store.clusters() == [ClusterRow("a", 6, 5)]
    assert [r.revision for r in store.current()] == [6]


def test_a_dropped_cluster_leaves_nothing(store: SqliteStore) -> None:
    commit(store, Batch(clusters_created=("b",)), Batch((row(2, "x")._replace(cluster="b"), row(2, "x"))))
    commit(store, Batch(clusters_dropped=("a",)))
    assert [r.cluster for r in store.current()] == ["b"]
    assert [c.name for c in store.clusters()] == ["b"]


def test_a_second_process_is_refused_and_told_who_holds_the_data(tmp_path: Path, store: SqliteStore) -> None:
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
        SqliteStore(tmp_path / "db")


def test_migrations_run_once_and_refuse_a_later_release(store: SqliteStore) -> None:
    create, add = "CREATE TABLE t (n INTEGER)", "ALTER TABLE t ADD COLUMN m INTEGER"
    store.migrate("t", [create])
    store.migrate("t", [create, add])
    assert store.query("SELECT n, m FROM t") == []
    with pytest.raises(StorageError, match="later release"):
        store.migrate("t", [create])


def test_migrations_that_were_run_write_nothing_where_nothing_can_be_written(store: SqliteStore) -> None:
    create = "CREATE TABLE t (n INTEGER)"
    store.migrate("t", [create])
    store._writer.execute("PRAGMA query_only = ON").fetchall()
    store.migrate("t", [create])
    with pytest.raises(StorageError):
        store.migrate("t", [create, "ALTER TABLE t ADD COLUMN m INTEGER"])
    store._writer.execute("PRAGMA query_only = OFF").fetchall()


def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="no Walras database"):
        SqliteStore(tmp_path / "db")


def test_a_full_disk_fails_the_group_and_keeps_the_data(store: SqliteStore) -> None:
    (pages,) = store.query("PRAGMA page_count")[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
    error = commit(store, Batch((row(2, "x", b"x" * 100_000),)))
    assert isinstance(error, StorageError) and "full" in error.message
    assert commit(store, Batch((row(2, "x", b"small"),))) is None
    assert [r.data for r in store.current()] == [b"small"]


_WRITER = """
import sys
from walras.kube.store.base import Batch, Group, Row
from walras.kube.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
def write(revision):
    row = Row("a", revision, "pods", "default", f"p{revision}", 0, False, b"x" * 500)
    def done(error):
        assert error is None
        sys.stdout.write(f"{revision}\\n")
        sys.stdout.flush()
        write(revision + 1)
    store.submit(Group((Batch((row,)),)), done)
store.submit(Group((Batch(clusters_created=("a",)),)), lambda error: write(2))
store._thread.join()
"""


def test_every_acknowledged_write_survives_kill_9(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(200)]
        child.send_signal(signal.SIGKILL)
        # What it still said before it died counts too; half a line does not.
        acknowledged += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    store = SqliteStore(tmp_path / "db")
    assert {r.revision for r in store.current()} >= set(acknowledged)
    assert len(acknowledged) >= 200
    store.close()


def test_the_files_of_a_database_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "walras.db")
    try:
        store.migrate("t", ["CREATE TABLE t (v TEXT)"])
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    finally:
        store.close()
