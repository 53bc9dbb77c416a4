"""HTTP/2 without TLS to an instance, one request at a time on a connection (RFC 9113)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from walras.functions.connections import HEAD_BYTES_MAX, BadAnswer, Headers, Link, is_plain
from walras.functions.guard import Guard, TooLong
from walras.functions.protocol import H2
from walras.functions.shares import Share

_READ_BYTES: Final = 64 * 1024
_HEADERS_MAX: Final = 200
# Frames of one read that say nothing of the answer: pings, settings and the like.
_EMPTY_READS_MAX: Final = 10_000
# A connection is made anew after so many requests.
_REQUESTS_MAX: Final = 1000


class Refused(BadAnswer):
    """The instance says that it has done nothing about the request."""


class H2C(Link):
    """A connection on which HTTP/2 is spoken. One task may send a request while another reads the answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._h2 = H2(is_client=True)
        self._guard = Guard(HEAD_BYTES_MAX)
        self._events = deque[Event]()
        self._unread = b""
        self._share: Share | None = None
        self._room = asyncio.Event()
        self._stream = 0
        self._requests = 0
        self._empty_reads = 0
        self._is_sent = self._is_over = True
        self._is_going = False
        # Whether a body or trailers come after the head, and what came after the body.
        self.has_body = True
        self.trailers: Headers = []

    @property
    def is_open(self) -> bool:
        is_usable = not self._is_going and self._requests < _REQUESTS_MAX
        return super().is_open and is_usable and self._is_sent and self._is_over

    async def begin(self, headers: Headers, share: Share, *, ends: bool) -> None:
        """Sends the head of a request, whose share reading takes. Raises OSError, BadAnswer."""
        self._share = share
        self._is_sent, self._is_over, self.heard, self.trailers = ends, False, False, []
        self._empty_reads = 0
        try:
            if not self._requests:
                self._h2.initiate_connection()
            self._requests += 1
            self._stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(self._stream, headers, end_stream=ends)
        except ProtocolError as error:
            # It was kept, and has ended meanwhile.
            raise Refused(_said(error)) from None
        await self._flush()

    async def send(self, data: bytes, *, ends: bool) -> None:
        """Sends a piece of the body as the instance has room for it. Raises OSError, BadAnswer."""
        view = memoryview(data)
        try:
            while view:
                size = self._h2.local_flow_control_window(self._stream)
                if size <= 0:
                    self._room.clear()
                    await self._room.wait()
                    continue
                size = min(size, self._h2.max_outbound_frame_size, len(view))
                self._h2.send_data(self._stream, bytes(view[:size]))
                view = view[size:]
                await self._flush()
            if ends:
                self._h2.end_stream(self._stream)
                self._is_sent = True
                await self._flush()
        except ProtocolError as error:
            raise BadAnswer(_said(error)) from None

    async def head(self) -> tuple[int, Headers]:
        """The status and the headers of the final answer. Raises OSError, EOFError, BadAnswer."""
        while True:
            event = await self._next()
            if isinstance(event, ResponseReceived):
                self.heard = True
                # Where nothing comes after it, gRPC has it so that the head is the end.
                self.has_body = event.stream_ended is None
                return _head(event.headers or [])

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The answer's body as it comes, `trailers` after it. Raises OSError, EOFError, BadAnswer."""
        while not self._is_over:
            event = await self._next()
            if isinstance(event, DataReceived):
                # The instance may send more once this is taken.
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, self._stream)
                if event.data:
                    yield event.data
                await self._flush()
            elif isinstance(event, TrailersReceived):
                self.trailers = _checked(event.headers or [])

    async def _next(self) -> Event:
        """The next event of the request."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, ConnectionTerminated):
                    self._is_going = True
                    if event.error_code or (event.last_stream_id or 0) < self._stream:
                        raise Refused("it closed the connection")
                elif getattr(event, "stream_id", None) == self._stream:
                    if isinstance(event, StreamReset):
                        self._is_over = True
                        raise (Refused if event.error_code == 7 else BadAnswer)("it reset the stream")
                    if isinstance(event, StreamEnded):
                        self._is_over = True
                    return event
            await self._read()

    async def _read(self) -> None:
        if not self._unread:
            self._unread = await self._reader.read(_READ_BYTES)
            if not self._unread:
                raise EOFError("it closed the connection")
        elif self._share is not None:
            await self._share.again()
            await asyncio.sleep(0)
        try:
            size = self._guard.look(self._unread)
            data, self._unread = self._unread[:size], self._unread[size:]
            events = self._h2.receive_data(data)
        except (ProtocolError, TooLong) as error:
            raise BadAnswer(_said(error)) from None
        self._empty_reads += 1
        for event in events:
            if isinstance(event, (DataReceived, ResponseReceived)) and event.stream_id == self._stream:
                self._empty_reads = 0
            self._events.append(event)
        if self._empty_reads > _EMPTY_READS_MAX:
            raise BadAnswer("it says nothing")
        self._room.set()
        await self._flush()

    async def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._writer.write(data)
            await self._writer.drain()


def _head(headers: list[tuple[bytes, bytes]]) -> tuple[int, Headers]:
    code = next((value for name, value in headers if name == b":status"), b"")
    if not (len(code) == 3 and code.isdigit() and code[:1] in b"2345"):
        raise BadAnswer("the answer has no status")
    return int(code), _checked([each for each in headers if each[0] != b":status"])


def _checked(headers: list[tuple[bytes, bytes]]) -> Headers:
    if len(headers) > _HEADERS_MAX or not all(is_plain(*each) for each in headers):
        raise BadAnswer("a header of the answer cannot be read")
    return [(bytes(name), bytes(value)) for name, value in headers]


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
