"""The live ends of the seam for time and ids."""

from __future__ import annotations

import secrets
import time

_UID_BYTES = 16
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class SystemClock:
    """Wall time that never runs backwards: the start's wall clock plus the monotonic time since."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ms(self) -> int:
        return (self._offset_ns + time.monotonic_ns()) // 1_000_000


class SystemIds:
    """Random ids. Bytes for uids are fetched many at a time: to ask the system costs more than the rest."""

    def __init__(self) -> None:
        self._random = b""

    def uid(self) -> str:
        """A random UUID (RFC 9562, version 4)."""
        if not self._random:
            self._random = secrets.token_bytes(_UID_BYTES * 256)
        digits, self._random = self._random[:_UID_BYTES].hex(), self._random[_UID_BYTES:]
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

    def suffix(self) -> str:
        return "".join(secrets.choice(_ALPHABET) for _ in range(5))

    def token(self) -> str:
        return secrets.token_urlsafe(32)
