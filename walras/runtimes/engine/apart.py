"""An engine process for one piece of work, so that it is known what the work takes."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.engine.client import Engine

_WRITTEN: Final = "write_bytes: "


@dataclass(eq=False)
class Apart:
    """It lives for as long as the work does. `directory`: where it puts what it fetches; `pid` 0: unknown."""

    engine: Engine
    pid: int
    directory: Path
    _most: int = 0

    def kill(self) -> None:
        """Ends it and what it started at once, so that it cannot be in the middle of clearing up."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def written(self) -> int:
        """Bytes that it, and what it started, have written to disks so far; 0 where it is unknown."""
        if self.pid:
            now = sum(_written(each) for each in (self.pid, *procfs.descendants(self.pid)))
            self._most = max(self._most, now)
        return self._most


def _written(pid: int) -> int:
    """With those of its children that have ended; 0 for a process that is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith(_WRITTEN):
                return int(line.removeprefix(_WRITTEN))
    return 0
