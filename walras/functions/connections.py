"""HTTP/1.1 to an instance: what is written to a connection, and what is read from it (RFC 9112)."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

Headers = list[tuple[bytes, bytes]]
Framing = Literal["none", "length", "chunked", "close"]

HEAD_BYTES_MAX: Final = 64 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_HEADERS_MAX: Final = 200
_CHUNK_LINE_MAX: Final = 1024
# RFC 9110, sections 5.6.2 and 5.5.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[\t ]*(?:;.*)?")
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: .*)?")
# Hop by hop (RFC 9110, section 7.6.1).
HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
     b"te", b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip


class BadAnswer(ValueError):
    """The instance said what is no HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer. `headers` are all of them, names in lower case."""

    status: int
    headers: Headers
    framing: Framing
    length: int
    keeps: bool


# How a connection ends that was of no use.
LOST: Final = (OSError, EOFError, BadAnswer)


class Link:
    """A connection to an instance, for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.used_s = asyncio.get_running_loop().time()
        # Whether anything of the present answer has come.
        self.heard = False

    @property
    def is_open(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Closes it without waiting for what is still to be sent."""
        self._writer.transport.abort()


class Connection(Link):
    """A connection on which HTTP/1.1 is spoken."""

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def send(self, data: bytes) -> None:
        """Returns when the instance has room for more. Raises OSError."""
        self._writer.write(data)
        await self._writer.drain()

    async def exactly(self, size: int) -> bytes:
        """So many bytes. Raises OSError, EOFError."""
        return await self._reader.readexactly(size)

    async def head(self, method: str) -> Head:
        """The final answer's head. Raises OSError, EOFError, BadAnswer."""
        self.heard = False
        self._hasten()
        while True:
            try:
                text = await self._reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                self.heard = bool(error.partial)
                raise
            except asyncio.LimitOverrunError:
                raise BadAnswer("the head of the answer is too long") from None
            self.heard = True
            found = parse_head(text.removesuffix(b"\r\n\r\n"), method)
            if found.status == 101 or found.status >= 200:
                return found

    def _hasten(self) -> None:
        """Has what comes next acknowledged at once: a program that writes head and body apart would wait."""
        made = self._writer.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            with suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    async def body(self, head: Head) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes. Raises OSError, EOFError, BadAnswer."""
        if head.framing == "length":
            left = head.length
            while left:
                data = await self._reader.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise EOFError("the answer was broken off")
                left -= len(data)
                yield data
        elif head.framing == "chunked":
            async for data in self._chunks():
                yield data
        elif head.framing == "close":
            while data := await self._reader.read(_CHUNK_BYTES):
                yield data

    async def _chunks(self) -> AsyncIterator[bytes]:
        while left := _chunk_size(await self._line()):
            while left:
                data = await self._reader.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise EOFError("the answer was broken off")
                left -= len(data)
                yield data
            if await self._line():
                raise BadAnswer("a chunk is longer than it says")
        for _ in range(_HEADERS_MAX):
            if not await self._line():
                return
        raise BadAnswer("too many trailers")

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError:
            raise BadAnswer("a line of the answer is too long") from None
        if len(line) > _CHUNK_LINE_MAX:
            raise BadAnswer("a line of the answer is too long")
        return line[:-2]


def parse_head(text: bytes, method: str) -> Head:
    """An answer's head to a request of the method, and where its body ends. Raises BadAnswer."""
    first, *lines = text.split(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None or len(text) > HEAD_BYTES_MAX or len(lines) > _HEADERS_MAX:
        raise BadAnswer("the instance does not speak HTTP/1.1")
    headers: Headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadAnswer("a header of the answer cannot be read")
        headers.append((name.lower(), value.strip(b" \t")))
    status, keeps = int(match[2]), match[1] == b"1"
    options = listed(headers, b"connection")
    keeps = (keeps or b"keep-alive" in options) and b"close" not in options
    framing, length = _framing(headers, status, method)
    return Head(status, headers, framing, length, keeps and framing != "close")


def _framing(headers: Headers, status: int, method: str) -> tuple[Framing, int]:
    """Where the body ends (RFC 9112, section 6.3). What could be read in two ways is refused."""
    encodings, lengths = listed(headers, b"transfer-encoding"), listed(headers, b"content-length")
    if method == "HEAD" or status < 200 or status in (204, 304):
        return "none", 0
    if encodings:
        if encodings != [b"chunked"] or lengths:
            raise BadAnswer("the answer does not say where it ends")
        return "chunked", 0
    if lengths:
        if len(set(lengths)) > 1 or not re.fullmatch(rb"\d{1,15}", lengths[0]):
            raise BadAnswer("the answer does not say where it ends")
        return ("length", int(lengths[0])) if int(lengths[0]) else ("none", 0)
    return "close", 0


def listed(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of a header that is a list, in lower case."""
    values = (part.strip().lower() for each, value in headers if each == name for part in value.split(b","))
    return [value for value in values if value]


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that are passed on: none that is about one connection."""
    given = list(headers)
    dropped = HOP_BY_HOP.union(listed(given, b"connection"))
    return [(name, value) for name, value in given if name not in dropped]


def is_plain(name: bytes, value: bytes) -> bool:
    """Whether a header is of the form that it may be passed on in."""
    return bool(_TOKEN.fullmatch(name) and _VALUE.fullmatch(value))


def _chunk_size(line: bytes) -> int:
    match = _SIZE.fullmatch(line)
    if match is None:
        raise BadAnswer("a chunk does not say how long it is")
    return int(match[1], 16)
