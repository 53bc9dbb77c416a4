"""Frames between the server and the first process of a guest, alike in both directions. Pure.

A frame is a header of payload length, kind and stream, then the payload. The server chooses the numbers of
streams; a program, a connection to a port and a container's main program are streams alike. What goes
through a stream's channels is held back by windows: nobody sends more than the other has taken.
"""

from __future__ import annotations

from struct import Struct

CHUNK = 32_768
WINDOW = 262_144
PAYLOAD_MAX = 1 << 20
PORT = "walras"

# From the server. START and DIAL carry marshalled words, the guest is the one that trusts.
START = 1
DIAL = 2
SIGNAL = 3
KILL = 4
RESIZE = 5
CLOSE = 6
# From the guest. EXIT says "<BB": exit code, whether memory ran out. FAILED says why.
HELLO = 16
STARTED = 17
FAILED = 18
EXIT = 19
# In both directions: the first byte of DATA and END is the channel; TAKEN says "<BI": channel, bytes.
DATA = 32
END = 33
TAKEN = 34

STDIN, STDOUT, STDERR = 0, 1, 2

HEADER = Struct("<IBI")
TAKEN_PAYLOAD = Struct("<BI")
EXIT_PAYLOAD = Struct("<BB")
SIZE_PAYLOAD = Struct("<HH")


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, stream) + payload


class Frames:
    """Bytes in any pieces made into (kind, stream, payload)."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are whole now. Raises ValueError for one that nobody may send."""
        held = self._held
        held += data
        found = []
        at = 0
        while len(held) - at >= HEADER.size:
            size, kind, stream = HEADER.unpack_from(held, at)
            if size > PAYLOAD_MAX:
                raise ValueError(f"a frame of {size} bytes")
            end = at + HEADER.size + size
            if len(held) < end:
                break
            found.append((kind, stream, bytes(held[at + HEADER.size : end])))
            at = end
        del held[:at]
        return found
