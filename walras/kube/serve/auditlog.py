"""A log of JSON lines that a thread of its own writes and rotates: no request waits for the disk."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any, Final

import structlog

from walras.kube.serve.answers import encode

log = structlog.get_logger(__name__)

FILE_BYTES_MAX: Final = 100 << 20
FILES_KEPT: Final = 10
# Lines that wait for the disk; beyond them they are counted and lost.
WAITING_MAX: Final = 10_000


class AuditLog:
    """Lines go to `path`, those before to `path.1`, `path.2`, ...; `close` writes what waits.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: Path, *, file_bytes: int = FILE_BYTES_MAX, kept: int = FILES_KEPT) -> None:
        self._path, self._file_bytes, self._kept = path, file_bytes, kept
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING_MAX)
        self._file, self._size = _opened(path)
        self.lost = 0
        self._thread = threading.Thread(target=self._write, name="walras-audit", daemon=True)
        self._thread.start()

    def record(self, event: dict[str, Any]) -> None:
        """Puts an event behind those that wait; where too many do, it is lost and counted."""
        try:
            self._queue.put_nowait(encode(event) + b"\n")
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        os.close(self._file)

    def _write(self) -> None:
        told = 0
        while (line := self._queue.get()) is not None:
            try:
                if self._size and self._size + len(line) > self._file_bytes:
                    self._rotate()
                os.write(self._file, line)
                self._size += len(line)
            except OSError as error:
                self.lost += 1
                log.warning("audit line lost", error=str(error), path=str(self._path))
            if self.lost > told:
                told = self.lost
                log.warning("audit lines lost", lost=told)

    def _rotate(self) -> None:
        os.close(self._file)
        try:
            for number in range(self._kept - 1, 0, -1):
                older = _numbered(self._path, number)
                if older.exists():
                    older.replace(_numbered(self._path, number + 1))
            self._path.replace(_numbered(self._path, 1))
        finally:
            self._file, self._size = _opened(self._path)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _opened(path: Path) -> tuple[int, int]:
    """The file, for its owner's eyes, and how long it is."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return file, os.fstat(file).st_size
