"""How many Events one pod may cause: its own programs have a hand in what they say, and how often. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

BURST: Final = 25
REFILL_MS: Final = 300_000


@dataclass
class Tempering:
    """client-go's spam filter: 25 Events at once, then one in five minutes."""

    left: float = BURST
    last_ms: int = 0

    def lets(self, now_ms: int) -> bool:
        """Whether one more may be written; it counts if so."""
        passed_ms, self.last_ms = max(0, now_ms - self.last_ms), now_ms
        self.left = min(BURST, self.left + passed_ms / REFILL_MS)
        if self.left < 1:
            return False
        self.left -= 1
        return True
