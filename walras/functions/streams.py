"""A request in HTTP/2 and its answer: what the application receives and sends, at the slower one's pace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from walras.functions.client import TRAILERS
from walras.kube.serve.relay import Application

log = structlog.get_logger(__name__)

Headers = list[tuple[bytes, bytes]]


class Carrier(Protocol):
    """The connection that a stream is of."""

    @property
    def h2(self) -> H2Connection: ...

    def flush(self) -> None:
        """Sends what there is to send."""

    async def writable(self) -> None:
        """Returns when the client takes what is sent."""

    def ended(self, number: int) -> None:
        """The stream is over on this side."""


class Stream:
    """One stream of a session, with a task of its own."""

    def __init__(self, session: Carrier, number: int, app: Application, scope: Mapping[str, Any]) -> None:
        self._session, self._number = session, number
        # What has come and nobody has taken, its size on the wire, and whether it is all.
        self._data = bytearray()
        self._size = 0
        self._is_whole = self._is_read = False
        self._news = asyncio.Event()
        # The client takes no more of it.
        self.is_lost = False
        # Set when there may be room to send.
        self.room = asyncio.Event()
        # The head of the answer, until it is sent, and whether trailers end it.
        self._head: Headers = []
        self._has_trailers = self._is_over = False
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def _run(self, app: Application, scope: Mapping[str, Any]) -> None:
        try:
            await app(scope, self.receive, self.send)
        except OSError as error:
            log.info("stream ended early", error=str(error))
        except Exception:
            log.exception("request failed")
        finally:
            self._finish()

    def _finish(self) -> None:
        """What is not whole is said to be broken off; of a body that nobody reads no more is wanted."""
        h2 = self._session.h2
        try:
            if self._size:
                h2.acknowledge_received_data(self._size, self._number)
            if not self.is_lost and not (self._is_over and self._is_whole):
                code = ErrorCodes.NO_ERROR if self._is_over else ErrorCodes.INTERNAL_ERROR
                h2.reset_stream(self._number, code)
        except ProtocolError:
            # It was over.
            pass
        self._session.flush()
        self._session.ended(self._number)

    # What comes

    def heard(self, data: bytes, size: int) -> None:
        """A piece of the body, and its size on the wire."""
        self._data += data
        self._size += size
        self._news.set()

    def heard_all(self) -> None:
        self._is_whole = True
        self._news.set()

    def lose(self) -> None:
        """The client has gone, or takes its request back."""
        self.is_lost = True
        self._news.set()
        self.room.set()

    async def receive(self) -> Mapping[str, Any]:
        while not (self.is_lost or self._data or (self._is_whole and not self._is_read)):
            self._news.clear()
            await self._news.wait()
        if self.is_lost:
            return {"type": "http.disconnect"}
        data, size = bytes(self._data), self._size
        self._data.clear()
        self._size = 0
        if size:
            self._session.h2.acknowledge_received_data(size, self._number)
            self._session.flush()
        self._is_read = self._is_whole
        return {"type": "http.request", "body": data, "more_body": not self._is_whole}

    # What goes

    async def send(self, message: Mapping[str, Any]) -> None:
        """To a client that is gone nothing is sent."""
        if self.is_lost:
            await asyncio.sleep(0)
            return
        kind = message["type"]
        try:
            if kind == "http.response.start":
                self._head = [(b":status", b"%d" % message["status"]), *message["headers"]]
                self._has_trailers = bool(message.get("trailers"))
            elif kind == "http.response.body":
                ends = not message.get("more_body") and not self._has_trailers
                await self._send_data(bytes(message.get("body") or b""), ends=ends)
            elif kind == TRAILERS:
                await self._end(list(message["headers"]))
        except ProtocolError as error:
            raise ConnectionResetError(str(error) or type(error).__name__) from None

    async def _send_data(self, data: bytes, *, ends: bool) -> None:
        h2 = self._session.h2
        if self._head:
            head, self._head = self._head, []
            self._is_over = ends and not data
            h2.send_headers(self._number, head, end_stream=self._is_over)
        view = memoryview(data)
        while view and not self.is_lost:
            size = min(h2.local_flow_control_window(self._number), h2.max_outbound_frame_size, len(view))
            if size <= 0:
                self.room.clear()
                self._session.flush()
                await self.room.wait()
                continue
            h2.send_data(self._number, bytes(view[:size]), end_stream=ends and size == len(view))
            view = view[size:]
            self._is_over = ends and not view
            self._session.flush()
            await self._session.writable()
        if ends and not self._is_over and not self.is_lost:
            h2.end_stream(self._number)
            self._is_over = True
        self._session.flush()

    async def _end(self, trailers: Headers) -> None:
        h2 = self._session.h2
        self._is_over = True
        if trailers:
            h2.send_headers(self._number, trailers, end_stream=True)
        else:
            h2.end_stream(self._number)
        self._session.flush()
