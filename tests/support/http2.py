"""Ends of connections in HTTP/2, in memory: a client of a session, and an instance that is a program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.connection
from h2.config import H2Configuration
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, TrailersReceived

from walras.functions.http2 import Session
from walras.functions.listener import Listener
from walras.kube.serve.fair import Fair

Object = dict[str, Any]
Headers = list[tuple[bytes, bytes]]
GET: Headers = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a?b=c"), (b":authority", b"h")]
POST: Headers = [(b":method", b"POST"), *GET[1:]]


class Wire(asyncio.Transport):
    """What a session writes is here until the client takes it."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        super().__init__()
        self.address = address
        self.written = bytearray()
        self.reads = True
        self.closed = self.aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.address, 1234) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written += data

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_reading(self) -> bool:
        return self.reads

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


@dataclass
class Peer:
    """A client in HTTP/2 at the other end of a session with `app`."""

    app: Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]
    fair: Fair = field(default_factory=Fair)

    def __post_init__(self) -> None:
        self.listener = Listener(self.app, self.fair)
        self.wire = Wire()
        self.session = Session(self.listener)
        self.session.connection_made(self.wire)
        self.events: list[Event] = []
        self.h2 = h2.connection.H2Connection(
            H2Configuration(client_side=True, validate_outbound_headers=False)
        )
        self.h2.initiate_connection()

    async def exchange(self) -> list[Event]:
        """Sends and hears until there is nothing more to be said; what was heard."""
        before = len(self.events)
        for _ in range(50):
            if data := self.h2.data_to_send():
                self.give(data)
            await asyncio.sleep(0)
            if written := bytes(self.wire.written):
                self.wire.written.clear()
                self.events += self.h2.receive_data(written)
        return self.events[before:]

    def give(self, data: bytes) -> None:
        if not self.wire.closed:
            self.session.data_received(data)

    def ask(self, headers: Headers = GET, *, ends: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers, end_stream=ends)
        return number

    def heard(self, kind: type[Any], number: int = 0) -> list[Any]:
        """Events of a kind, of one stream or of all."""
        of = [each for each in self.events if isinstance(each, kind)]
        return [each for each in of if not number or each.stream_id == number]

    def body(self, number: int) -> bytes:
        return b"".join(each.data for each in self.heard(DataReceived, number))


@dataclass
class Speaker:
    """An instance that speaks HTTP/2 on one connection. What it is asked is in `asked`, by stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def __post_init__(self) -> None:
        self.h2 = h2.connection.H2Connection(
            H2Configuration(
                client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.h2.initiate_connection()
        self.bodies: dict[int, bytes] = {}

    async def request(self) -> tuple[int, Headers]:
        """The next request, once all of it is here. Raises EOFError."""
        number, headers = 0, list[tuple[bytes, bytes]]()
        while True:
            self.flush()
            data = await self.reader.read(65_536)
            if not data:
                raise EOFError
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    number, headers = event.stream_id or 0, list(event.headers or [])
                    self.bodies[number] = b""
                elif isinstance(event, DataReceived):
                    self.bodies[event.stream_id or 0] += event.data or b""
                    self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                elif isinstance(event, StreamEnded):
                    self.flush()
                    return number, headers
                assert not isinstance(event, TrailersReceived)

    def answer(self, number: int, body: bytes = b"", trailers: Headers | None = None) -> None:
        self.h2.send_headers(number, [(b":status", b"200")])
        self.h2.send_data(number, body, end_stream=trailers is None)
        if trailers is not None:
            self.h2.send_headers(number, trailers, end_stream=True)
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
