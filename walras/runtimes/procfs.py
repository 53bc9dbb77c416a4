"""What /proc says about processes: children, CPU time, listening sockets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# Not every kernel does.
_LISTS_CHILDREN: Final = os.path.exists("/proc/thread-self/children")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third (state) on; empty when it is gone."""
    return _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()


def children(pid: int) -> list[int]:
    """Child processes, oldest first."""
    if _LISTS_CHILDREN:
        return [int(each) for each in _read(_PROC / str(pid) / "task" / str(pid) / "children").split()]
    return sorted(each for each in processes() if (stat := _stat(each)) and int(stat[1]) == pid)


def processes() -> list[int]:
    """Every process that can be seen."""
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, parents first."""
    found = children(pid)
    for each in found:
        found.extend(children(each))
    return found


def cpu_ns(pid: int) -> int:
    """CPU time of the process and of the children it has waited for, in steps of a tick; 0 when gone."""
    stat = _stat(pid)
    return sum(int(field) for field in stat[11:15]) * _TICK_NS if stat else 0


def marked(variable: str, value: str) -> list[int]:
    """Processes that were started with `variable=value` in their environment."""
    wanted = f"{variable}={value}".encode()
    found = []
    for pid in processes():
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            found.append(pid)
    return found


def listens(pids: Iterable[int], port: int) -> bool:
    """Whether one of the processes has a TCP socket that listens on `port`."""
    wanted = set()
    for table in ("tcp", "tcp6"):
        for line in _read(_PROC / "net" / table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                wanted.add(f"socket:[{fields[9]}]")
    return bool(wanted) and any(_sockets(pid) & wanted for pid in pids)


def _sockets(pid: int) -> set[str]:
    found = set()
    directory = _PROC / str(pid) / "fd"
    try:
        for name in os.listdir(directory):
            found.add(os.readlink(directory / name))
    except OSError:
        pass
    return found
