"""How much disk a directory takes that a pod writes to, found out without being led astray by it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

# Beyond these the rest is not looked at, and the directory counts as too large.
ENTRIES_MAX: Final = 500_000
DEPTH_MAX: Final = 100
_BLOCK_BYTES: Final = 512
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def disk_bytes(path: Path) -> int | None:
    """Bytes that all below the directory take on disk; None for more entries or depth than anybody needs.

    A file with several names counts by parts. Blocks for as long as it takes. What goes away meanwhile counts
    for nothing, and so does a directory that is not there.
    """
    try:
        top = os.open(path, _FLAGS)
    except OSError:
        return 0
    total, entries = 0, 0
    stack = [(top, _names(top))]
    try:
        while stack:
            directory, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(directory)
                stack.pop()
                continue
            entries += 1
            if entries > ENTRIES_MAX:
                return None
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                continue
            names_of_it = 1 if stat.S_ISDIR(found.st_mode) else max(1, found.st_nlink)
            total += found.st_blocks * _BLOCK_BYTES // names_of_it
            if stat.S_ISDIR(found.st_mode):
                if len(stack) >= DEPTH_MAX:
                    return None
                try:
                    inner = os.open(name, _FLAGS, dir_fd=directory)
                except OSError:
                    continue
                stack.append((inner, _names(inner)))
        return total
    finally:
        for directory, _ in stack:
            os.close(directory)


def _names(directory: int) -> Iterator[str]:
    """One by one: there may be more than memory has room for."""
    with suppress(OSError), os.scandir(directory) as found:
        for each in found:
            yield each.name


# What is looked at of the files that a pod has open; beyond that it counts as too much.
FILES_MAX: Final = 100_000
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs", "devtmpfs", "hugetlbfs"))


def nameless_bytes(pids: Iterable[int]) -> int | None:
    """Bytes on disks of files that the processes have open and that have no name any more.

    None for more files than anybody needs.
    """
    found: dict[tuple[int, int], int] = {}
    seen = 0
    for pid in pids:
        own: dict[tuple[int, int], int] = {}
        for name in _listed(f"/proc/{pid}/fd"):
            seen += 1
            if seen > FILES_MAX:
                return None
            with suppress(OSError):
                file = os.stat(f"/proc/{pid}/fd/{name}")
                if stat.S_ISREG(file.st_mode) and not file.st_nlink and file.st_blocks:
                    own[file.st_dev, file.st_ino] = file.st_blocks * _BLOCK_BYTES
        if own:
            disks = _disks(pid)
            found |= {key: size for key, size in own.items() if key[0] in disks}
    return sum(found.values())


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _disks(pid: int) -> set[int]:
    """Devices of the file systems that the process sees, but for those that are memory."""
    found = set()
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="replace").splitlines():
            mount, _, rest = line.partition(" - ")
            major, _, minor = mount.split()[2].partition(":")
            if rest.split()[0] not in _IN_MEMORY:
                found.add(os.makedev(int(major), int(minor)))
    return found


def added(*sizes: int | None) -> int | None:
    """Their sum; None when one of them is more than could be counted."""
    total = 0
    for each in sizes:
        if each is None:
            return None
        total += each
    return total
