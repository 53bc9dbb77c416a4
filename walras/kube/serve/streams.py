"""Answers on their way to the client: whole ones, and those that go on until somebody ends them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from walras.core.errors import ServiceUnavailable, TooManyRequests
from walras.kube.bodies import Receive
from walras.kube.serve import status
from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.fair import Payer, Turn

log = structlog.get_logger(__name__)

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# Of the users of one cluster together, or of the operator.
STREAMS_MAX: Final = 1000
# A client that takes nothing of its stream for this long has lost it.
_STALLED_S: Final = 60


class Streams:
    """The open watches, logs and proxied answers: `tasks`, and how many each payer has."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.closing = False
        self._open: Counter[Payer] = Counter()

    async def close(self) -> None:
        """Ends every stream, each with a proper last chunk; new streams are refused."""
        self.closing = True
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def run(self, stream: Stream, payer: Payer, turn: Turn, receive: Receive, send: Send) -> None:
        """Sends the chunks until they end, the client goes or the server closes."""
        if self.closing or self._open[payer] >= STREAMS_MAX:
            stream.close()
            await send_answer(send, self._refusal())
            return
        pump = asyncio.create_task(turn.run(_pump(stream, send)))
        gone = asyncio.create_task(_gone(receive))
        self.tasks.add(pump)
        self._open[payer] += 1
        try:
            await asyncio.wait((pump, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = gone.done()
            gone.cancel()
            pump.cancel()
            await asyncio.wait((pump,))
            stream.close()
            self.tasks.discard(pump)
            self._open[payer] -= 1
            if not self._open[payer]:
                del self._open[payer]
        if not left:
            with suppress(Exception):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self) -> Answer:
        if self.closing:
            return status.answer(ServiceUnavailable("the server is shutting down", retry_after_s=1))
        return status.answer(
            TooManyRequests(f"more than {STREAMS_MAX} open streams; close some", retry_after_s=5)
        )


async def send_answer(send: Send, answer: Answer, *, head_only: bool = False) -> None:
    """Sends a whole answer, or what is before its body, to a client that may be gone."""
    headers = [(b"content-type", answer.content_type), *answer.headers]
    if answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(answer.body)))
    body = b"" if head_only else answer.body
    with suppress(Exception):
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _pump(stream: Stream, send: Send) -> None:
    headers = [(b"content-type", stream.content_type), (b"cache-control", b"no-cache, private")]
    headers += stream.headers
    try:
        await send({"type": "http.response.start", "status": stream.status, "headers": headers})
        # Headers go out with the first chunk only; a watch may have none for hours.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for chunk in stream.chunks:
            async with asyncio.timeout(_STALLED_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except asyncio.CancelledError:
        pass
    except Exception as error:
        log.info("stream ended early", error=repr(error))
    finally:
        await stream.chunks.aclose()


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
