"""The live ends of the seam for time and ids."""

from __future__ import annotations

import secrets
import time
import uuid

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class SystemClock:
    """Wall time that never runs backwards: the start's wall clock plus the monotonic time since."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        return (self._offset_ns + time.monotonic_ns()) // 1_000_000


class SystemIds:
    def uid(self) -> str:
        return str(uuid.uuid4())

    def suffix(self) -> str:
        return "".join(secrets.choice(_ALPHABET) for _ in range(5))

    def token(self) -> str:
        return secrets.token_urlsafe(32)
