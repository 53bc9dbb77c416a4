"""The database of a data directory, only read: whether or not a server runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import apsw

from walras.core.errors import StorageError
from walras.kube.store.base import Params


class SqliteReader:
    """Queries of what was committed. Raises StorageError when the file cannot be read. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._connection.set_busy_timeout(5000)
        except apsw.Error as error:
            raise StorageError(f"{path} cannot be read: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def query(self, sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
        """Rows of committed data. Raises StorageError."""
        try:
            return list(self._connection.execute(sql, tuple(params)))
        except apsw.Error as error:
            raise StorageError(f"{self._path}: {error}") from None
