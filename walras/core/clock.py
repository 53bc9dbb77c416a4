"""The one seam for time and ids: engines are told, they never look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from typing import Protocol


class Clock(Protocol):
    """Wall time that never runs backwards within a process."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""


class Ids(Protocol):
    """Fresh names."""

    def uid(self) -> str:
        """A UUID in text form."""

    def suffix(self) -> str:
        """Five characters of Kubernetes' `generateName` alphabet."""

    def token(self) -> str:
        """A secret of at least 256 bits, URL-safe."""


@dataclass
class VirtualClock:
    """A clock that moves when it is told to."""

    at_ms: int = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def advance(self, by_ms: int) -> None:
        assert by_ms >= 0
        self.at_ms += by_ms


@dataclass
class SequenceIds:
    """Ids that count, so that a run can be repeated."""

    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def uid(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._numbers):012d}"

    def suffix(self) -> str:
        alphabet, number, text = "bcdfghjklmnpqrstvwxz2456789", next(self._numbers), ""
        for _ in range(5):
            number, digit = divmod(number, len(alphabet))
            text = alphabet[digit] + text
        return text

    def token(self) -> str:
        return f"token-{next(self._numbers):040d}"


def rfc3339(ms: int) -> str:
    """A `metav1.Time`: seconds, UTC, as in creationTimestamp."""
    return f"{_second(ms // 1000)}Z"


# The present second is asked for again and again.
@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def rfc3339_micro(ms: int) -> str:
    """A `metav1.MicroTime`: microseconds, UTC, as in Lease and Event times."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}000Z"


def parse_rfc3339(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time. Raises ValueError."""
    at = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if at.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return round(at.timestamp() * 1000)
