"""What a container leaves to say when it ends: its termination message, as kubelet reads it."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from walras.runtimes.base import Mount, PodRef
from walras.runtimes.logs import LogStore, Query, path_part
from walras.runtimes.volumes import Places, is_taken

Object = Mapping[str, Any]
BYTES_MAX: Final = 4096
_LOG_LINES_MAX: Final = 80
_LOG_BYTES_MAX: Final = 2048
# What else is in the /dev of a container.
_DEVICES: Final = frozenset(
    ("console", "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
     "tty", "urandom", "zero")
)  # fmt: skip


def directory(places: Places, pod: PodRef) -> Path:
    """Where the messages of the pod's containers are, made if it is not there. Raises OSError."""
    kept = _kept(places, pod)
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def make(
    places: Places, pod: PodRef, container: Object, attempt: int, mounts: Iterable[Mount], *, whole: bool
) -> Mount | None:
    """The empty file for an attempt's message; None where the container can have none. Raises OSError.

    `whole`: the container's file system is all its own.
    """
    target = posixpath.normpath("/" + str(container.get("terminationMessagePath") or "").lstrip("/"))
    if target == "/" or any(target == each.target or _below(target, each.target) for each in mounts):
        return None
    if (
        not whole
        and is_taken(target)
        and (posixpath.dirname(target) != "/dev" or posixpath.basename(target) in _DEVICES)
    ):
        return None
    kept = directory(places, pod)
    called = path_part(str(container["name"]))
    if attempt:
        (kept / f"{called}-{attempt - 1}").unlink(missing_ok=True)
    path = kept / f"{called}-{attempt}"
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        if (owner := places.owner_of(pod.cluster)) >= 0:
            os.fchown(fd, owner, owner)
        os.fchmod(fd, 0o666)
    finally:
        os.close(fd)
    return Mount(str(path), target)


def _below(path: str, ancestor: str) -> bool:
    return path.startswith(ancestor.rstrip("/") + "/")


def disk_bytes(places: Places, pod: PodRef) -> int:
    """What the messages of the pod's containers take on disk: whoever writes one may write without end."""
    found = 0
    with suppress(OSError):
        for each in os.scandir(_kept(places, pod)):
            found += each.stat(follow_symlinks=False).st_blocks * 512
    return found


def _kept(places: Places, pod: PodRef) -> Path:
    return places.pod(pod.cluster, pod.uid) / "messages"


def read(path: Path) -> str:
    """The end of the message; "" when there is none."""
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode):
                return os.pread(fd, BYTES_MAX, max(0, found.st_size - BYTES_MAX)).decode(errors="replace")
        finally:
            os.close(fd)
    return ""


async def from_log(logs: LogStore, path: Path) -> str:
    """The end of a log that is closed, for a container that failed without a word."""
    said = bytearray()
    async for piece in logs.read(path, Query(tail_lines=_LOG_LINES_MAX)):
        said = (said + piece)[-_LOG_BYTES_MAX:]
    return said.decode(errors="replace")
