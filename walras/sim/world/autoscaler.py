"""How many replicas requests need: for what came lately and for what waits, as autoscalers decide it."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_MS: Final = 10_000
# As busy a replica should be with what comes; what waits is to be worked off in that time.
LOAD_PERCENT: Final = 90
CATCH_UP_MS: Final = 10_000
# A replica is given back once it was not needed for so long, as Knative's scale-down delay has it and the
# stabilization window of Kubernetes' HorizontalPodAutoscaler; a bid is taken back sooner.
KEEP_MS: Final = 30_000
WITHDRAW_MS: Final = 5_000


class Autoscaler:
    """Replicas of `milli` each, `most` at once. It is told of the load at every look."""

    def __init__(self, milli: int, most: int) -> None:
        self._milli, self._most = milli, most
        self._needs: deque[tuple[int, int]] = deque()

    def look(self, now_ms: int, load_milli: int, waiting_ms: int) -> int:
        """The replicas needed now: `load_milli` is what came within WINDOW_MS, `waiting_ms` GPU time of what
        waits."""
        milli = 100 * load_milli // LOAD_PERCENT + 1000 * waiting_ms // CATCH_UP_MS
        need = min(self._most, -(-milli // self._milli))
        self._needs.append((now_ms, need))
        while self._needs[0][0] <= now_ms - KEEP_MS:
            self._needs.popleft()
        return need

    def needed_within(self, within_ms: int) -> int:
        """The most that was needed at a look of that time up to the last one, KEEP_MS at most."""
        since_ms = self._needs[-1][0] - within_ms
        return max(need for at_ms, need in self._needs if at_ms > since_ms)
