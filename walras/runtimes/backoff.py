"""When a container that ended is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 10
MOST_S: Final = 300
RESET_AFTER_MS: Final = 600_000


@dataclass
class Backoff:
    """kubelet's CrashLoopBackOff: at once, then 10 s doubling to 5 min; forgotten after 10 quiet minutes."""

    next_s: int = 0

    def delay_s(self, ran_ms: int) -> int:
        """Seconds to wait before the next start, after an attempt that ran for `ran_ms`."""
        if ran_ms >= RESET_AFTER_MS:
            self.next_s = 0
        delay = self.next_s
        self.next_s = min(max(FIRST_S, delay * 2), MOST_S)
        return delay


def restarts(restart_policy: str, code: int, *, init: bool) -> bool:
    """Whether a container that ended with `code` is to run again."""
    if init or restart_policy == "OnFailure":
        return restart_policy != "Never" and code != 0
    return restart_policy == "Always"
