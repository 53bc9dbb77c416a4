"""The machine that the demo runs on: which cores it takes, and what other programs take of them."""

from __future__ import annotations

import os
from pathlib import Path

# As many cores on every machine, so that figures can be compared.
CORES_MAX = 2
_TICKS_S = os.sysconf("SC_CLK_TCK")
# user, nice, system, irq and softirq of a line of /proc/stat (proc_stat(5))
_BUSY = (1, 2, 3, 6, 7)


def cores() -> frozenset[int]:
    """Those of the server and its pods."""
    return frozenset(sorted(os.sched_getaffinity(0))[:CORES_MAX])


def step_aside(taken: frozenset[int]) -> None:
    """Move this process to the other cores, where there are any."""
    if others := os.sched_getaffinity(0) - taken:
        os.sched_setaffinity(0, others)


def busy_s(taken: frozenset[int]) -> float:
    """Seconds that these cores have worked for whatever program."""
    names = {f"cpu{core}" for core in taken}
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return sum(int(line[at]) for line in lines if line[0] in names for at in _BUSY) / _TICKS_S


def own_s(server_pid: int, taken: frozenset[int]) -> float:
    """Seconds of those that are the server's, and this process' where it could not step aside."""
    fields = Path(f"/proc/{server_pid}/stat").read_text().rpartition(")")[2].split()
    used = (int(fields[11]) + int(fields[12])) / _TICKS_S
    if os.sched_getaffinity(0) & taken:
        mine = os.times()
        used += mine.user + mine.system
    return used
