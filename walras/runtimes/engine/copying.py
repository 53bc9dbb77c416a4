"""A file out of an image: by a container that is made of it, never started, and removed again."""

from __future__ import annotations

import asyncio
import os
import queue
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Any, Final

from walras.runtimes.base import ImageError
from walras.runtimes.engine.client import Engine, EngineError

_CHUNK: Final = 1 << 20
_QUEUED: Final = 4
_LOOK_S: Final = 0.2
_ZEROS: Final = bytes(_CHUNK)


async def copy_out(
    engine: Engine, image_id: str, directory: str, into: Path, bytes_max: int, labels: Mapping[str, str]
) -> None:
    """The one regular file in the directory, as `into`. Raises EngineError, ImageError, OSError."""
    body = {"Image": image_id, "Cmd": ["/none"], "Labels": dict(labels)}
    made = await engine.call("POST", "/containers/create", body=body)
    where = f"/containers/{made['Id']}"
    try:
        await _copy(engine, f"{where}/archive", directory, into, bytes_max)
    finally:
        with suppress(EngineError):
            await asyncio.shield(engine.call("DELETE", where, params={"force": "true", "v": "true"}))


async def _copy(engine: Engine, path: str, directory: str, into: Path, bytes_max: int) -> None:
    """Reads the archive as it comes: what is in an image may be larger than memory."""
    stream = _Stream()
    reading = asyncio.ensure_future(asyncio.to_thread(_first_file, stream, directory, into, bytes_max))
    try:
        async for piece in engine.pieces(path, {"path": directory}):
            if reading.done():
                break
            await asyncio.to_thread(stream.feed, piece)
        await asyncio.to_thread(stream.feed, b"")
        await reading
    finally:
        stream.over = True
        await asyncio.gather(reading, return_exceptions=True)


class _Stream(RawIOBase):
    """What one thread feeds and another reads. `over`: nobody reads any more."""

    def __init__(self) -> None:
        self.pieces: queue.Queue[bytes] = queue.Queue(_QUEUED)
        self.over = False
        self._left = memoryview(b"")
        self._ended = False

    def feed(self, piece: bytes) -> None:
        """An empty piece is the end. Returns once there is room for more."""
        while not self.over:
            with suppress(queue.Full):
                self.pieces.put(piece, timeout=_LOOK_S)
                return

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._left and not self._ended:
            piece = self._next()
            self._ended = not piece
            self._left = memoryview(piece)
        found, self._left = self._left[:size], self._left[size:]
        return bytes(found)

    def _next(self) -> bytes:
        while not self.over:
            with suppress(queue.Empty):
                return self.pieces.get(timeout=_LOOK_S)
        return b""


def _first_file(stream: _Stream, directory: str, into: Path, bytes_max: int) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
            for member in archive:
                if member.isreg():
                    if member.size > bytes_max:
                        raise ImageError(f"{member.name} of the image has more than {bytes_max} bytes")
                    content = archive.extractfile(member)
                    assert content is not None, "it is a regular file"
                    with content, into.open("xb") as made:
                        _pour(content.read, made.fileno(), member.size)
                    return
    except tarfile.TarError as error:
        raise ImageError(f"the image is not to be read: {error}") from error
    finally:
        stream.over = True
    raise ImageError(f"the image has no file in {directory}")


def _pour(read: Any, into: int, size: int) -> None:
    """Leaves out what is zeros, as disks mostly are."""
    left = size
    while left:
        chunk = read(min(_CHUNK, left))
        if not chunk:
            raise OSError("the archive ends early")
        left -= len(chunk)
        if chunk != _ZEROS[: len(chunk)]:
            os.pwrite(into, chunk, size - left - len(chunk))
    os.ftruncate(into, size)
