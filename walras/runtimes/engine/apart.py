"""An engine process for one piece of work, so that it is known what the work takes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.engine.client import Engine

_WRITTEN: Final = "write_bytes: "


@dataclass(frozen=True, eq=False)
class Apart:
    """It lives for as long as the work does. `directory`: where it puts what it fetches; `pid` 0: unknown."""

    engine: Engine
    pid: int
    directory: Path

    def written(self) -> int:
        """Bytes that it, and what it started, have written to disks so far; 0 where it is unknown."""
        if not self.pid:
            return 0
        return sum(_written(each) for each in (self.pid, *procfs.descendants(self.pid)))


def _written(pid: int) -> int:
    """With those of its children that have ended; 0 for a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith(_WRITTEN):
                return int(line.removeprefix(_WRITTEN))
    return 0
