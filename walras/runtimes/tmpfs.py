"""Volumes in memory: file systems that are bounded, paid for by who writes to them, and gone with their pod.

The kernel charges a page of theirs to the control group of the process that wrote it, and so to its pod's.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final
from uuid import uuid4

# From linux/mount.h and sys/mount.h.
_MS_NOSUID, _MS_NODEV, _MS_BIND = 2, 4, 4096
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_PAGE_BYTES: Final = 4096
# A file's own room in memory is charged like its data; a small volume may hold some files all the same.
_FILES_MIN: Final = 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(directory: Path, bytes_max: int, owner: int) -> None:
    """Puts a file system of at most `bytes_max` there, unless there is one. Raises OSError.

    `owner`: the uid that it is of, -1 for the server's own. Anybody may write to it, as to the kubelet's.
    """
    if is_mounted(directory):
        return
    files = max(bytes_max // _PAGE_BYTES, _FILES_MIN)
    options = f"mode=1777,size={bytes_max},nr_inodes={files}"
    if owner >= 0:
        options += f",uid={owner},gid={owner}"
    path, flags = os.fsencode(directory), _MS_NOSUID | _MS_NODEV
    if _libc.mount(b"tmpfs", path, b"tmpfs", ctypes.c_ulong(flags), options.encode()):
        raise _error(directory)


def bind(what: int, target: Path) -> None:
    """Mounts what the descriptor is of there too, wherever its name leads by now. Raises OSError."""
    source = f"/proc/self/fd/{what}".encode()
    if _libc.mount(source, os.fsencode(target), None, ctypes.c_ulong(_MS_BIND), None):
        raise _error(target)


def unmount(place: Path) -> None:
    """Ends all that is mounted there, if anything. Raises OSError."""
    while not _libc.umount2(os.fsencode(place), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        pass
    if ctypes.get_errno() not in {errno.EINVAL, errno.ENOENT}:
        raise _error(place)


def is_mounted(directory: Path) -> bool:
    """Whether a file system begins there; False where there is nothing."""
    try:
        return directory.lstat().st_dev != directory.parent.lstat().st_dev
    except OSError:
        return False


def release(volumes: Path) -> None:
    """Unmounts and empties every volume in memory that is in the directory. Raises OSError when one stays."""
    for each in _mounted(volumes):
        top = os.open(each, _DIRECTORY)
        try:
            unmount(each)
            # A program with mounts of its own may hold on to the file system, not to the files.
            with suppress(OSError):
                _empty(top)
        finally:
            os.close(top)


def _mounted(volumes: Path) -> Iterator[Path]:
    try:
        found = list(volumes.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from filter(is_mounted, found)


def _empty(top: int) -> None:
    """Removes all that is in the directory, however deep: what lies below comes up before its place goes."""
    mark, numbers = uuid4().hex, count(1)
    while names := os.listdir(top):
        for name in names:
            with suppress(IsADirectoryError):
                os.unlink(name, dir_fd=top)
                continue
            inner = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                for each in os.listdir(inner):
                    os.rename(each, f"{mark}-{next(numbers)}", src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
