"""A CPU share without rights to any cgroup: processes are stopped while they are ahead of their share."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PERIOD_S: Final = 0.05
# Unused time is kept for this long, used time is paid back in full.
_CREDIT_S: Final = 0.1


class Allowance:
    """A token bucket of CPU time."""

    def __init__(self, cpu_milli: int) -> None:
        self._milli = cpu_milli
        self._left_ns = 0.0

    def spend(self, used_ns: int, elapsed_s: float) -> bool:
        """Whether the processes may go on, after they used `used_ns` in `elapsed_s` seconds."""
        most = self._milli * 1e6 * _CREDIT_S
        self._left_ns = min(self._left_ns + self._milli * 1e6 * elapsed_s - used_ns, most)
        return self._left_ns > 0


class Throttle:
    """Keeps the processes that `pids` finds at a share of CPU; needs no more than to own them.

    `cpu_ns` is what they, and those before them, have used together.
    """

    def __init__(self, pids: Callable[[], list[int]], cpu_ns: Callable[[], int]) -> None:
        self._pids = pids
        self._cpu_ns = cpu_ns
        self._timer: asyncio.TimerHandle | None = None
        self._used_ns = 0
        self._allowance = Allowance(0)
        self._stopped = False
        self._last_s = 0.0

    def start(self, cpu_milli: int) -> None:
        """Must be called in the loop; `cpu_milli` thousandths of one CPU."""
        self._allowance = Allowance(cpu_milli)
        self._last_s = asyncio.get_running_loop().time()
        self._used_ns = self._cpu_ns()
        self._again()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._tick)

    def _tick(self) -> None:
        now_s, pids = asyncio.get_running_loop().time(), self._pids()
        used_ns = self._cpu_ns()
        go_on = self._allowance.spend(max(0, used_ns - self._used_ns), now_s - self._last_s)
        self._used_ns = used_ns
        self._last_s = now_s
        if not go_on:
            _signal(pids, signal.SIGSTOP)
        elif self._stopped:
            _signal(pids, signal.SIGCONT)
        self._stopped = not go_on
        self._again()

    def close(self) -> None:
        """Lets everything run."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stopped:
            _signal(self._pids(), signal.SIGCONT)


def _signal(pids: list[int], signum: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)
