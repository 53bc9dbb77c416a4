"""One request to an instance in HTTP/2 and its answer back, trailers and all: what gRPC needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Timeout, WalrasError
from walras.functions.backend import Backend, Instance
from walras.functions.backends import Backends
from walras.functions.client import Client
from walras.functions.connections import LOST, Headers, end_to_end
from walras.functions.forwarding import (
    IDEMPOTENT,
    BadGateway,
    forwarded,
    method_of,
    pass_back,
    said,
    target_of,
)
from walras.functions.h2c import H2C, Refused
from walras.functions.shares import Share

# So much of a body is kept, to be sent again to whoever says that nothing was done about it; so often.
_KEPT_BYTES_MAX: Final = 16 * 1024
_TRIES_MAX: Final = 3
_PASSED_ON: Final = (b"te", b"trailers")


class Call:
    """Like an Exchange, it is run with an instance. Both ways go on at the same time."""

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
        _, *headers = forwarded(scope, host, hides)
        if client.length is not None:
            headers.append((b"content-length", b"%d" % client.length))
        self._headers: Headers = [
            (b":method", self._method.encode()),
            (b":scheme", b"http"),
            (b":path", target_of(scope)),
            (b":authority", host),
            *headers,
            _PASSED_ON,
        ]
        # What of the body was sent, and whether there is more.
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._more = True
        self._pump: asyncio.Task[None] | None = None
        self._refusal: WalrasError | None = None

    async def run(self, backends: Backends, backend: Backend, instance: Instance) -> bool:
        """Passes the request on and the answer back; False when nothing could be sent, so that another
        instance may be asked. Raises Timeout, BadGateway."""
        lost: Exception | None = None
        for number in range(_TRIES_MAX):
            link = instance.reusable(is_repeatable=self._method in IDEMPOTENT)
            is_reused = link is not None
            if link is None:
                try:
                    link = await backends.connect(backend, instance)
                except (WalrasError, OSError):
                    if lost is not None:
                        # The instance ended with this request, of which another may die as well.
                        raise BadGateway(f"the instance did not answer: {said(lost)}") from None
                    return False
            assert isinstance(link, H2C)
            is_kept = False
            try:
                code, headers = await self._ask(link, backend)
                await self._answer(link, code, headers, backend)
                is_kept = instance.keep(link)
                return True
            except LOST as error:
                undone = isinstance(error, Refused) or (is_reused and self._method in IDEMPOTENT)
                if number + 1 < _TRIES_MAX and undone and not link.heard and self._is_repeatable:
                    lost = None if isinstance(error, Refused) else error
                    continue
                what = "broke its answer off" if self._client.has_begun else "did not answer"
                raise self._refusal or BadGateway(f"the instance {what}: {said(error)}") from None
            finally:
                await self._stop()
                if not is_kept:
                    link.abort()
        raise AssertionError("the last try raises")

    @property
    def _is_repeatable(self) -> bool:
        return self._kept_bytes <= _KEPT_BYTES_MAX and not self._client.has_begun

    async def _stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            self._pump = None

    async def _ask(self, link: H2C, backend: Backend) -> tuple[int, Headers]:
        """Begins to send; the head of the answer, which may come before the body is there to be sent."""
        is_empty = self._client.is_empty and not self._kept
        await link.begin(self._headers, self._share, ends=is_empty)
        if not is_empty:
            self._pump = asyncio.create_task(self._share.run(self._pass_on(link)))
        start_ms = backend.limits.start_ms
        try:
            async with asyncio.timeout(None if start_ms is None else start_ms / 1000):
                return await link.head()
        except TimeoutError:
            raise Timeout("the instance did not begin to answer in time") from None

    async def _pass_on(self, link: H2C) -> None:
        try:
            for data in self._kept:
                await link.send(data, ends=False)
            while self._more:
                data, self._more = await self._client.piece()
                self._kept_bytes += len(data)
                if self._kept_bytes <= _KEPT_BYTES_MAX:
                    self._kept.append(data)
                else:
                    self._kept.clear()
                await self._share.again()
                await link.send(data, ends=False)
            await link.send(b"", ends=True)
        except WalrasError as refusal:
            self._refusal = refusal
            link.abort()

    async def _answer(self, link: H2C, code: int, headers: Headers, backend: Backend) -> None:
        given = end_to_end(headers)
        if not link.has_body:
            await self._client.begin(code, given)
            await self._client.answer(b"", more=False)
            async for _ in link.body():
                pass
            return
        await self._client.begin(code, given, trailers=self._client.takes_trailers)
        # A caller may wait for the head before it says more.
        await self._client.answer(b"", more=True)
        await pass_back(link.body(), self._client, self._share, backend.limits.idle_ms)
        if self._client.takes_trailers:
            await self._client.trail(end_to_end(link.trailers))
        else:
            await self._client.answer(b"", more=False)
