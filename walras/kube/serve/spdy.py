"""The frames of SPDY/3.1 as kubectl's port-forward sends them through a WebSocket. Pure: bytes in, bytes out.

Only what its client speaks (github.com/moby/spdystream): streams that the client opens, without flow control.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from walras.core.errors import BadRequest

VERSION: Final = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN: Final = 1
PROTOCOL_ERROR, REFUSED_STREAM = 1, 3
# The client writes pieces of 32 KiB.
FRAME_BYTES_MAX: Final = 1 << 20
HEADERS_BYTES_MAX: Final = 64 << 10
HEADERS_MAX: Final = 64
_HEAD: Final = struct.Struct(">II")
_WORD: Final = struct.Struct(">I")

# Words before which their length stands, then text without any (SPDY/3, section 2.6.10.1).
_WORDS: Final = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|"
    "age|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|"
    "content-length|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|"
    "host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|"
    "max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|"
    "transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|"
    "HTTP/1.1|url|public|set-cookie|keep-alive|origin"
)
_TEXT: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = (
    b"".join(_WORD.pack(len(word)) + word.encode() for word in _WORDS.split("|")) + _TEXT.encode()
)


class Opened(NamedTuple):
    """The client opened a stream; `ended`: it will send nothing on it."""

    stream: int
    headers: Mapping[str, str]
    ended: bool


class Data(NamedTuple):
    stream: int
    data: bytes
    ended: bool


class Reset(NamedTuple):
    stream: int


class Pinged(NamedTuple):
    number: int


Event = Opened | Data | Reset | Pinged


class Reader:
    """Cuts what comes into frames, wherever it was cut on its way."""

    def __init__(self) -> None:
        self._left = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Event]:
        """What the bytes complete. Raises BadRequest for what is no SPDY, or too much of it."""
        self._left += data
        while len(self._left) >= _HEAD.size:
            first, second = _HEAD.unpack_from(self._left)
            size = second & 0xFFFFFF
            if size > FRAME_BYTES_MAX:
                raise BadRequest(f"a SPDY frame has at most {FRAME_BYTES_MAX} bytes")
            if len(self._left) < _HEAD.size + size:
                return
            payload = bytes(self._left[_HEAD.size : _HEAD.size + size])
            del self._left[: _HEAD.size + size]
            event = self._frame(first, second >> 24, payload)
            if event is not None:
                yield event

    def _frame(self, first: int, flags: int, payload: bytes) -> Event | None:
        if not first & 0x80000000:
            return Data(first, payload, bool(flags & FIN))
        if (first >> 16) & 0x7FFF != VERSION:
            raise BadRequest("only version 3 of SPDY is spoken here")
        try:
            match first & 0xFFFF:
                case 1:
                    stream = _WORD.unpack_from(payload)[0] & 0x7FFFFFFF
                    return Opened(stream, self._headers(payload[10:]), bool(flags & FIN))
                case 3:
                    return Reset(_WORD.unpack_from(payload)[0] & 0x7FFFFFFF)
                case 6:
                    return Pinged(_WORD.unpack_from(payload)[0])
        except struct.error:
            raise BadRequest("a SPDY frame ends too early") from None
        # Settings, window updates and the like change nothing here.
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflate.decompress(block, HEADERS_BYTES_MAX)
        except zlib.error as error:
            raise BadRequest(f"the headers of a SPDY stream cannot be read: {error}") from None
        if self._inflate.unconsumed_tail:
            raise BadRequest(f"the headers of a SPDY stream have at most {HEADERS_BYTES_MAX} bytes")
        (count,) = _WORD.unpack_from(text)
        if count > HEADERS_MAX:
            raise BadRequest(f"a SPDY stream has at most {HEADERS_MAX} headers")
        words, position = [], _WORD.size
        for _ in range(2 * count):
            (size,) = _WORD.unpack_from(text, position)
            position += _WORD.size
            words.append(text[position : position + size].decode("latin-1"))
            position += size
        return {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=True)}


class Writer:
    """Frames for the client; one for the whole connection, as headers are compressed together."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """The stream is accepted, without headers."""
        block = self._deflate.compress(_WORD.pack(0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, 0, _WORD.pack(stream) + block)

    def data(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        return _HEAD.pack(stream, (FIN if end else 0) << 24 | len(data)) + data

    def reset(self, stream: int, why: int) -> bytes:
        return _control(RST_STREAM, 0, _HEAD.pack(stream, why))

    def ping(self, number: int) -> bytes:
        return _control(PING, 0, _WORD.pack(number))

    def goaway(self, last_stream: int) -> bytes:
        return _control(GOAWAY, 0, _HEAD.pack(last_stream, 0))


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return _HEAD.pack(0x80000000 | VERSION << 16 | kind, flags << 24 | len(payload)) + payload
