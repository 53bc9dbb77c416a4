"""Container logs: files in CRI's format, bounded in size, and what `kubectl logs` reads from them.

Format: Kubernetes design proposal "Redirect Container Stdout/Stderr", `TIME STREAM TAG LINE`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from walras.core.clock import Clock
from walras.core.errors import BadRequest
from walras.runtimes.base import Stream

log = structlog.get_logger(__name__)

FILE_BYTES_MAX: Final = 10 << 20
LINE_BYTES_MAX: Final = 16 << 10
_CHUNK: Final = 1 << 16
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW


def path_part(name: str) -> str:
    """`name` as one component of a path. Raises BadRequest for what would leave its directory."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise BadRequest(f"{name!r} cannot be part of a path")
    return name


class LogWriter:
    """One attempt's log. `write` never fails: what the disk does not take is dropped, and said once."""

    def __init__(self, path: Path, clock: Clock, *, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path, self._clock, self._bytes_max = path, clock, bytes_max
        self._parts: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        # Set when something was written, or the log ended, since it was made.
        self.changed = asyncio.Event()
        self._complained = False
        self._fd = -1
        self._size = 0
        self.closed = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: Stream, data: bytes) -> None:
        """Adds raw output; whole lines become visible at once, the rest with its newline."""
        part = self._parts[stream]
        part += data
        *lines, rest = bytes(part).split(b"\n")
        self._parts[stream] = bytearray(rest)
        entries = [entry for line in lines for entry in self._entries(stream, line, b"F")]
        while len(self._parts[stream]) > LINE_BYTES_MAX:
            entries += self._entries(stream, bytes(self._parts[stream][:LINE_BYTES_MAX]), b"P")
            del self._parts[stream][:LINE_BYTES_MAX]
        self._append(b"".join(entries))

    def _entries(self, stream: Stream, line: bytes, tag: bytes) -> Iterator[bytes]:
        head = _timestamp(self._clock.now_ms()) + b" " + stream.encode() + b" "
        while len(line) > LINE_BYTES_MAX:
            yield head + b"P " + line[:LINE_BYTES_MAX] + b"\n"
            line = line[LINE_BYTES_MAX:]
        yield head + tag + b" " + line + b"\n"

    def _append(self, data: bytes) -> None:
        if not data or self.closed:
            return
        try:
            if self._size and self._size + len(data) > self._bytes_max:
                self._rotate()
            self._size += os.write(self._fd, data)
        except OSError as error:
            if not self._complained:
                log.warning("log not written", file=self._path.name, error=str(error))
            self._complained = True
        self._tell()

    def _rotate(self) -> None:
        os.close(self._fd)
        self._path.replace(older(self._path))
        self._open()

    def close(self) -> None:
        """Ends the log; a last line without a newline is kept as it is."""
        for stream, part in self._parts.items():
            if part:
                self._append(b"".join(self._entries(stream, bytes(part), b"P")))
                part.clear()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self.closed = -1, True
        self._tell()

    def _tell(self) -> None:
        """Each of those who follow it has an event of its own time: none takes another's away."""
        self.changed.set()
        self.changed = asyncio.Event()


def older(path: Path) -> Path:
    """Where the part of a log goes that is rotated away."""
    return path.with_suffix(".log.1")


def _timestamp(ms: int) -> bytes:
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}000000Z".encode()


@dataclass(frozen=True, slots=True)
class Query:
    """The options of the log subresource."""

    follow: bool = False
    tail_lines: int | None = None
    since_ms: int | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


