"""Frames of HTTP/2 as they come in, before anybody keeps them: none is longer than agreed (RFC 9113).

The library takes in a whole frame, 16 MiB of it, before it looks at its length, and heads in any parts; and
it reads all frames that it is given in one go, of which there may be thousands in what a socket holds.
"""

from __future__ import annotations

from typing import Final

FRAME_BYTES_MAX: Final = 16_384
# Frames that are read in one step.
FRAMES_MAX: Final = 32
_HEADER_BYTES: Final = 9
_HEADERS, _CONTINUATION = 1, 9


class TooLong(ValueError):
    """A frame or a head is longer than was agreed on."""


class Guard:
    """Of one direction of a connection."""

    def __init__(self, head_bytes_max: int, preface: int = 0) -> None:
        """`preface`: so many bytes come before the first frame."""
        self._head_bytes_max, self._skips = head_bytes_max, preface
        self._header = bytearray()
        self._head_bytes = 0

    def look(self, data: bytes) -> int:
        """How many of the next bytes may be read in this step. Raises TooLong."""
        at = frames = 0
        while at < len(data) and frames <= FRAMES_MAX:
            if self._skips:
                step = min(self._skips, len(data) - at)
                self._skips -= step
                at += step
                continue
            step = _HEADER_BYTES - len(self._header)
            self._header += data[at : at + step]
            at += step
            if len(self._header) == _HEADER_BYTES:
                self._begin(int.from_bytes(self._header[:3]), self._header[3])
                self._header.clear()
                frames += 1
        return at

    def _begin(self, length: int, kind: int) -> None:
        if length > FRAME_BYTES_MAX:
            raise TooLong(f"a frame has {length} bytes")
        if kind in (_HEADERS, _CONTINUATION):
            self._head_bytes = length + (self._head_bytes if kind == _CONTINUATION else 0)
            if self._head_bytes > self._head_bytes_max:
                raise TooLong("a head is too large")
        self._skips = length
