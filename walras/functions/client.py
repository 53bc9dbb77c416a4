"""A request from outside: its body as it comes, whether its client is still there, and the answer to it."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from walras.core.errors import BadRequest, RequestEntityTooLarge, WalrasError
from walras.functions import grpc
from walras.functions.connections import Headers, listed
from walras.kube.bodies import Receive
from walras.kube.serve import status
from walras.kube.serve.streams import Send

BODY_BYTES_MAX: Final = 1 << 30
# An extension of ASGI, and the message of it.
TRAILERS: Final = "http.response.trailers"
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class Client:
    """Reads one piece ahead, no more: a body stays with its client until an instance takes it. `leave` is
    called once when the client goes away."""

    kind = "http.request"

    def __init__(
        self, scope: Mapping[str, Any], receive: Receive, send: Send, leave: Callable[[], object]
    ) -> None:
        self._receive, self._send, self._leave = receive, send, leave
        # Whether what comes after a body reaches the client, and whether it speaks gRPC.
        self.takes_trailers = TRAILERS in (scope.get("extensions") or {})
        self.is_grpc = grpc.is_call(scope["headers"])
        self._pieces: deque[Mapping[str, Any]] = deque()
        self._arrived = asyncio.Event()
        # How long the body is said to be, where it is, and how much of it was read.
        self.length = _length(scope)
        self._size = 0
        # Whether all of the body was read here, and whether the head of the answer is out.
        self.is_read = False
        self.has_begun = False
        self.left = False
        # The last of the answer is on its way: the end of the request is no departure.
        self._is_answered = False
        # Whether the end of the answer is what comes after its body.
        self._trails = False
        self._listen()

    def _listen(self) -> None:
        self._future: asyncio.Future[Mapping[str, Any]] = asyncio.ensure_future(self._receive())
        self._future.add_done_callback(self._heard)

    def _heard(self, future: asyncio.Future[Mapping[str, Any]]) -> None:
        if future.cancelled() or self._is_answered:
            return
        if future.exception() is not None or not self._is_piece(future.result()):
            self.left = True
            self._leave()
            return
        self._pieces.append(future.result())
        self._arrived.set()
        if self._is_last(future.result()):
            # What comes next is that the client goes.
            self._listen()

    def _is_piece(self, message: Mapping[str, Any]) -> bool:
        return bool(message["type"] == self.kind)

    def _is_last(self, message: Mapping[str, Any]) -> bool:
        return not message.get("more_body")

    async def _next(self) -> Mapping[str, Any]:
        while not self._pieces:
            self._arrived.clear()
            await self._arrived.wait()
        return self._pieces.popleft()

    @property
    def is_empty(self) -> bool:
        """Whether it is known already that there is no body, and none was said to be."""
        first = self._pieces[0] if self._pieces and not self.length else None
        return first is not None and not first.get("body") and not first.get("more_body")

    async def piece(self) -> tuple[bytes, bool]:
        """The next piece of the body, and whether there is more. Raises RequestEntityTooLarge, and BadRequest
        where it is not as long as it was said to be: what comes after it would pass for the rest of it."""
        message = await self._next()
        data, more = bytes(message.get("body") or b""), bool(message.get("more_body"))
        self._size += len(data)
        if self._size > BODY_BYTES_MAX:
            raise RequestEntityTooLarge(f"a body may have {BODY_BYTES_MAX} bytes")
        if not more and self.length not in (None, self._size):
            raise BadRequest("the body is not as long as the request says")
        self.is_read = not more
        if more:
            self._listen()
        return data, more

    async def begin(self, code: int, headers: Headers, *, trailers: bool = False) -> None:
        """`trailers`: they come after the body, by `trail`."""
        self.has_begun, self._trails = True, trailers
        start = {"type": "http.response.start", "status": code, "headers": headers, "trailers": trailers}
        await self._send(start)

    async def answer(self, data: bytes, *, more: bool) -> None:
        self._is_answered = not more
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def trail(self, trailers: Headers) -> None:
        """The end of an answer that has them."""
        self._is_answered = True
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        await self._send({"type": TRAILERS, "headers": trailers, "more_trailers": False})

    async def fail(self, error: WalrasError) -> bool:
        """Tells who speaks gRPC that what has begun goes no further; False where it cannot be told."""
        if not (self.is_grpc and self._trails) or self._is_answered:
            return False
        with suppress(Exception):
            await self.trail(grpc.failure(status.answer(error).status, error.message))
        return True

    async def refuse(self, error: WalrasError) -> None:
        """Answers with an error, as a Status of Kubernetes says it, or gRPC."""
        said = status.answer(error)
        if self.is_grpc:
            with suppress(Exception):
                await self.begin(200, grpc.refusal(said.status, error.message))
                await self.answer(b"", more=False)
            return
        length = (b"content-length", b"%d" % len(said.body))
        with suppress(Exception):
            await self.begin(said.status, [(b"content-type", said.content_type), *said.headers, length])
            await self.answer(said.body, more=False)

    def close(self) -> None:
        self._future.cancel()


def _length(scope: Mapping[str, Any]) -> int | None:
    said = listed(scope["headers"], b"content-length")
    return int(said[0]) if len(said) == 1 and _LENGTH.fullmatch(said[0]) else None
