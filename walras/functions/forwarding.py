"""One request to an instance and its answer back, both as streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from walras.core.errors import BadRequest, Timeout, Unclassified, WalrasError
from walras.functions.backend import Backend, Instance
from walras.functions.backends import Backends
from walras.functions.client import Client
from walras.functions.connections import (
    LOST,
    Connection,
    Head,
    Headers,
    end_to_end,
    is_plain,
)
from walras.functions.shares import Share

# What is said anew to the instance, or is not for it.
_SAID_ANEW: Final = frozenset(
    (b"host", b"content-length", b"expect", b"cookie", b"forwarded", b"x-forwarded-for", b"x-forwarded-host",
     b"x-forwarded-proto", b"knative-serving-namespace", b"knative-serving-revision", b"knative-serving-tag")
)  # fmt: skip
_TARGET: Final = re.compile(rb"/[!-~\x80-\xff]*")
# CONNECT asks for a tunnel, which is none of a function's.
_METHOD: Final = re.compile(r"(?!CONNECT$)[A-Z]{1,32}")
# Asked twice, they do what they do once (RFC 9110, section 9.2.2).
IDEMPOTENT: Final = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))


class BadGateway(Unclassified):
    """The instance did not answer as HTTP has it."""

    code = 502
    reason = "BadGateway"


class Exchange:
    """A request that has been read up to its body."""

    def __init__(
        self,
        scope: Mapping[str, Any],
        client: Client,
        host: bytes,
        share: Share,
        *,
        hides: frozenset[bytes] = frozenset(),
    ) -> None:
        """`hides`: headers that are not for the instance. Raises BadRequest."""
        self._client, self._method, self._share = client, method_of(scope), share
        self._line = b"%b %b HTTP/1.1" % (self._method.encode(), target_of(scope))
        self._headers = forwarded(scope, host, hides)
        # The first piece of the body, and whether there is more of it.
        self._first: tuple[bytes, bool] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._refusal: WalrasError | None = None

    async def run(self, backends: Backends, backend: Backend, instance: Instance) -> bool:
        """Passes the request on and the answer back; False when nothing could be sent, so that another
        instance may be asked. Raises Timeout, BadGateway."""
        try:
            return await self._run(backends, backend, instance)
        finally:
            if self._pump is not None:
                self._pump.cancel()
                await asyncio.gather(self._pump, return_exceptions=True)

    async def _run(self, backends: Backends, backend: Backend, instance: Instance) -> bool:
        lost: Exception | None = None
        while True:
            connection = instance.reusable(is_repeatable=self._method in IDEMPOTENT)
            is_reused = connection is not None
            if connection is None:
                try:
                    connection = await backends.connect(backend, instance)
                except (WalrasError, OSError):
                    if lost is not None:
                        # The instance ended with this request, of which another may die as well.
                        raise BadGateway(f"the instance did not answer: {said(lost)}") from None
                    return False
            assert isinstance(connection, Connection)
            try:
                head = await self._ask(connection, backend)
            except LOST as error:
                connection.abort()
                # A connection that was kept may be over before we hear of it; then nothing was done.
                if is_reused and not connection.heard and self._is_repeatable():
                    lost = error
                    continue
                raise self._refusal or BadGateway(f"the instance did not answer: {said(error)}") from None
            except BaseException:
                connection.abort()
                raise
            await self._answer(connection, head, backend, instance)
            return True

    def _is_repeatable(self) -> bool:
        return self._method in IDEMPOTENT and self._first is not None and not self._first[1]

    async def _ask(self, connection: Connection, backend: Backend) -> Head:
        """Sends the request; the head of the answer to it, which may come before all of it is sent."""
        if self._first is None:
            self._first = await self._client.piece()
        data, more = self._first
        framing = self._framing(data, more=more)
        lines = [self._line, *(b"%b: %b" % each for each in (*self._headers, *framing))]
        is_chunked = framing == [(b"transfer-encoding", b"chunked")]
        connection.heard = False
        connection.write(b"\r\n".join(lines) + b"\r\n\r\n")
        await connection.send(_piece(data, more=more, is_chunked=is_chunked))
        if more:
            self._pump = asyncio.create_task(self._share.run(self._pass_on(connection, is_chunked)))
        start_ms = backend.limits.start_ms
        try:
            async with asyncio.timeout(None if start_ms is None else start_ms / 1000):
                return await connection.head(self._method)
        except TimeoutError:
            raise Timeout("the instance did not begin to answer in time") from None

    def _framing(self, data: bytes, *, more: bool) -> Headers:
        """How the instance knows where the body ends."""
        if self._client.length is not None:
            return [(b"content-length", b"%d" % self._client.length)]
        if more:
            return [(b"transfer-encoding", b"chunked")]
        if data or self._method in ("POST", "PUT", "PATCH"):
            return [(b"content-length", b"%d" % len(data))]
        return []

    async def _pass_on(self, connection: Connection, is_chunked: bool) -> None:
        more = True
        try:
            while more:
                data, more = await self._client.piece()
                await self._share.again()
                await connection.send(_piece(data, more=more, is_chunked=is_chunked))
        except WalrasError as refusal:
            self._refusal = refusal
            connection.abort()

    async def _answer(self, connection: Connection, head: Head, backend: Backend, instance: Instance) -> None:
        """Passes the answer on, and keeps the connection where it can be used again."""
        is_kept = False
        try:
            if head.status == 101:
                raise BadGateway("the instance wants to switch protocols")
            headers = end_to_end(head.headers)
            if head.framing == "chunked":
                headers = [each for each in headers if each[0] != b"content-length"]
            await self._client.begin(head.status, headers)
            pieces = connection.body(head)
            await pass_back(pieces, self._client, self._share, backend.limits.idle_ms)
            await self._client.answer(b"", more=False)
            is_done = self._pump is None or (self._pump.done() and self._pump.exception() is None)
            # Programs that send a body to HEAD all the same would have it read as the next answer.
            is_clean = head.keeps and self._method != "HEAD"
            is_kept = is_clean and is_done and instance.keep(connection)
        except LOST as error:
            raise self._refusal or BadGateway(f"the instance broke its answer off: {said(error)}") from None
        finally:
            if not is_kept:
                connection.abort()


async def pass_back(
    pieces: AsyncGenerator[bytes, None], client: Client, share: Share, idle_ms: int | None
) -> None:
    """Passes the body of an answer on as it comes. Raises Timeout where it pauses for too long."""
    try:
        while True:
            async with asyncio.timeout(None if idle_ms is None else idle_ms / 1000):
                data = await anext(pieces, b"")
            if not data:
                return
            await share.again()
            await client.answer(data, more=True)
    except TimeoutError:
        raise Timeout("the instance paused its answer for too long") from None
    finally:
        await pieces.aclose()


def method_of(scope: Mapping[str, Any]) -> str:
    """Raises BadRequest for one that is not passed on."""
    method = str(scope["method"])
    if not _METHOD.fullmatch(method):
        raise BadRequest("the request cannot be forwarded")
    return method


def target_of(scope: Mapping[str, Any]) -> bytes:
    """The path and the query as they came. Raises BadRequest."""
    target = bytes(scope.get("raw_path") or str(scope["path"]).encode())
    if scope["query_string"]:
        target = b"%b?%b" % (target, scope["query_string"])
    if not _TARGET.fullmatch(target):
        raise BadRequest("the request cannot be forwarded")
    return target


def forwarded(scope: Mapping[str, Any], host: bytes, hides: frozenset[bytes]) -> Headers:
    """The headers for the instance. Raises BadRequest."""
    given: Headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    if not all(is_plain(*each) for each in given):
        raise BadRequest("a header cannot be forwarded")
    headers = [
        (name, value) for name, value in end_to_end(given) if name not in _SAID_ANEW and name not in hides
    ]
    # HTTP/2 may send a cookie in several fields (RFC 9113, section 8.2.3).
    if cookies := [value for name, value in given if name == b"cookie"]:
        headers.append((b"cookie", b"; ".join(cookies)))
    client = str((scope.get("client") or ("",))[0]).encode("latin-1", "replace")
    before = [value for name, value in given if name == b"x-forwarded-for"]
    headers += [
        (b"x-forwarded-for", b", ".join((*before, client))),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-host", host),
    ]
    return [(b"host", host), *headers]


def _piece(data: bytes, *, more: bool, is_chunked: bool) -> bytes:
    if not is_chunked:
        return data
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return chunk if more else chunk + b"0\r\n\r\n"


def said(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "it closed the connection"
    return str(error) or type(error).__name__
