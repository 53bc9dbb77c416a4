"""A connection of a client in HTTP/2 without TLS: its streams as requests of ASGI, with trailers (RFC 9113).

What clients may have is bounded: streams at once, bytes that wait in each and in all of a connection, the
size of heads, how often they take requests back. The time that reading takes is paid for by whose function
was asked last, and by strangers before the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from walras.functions.activator import PAYS
from walras.functions.client import TRAILERS
from walras.functions.connections import HEAD_BYTES_MAX
from walras.functions.guard import Guard, TooLong
from walras.functions.protocol import H2
from walras.functions.shares import STEP_NS, Share
from walras.functions.streams import Stream
from walras.kube.serve.fair import Fair
from walras.kube.serve.relay import Application

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAMS_MAX: Final = 250
# Bytes that wait for their functions, of all streams of a connection. RFC 9113 gives each one 64 KiB.
WINDOW_BYTES: Final = 512 * 1024
# Requests that a client may take back, or have us reset, beyond those that it lets end (CVE-2023-44487 and
# CVE-2025-8671).
RESETS_MAX: Final = 200
_HEADERS_MAX: Final = 200
# As whom a connection pays before it asked for anybody's function.
_STRANGERS: Final = " "
_WRONG_VERSION: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: 52\r\n\r\nHTTP/2 is spoken here; HTTP/1.1 is at another port.\n"
)


class Sessions(Protocol):
    """Who listens."""

    app: Application
    fair: Fair

    def opened(self, session: Session) -> None: ...
    def closed(self, session: Session) -> None: ...


class Session(asyncio.Protocol):
    """`used_s`: since when it has had no stream; None while it has some. `closed_s`: since when nothing but
    what is to be sent keeps it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._h2 = H2(is_client=False, settings={SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS_MAX})
        self._guard = Guard(HEAD_BYTES_MAX, len(PREFACE))
        self.streams: dict[int, Stream] = {}
        self.used_s: float | None = asyncio.get_running_loop().time()
        self.closed_s: float | None = None
        self._share = Share(sessions.fair, _STRANGERS)
        self._had_ns = self._resets = 0
        # What has come and is not read yet, and what came before the client had said what it speaks.
        self._unread = self._first = b""
        self._is_greeted = self._is_going = False
        self._pacing: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._client: tuple[str, int] = ("", 0)
        # Whether the client takes what is sent.
        self._writable = asyncio.Event()
        self._writable.set()

    # The connection

    @property
    def address(self) -> str:
        """The client's."""
        return self._client[0]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of uvloop says so of itself only by what it does.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername") or ("", 0)
        self._client = (str(peer[0]), int(peer[1]))
        self._sessions.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._is_going = True
        self._writable.set()
        if self._pacing is not None:
            self._pacing.cancel()
        for stream in list(self.streams.values()):
            stream.lose()
        self._sessions.closed(self)

    def pause_writing(self) -> None:
        """A client that takes nothing is not listened to either: answers to its pings would pile up."""
        self._writable.clear()
        self._listen()

    def resume_writing(self) -> None:
        self._writable.set()
        self._listen()

    def _listen(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        if self._writable.is_set() and self._pacing is None:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def goes(self) -> None:
        """Lets streams end, and takes no more."""
        if not self._is_going and self._transport is not None:
            self._is_going = True
            if self._is_greeted:
                # The library would take it for the end of what goes on, too.
                last = GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id)
                self._transport.write(last.serialize())
            self._rest()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # What comes

    def data_received(self, data: bytes) -> None:
        if not self._is_greeted:
            self._first += data
            if not self._greet():
                return
            data, self._first = self._first, b""
        self._unread += data
        if self._pacing is None:
            self._step()

    def _step(self) -> None:
        """Reads some frames; the rest waits for another turn."""
        timer = self._sessions.fair.timer
        began_ns = timer()
        try:
            self._receive()
        finally:
            self._pay(timer() - began_ns)

    def _greet(self) -> bool:
        """Whether the client has shown that it speaks HTTP/2."""
        if PREFACE.startswith(self._first[: len(PREFACE)]):
            if len(self._first) < len(PREFACE):
                return False
            self._is_greeted = True
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(WINDOW_BYTES - 65_535)
            return True
        assert self._transport is not None
        self._transport.write(_WRONG_VERSION)
        self._close()
        return False

    def _receive(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            size = self._guard.look(self._unread)
            data, self._unread = self._unread[:size], self._unread[size:]
            for event in self._h2.receive_data(data):
                self._handle(event)
        except (ProtocolError, TooLong):
            # The library has written why into what is to be sent.
            self._close()
            return
        if self._resets > RESETS_MAX or len(self.streams) > 2 * STREAMS_MAX:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._close()
            return
        self.flush()

    def _close(self) -> None:
        """Sends what there is, to a client that takes it soon, and no more."""
        assert self._transport is not None
        self.flush()
        self._transport.close()
        self.closed_s = asyncio.get_running_loop().time()
        self._unread = b""
        for stream in list(self.streams.values()):
            stream.lose()

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event.stream_id or 0, event.headers or [])
        elif isinstance(event, DataReceived):
            size, number = event.flow_controlled_length or 0, event.stream_id or 0
            if (stream := self.streams.get(number)) is None:
                # Nobody takes it any more, and others need the room.
                self._h2.acknowledge_received_data(size, number)
            else:
                stream.heard(event.data or b"", size)
        elif isinstance(event, StreamEnded):
            if stream := self.streams.get(event.stream_id or 0):
                stream.heard_all()
        elif isinstance(event, StreamReset):
            stream = self.streams.get(event.stream_id or 0)
            self._resets += event.remote_reset or stream is not None
            if stream is not None:
                stream.lose()
        elif isinstance(event, ConnectionTerminated):
            self.goes()
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            number = event.stream_id if isinstance(event, WindowUpdated) else 0
            for stream in [self.streams[number]] if number in self.streams else self.streams.values():
                stream.room.set()

    def _begin(self, number: int, headers: list[tuple[bytes, bytes]]) -> None:
        scope = self._scope(headers)
        if scope is None or self._is_going:
            self._h2.reset_stream(number, ErrorCodes.REFUSED_STREAM if scope else ErrorCodes.PROTOCOL_ERROR)
            return
        self.used_s = None
        self.streams[number] = Stream(self, number, self._sessions.app, scope)

    def _scope(self, headers: list[tuple[bytes, bytes]]) -> Mapping[str, Any] | None:
        """A request as ASGI says it; None where it is none."""
        said = {name: value for name, value in headers if name.startswith(b":")}
        path, _, query = said.get(b":path", b"").partition(b"?")
        method, authority = said.get(b":method", b""), said.get(b":authority")
        if not path.startswith(b"/") or not method.isalpha() or len(headers) > _HEADERS_MAX:
            return None
        plain = [(bytes(name), bytes(value)) for name, value in headers if not name.startswith(b":")]
        if authority is not None:
            plain = [(b"host", bytes(authority)), *(each for each in plain if each[0] != b"host")]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": method.decode(),
            "scheme": "http",
            "path": path.decode("latin-1"),
            "raw_path": bytes(path),
            "query_string": bytes(query),
            "root_path": "",
            "headers": plain,
            "client": self._client,
            "extensions": {TRAILERS: {}},
            PAYS: self.pays,
        }

    # Whose time it is

    def pays(self, cluster: str) -> None:
        """From now on the cluster pays for what is read."""
        self._share.moves(cluster)

    def _pay(self, cost_ns: int) -> None:
        self._share.charge(cost_ns)
        self._had_ns += cost_ns
        is_spent = self._had_ns >= STEP_NS or bool(self._unread)
        if is_spent and self._pacing is None and self.closed_s is None:
            self._had_ns = 0
            self._pacing = asyncio.get_running_loop().create_task(self._pace())
            self._listen()

    async def _pace(self) -> None:
        """Nothing more is read before its turn."""
        try:
            await self._share.again()
            # Others are before it even where nobody waits for a turn.
            await asyncio.sleep(0)
        finally:
            self._pacing = None
        if self._unread:
            self._step()
        self._listen()

    # What goes

    @property
    def h2(self) -> H2Connection:
        return self._h2

    async def writable(self) -> None:
        await self._writable.wait()

    def flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def ended(self, number: int) -> None:
        """A stream is over on this side."""
        stream = self.streams.pop(number, None)
        if stream is not None and not stream.is_lost:
            self._resets = max(0, self._resets - 1)
        self._rest()

    def _rest(self) -> None:
        if self.streams:
            return
        self.used_s = asyncio.get_running_loop().time()
        if self._is_going and self._transport is not None and self.closed_s is None:
            self._close()
