"""How much disk a directory takes that a pod writes to, found out without being led astray by it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
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