class LogStore:
    """The logs below one directory, `CLUSTER/logs/UID/CONTAINER/ATTEMPT.log`."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root, self._clock = root, clock
        self._open: dict[Path, LogWriter] = {}

    def _directory(self, cluster: str, uid: str) -> Path:
        return self._root / path_part(cluster) / "logs" / path_part(uid)

    def path(self, cluster: str, uid: str, container: str, attempt: int) -> Path:
        return self._directory(cluster, uid) / path_part(container) / f"{attempt}.log"

    def create(self, cluster: str, uid: str, container: str, attempt: int) -> LogWriter:
        """The log of a new attempt; logs before the previous attempt's are deleted. Raises OSError."""
        path = self.path(cluster, uid, container, attempt)
        writer = self._open[path] = LogWriter(path, self._clock)
        for old in range(attempt - 2, -1, -1):
            ancient = self.path(cluster, uid, container, old)
            if not ancient.exists() and not older(ancient).exists():
                break
            for each in (ancient, older(ancient)):
                each.unlink(missing_ok=True)
        return writer

    def close(self, writer_path: Path) -> None:
        """Ends one log; those who follow it see its end."""
        writer = self._open.pop(writer_path, None)
        if writer is not None:
            writer.close()

    def remove(self, cluster: str, uid: str) -> None:
        """Deletes all logs of a pod."""
        shutil.rmtree(self._directory(cluster, uid), ignore_errors=True)

    def keep_only(self, known: set[tuple[str, str]]) -> None:
        """Deletes the logs of pods that are not among `known` (cluster, uid)."""
        for directory in self._root.glob("*/logs/*"):
            if (directory.parent.parent.name, directory.name) not in known:
                shutil.rmtree(directory, ignore_errors=True)

    async def read(self, path: Path, query: Query) -> AsyncGenerator[bytes, None]:
        """The log's lines in pieces, from the tail asked for on; follows until the log ends."""
        left = query.limit_bytes
        async for line in self._lines(path, query):
            piece = line if left is None else line[:left]
            if piece:
                yield piece
            if left is not None:
                left -= len(piece)
                if left <= 0:
                    return

    async def _lines(self, path: Path, query: Query) -> AsyncGenerator[bytes, None]:
        files = [each for each in (older(path), path) if each.exists()]
        cut = _Cut(query)
        if query.tail_lines is not None:
            cut.at_end(await asyncio.to_thread(_lines_in, files))
        batch: list[bytes] = []
        with suppress(FileNotFoundError):
            for each in files[:-1]:
                for entry in _entries_of(each):
                    batch.append(cut.shown(entry))
                    if len(batch) >= _BATCH:
                        yield b"".join(batch)
                        batch.clear()
                        await asyncio.sleep(0)
        reader = _Reader(path)
        try:
            while True:
                writer = self._open.get(path) if query.follow else None
                # Of before it is read: what is written meanwhile is not waited for.
                changed = writer.changed if writer is not None else None
                for entry in reader.entries():
                    batch.append(cut.shown(entry))
                    if len(batch) >= _BATCH:
                        yield b"".join(batch)
                        batch.clear()
                        await asyncio.sleep(0)
                if batch:
                    yield b"".join(batch)
                    batch.clear()
                if writer is None or changed is None or (writer.closed and reader.at_end()):
                    return
                await changed.wait()
        finally:
            reader.close()


_BATCH: Final = 256


class _Reader:
    """Reads entries from a file that grows and is replaced by rotation."""

    def __init__(self, path: Path) -> None:
        self._path, self._fd, self._rest = path, -1, b""

    def _read(self) -> bytes:
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | _FLAGS)
            except FileNotFoundError:
                return b""
        return os.read(self._fd, _CHUNK)

    def _rotated(self) -> bool:
        try:
            return os.fstat(self._fd).st_ino != os.stat(self._path, follow_symlinks=False).st_ino
        except OSError:
            return False

    def entries(self) -> Iterator[bytes]:
        """Whole entries from here to the end of what is written."""
        while True:
            data = self._read()
            if not data:
                if self._fd < 0 or not self._rotated():
                    return
                # What was written between the last read and the rotation is still in the old file.
                data = os.read(self._fd, _CHUNK)
                if not data:
                    self.close()
                    continue
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from lines

    def at_end(self) -> bool:
        return self._fd < 0 or os.fstat(self._fd).st_size == os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _entries_of(path: Path) -> Iterator[bytes]:
    reader = _Reader(path)
    try:
        yield from reader.entries()
    finally:
        reader.close()


def _is_full(entry: bytes) -> bool:
    return entry.split(b" ", 3)[2:3] == [b"F"]


def _lines_in(files: Sequence[Path]) -> int:
    """How many lines they have together; the last may have no end yet."""
    count, full = 0, True
    for each in files:
        for entry in _entries_of(each):
            full = _is_full(entry)
            count += full
    return count + (not full)


class _Cut:
    """What of a log a query asks for, entry by entry."""

    def __init__(self, query: Query) -> None:
        self._query, self._skip = query, 0
        # Lines that are still shown; None for all that come.
        self._left: int | None = None

    def at_end(self, total: int) -> None:
        """Only the tail is asked for, of so many lines; what is said meanwhile is not of it."""
        tail = self._query.tail_lines or 0
        self._skip = max(0, total - tail)
        self._left = None if self._query.follow else min(tail, total)

    def shown(self, entry: bytes) -> bytes:
        """What the entry shows as, "" for nothing."""
        time, _, tag, line = (*entry.split(b" ", 3), b"", b"", b"", b"")[:4]
        full = tag == b"F"
        if self._skip:
            self._skip -= full
            return b""
        if self._left is not None:
            if self._left <= 0:
                return b""
            self._left -= full
        if self._query.since_ms is not None and time < _timestamp(self._query.since_ms):
            return b""
        end = b"\n" if full else b""
        return time + b" " + line + end if self._query.timestamps else line + end
