"""Answers on their way to the client: whole ones, and those that go on until somebody ends them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from walras.core.errors import ServiceUnavailable, TooManyRequests, WalrasError
from walras.kube.bodies import Receive
from walras.kube.serve.answers import JSON, Answer, Headers, Stream
from walras.kube.serve.fair import Payer
from walras.kube.serve.watching import Deadlines, Following

log = structlog.get_logger(__name__)

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# Of the users of one cluster together.
STREAMS_MAX: Final = 1000
# A client that takes nothing of its stream for this long has lost it.
STALLED_S: Final = 60
_SWEEP_S: Final = 10
_FIRST: Final = {"type": "http.response.body", "body": b"", "more_body": True}
_LAST: Final = {"type": "http.response.body", "body": b"", "more_body": False}
_NO_CACHE: Final = (b"cache-control", b"no-cache, private")
_WATCH_START: Final = {"type": "http.response.start", "status": 200}
_WATCH_HEADERS: Final = ((b"content-type", JSON), _NO_CACHE)


class Streams:
    """The streams that are open. A watch costs one task, which its request has anyway, and no timer."""

    def __init__(self) -> None:
        self.closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._followings: set[Following] = set()
        self._open: Counter[Payer] = Counter()
        self._deadlines = Deadlines()
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks) + len(self._followings)

    async def close(self) -> None:
        """Ends every stream, each with a proper last chunk; new streams are refused."""
        self.closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for following in tuple(self._followings):
            following.watch.close()
            if following.pending and following.task is not None:
                following.task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while self._followings:
            self._emptied.clear()
            await self._emptied.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def refusal(self, payer: Payer) -> WalrasError | None:
        """Why no stream of theirs can begin now."""
        if self.closing:
            return ServiceUnavailable("the server is shutting down", retry_after_s=1)
        # The operator's own are not counted: nobody has to be kept from harming itself.
        if payer[0] and self._open[payer] >= STREAMS_MAX:
            return TooManyRequests(f"more than {STREAMS_MAX} open streams; close some", retry_after_s=5)
        return None

    def _count(self, payer: Payer, by: int) -> None:
        self._open[payer] += by
        if not self._open[payer]:
            del self._open[payer]

    # Watches

    async def follow(
        self, following: Following, payer: Payer, receive: Receive, send: Send, headers: Headers = ()
    ) -> None:
        """Sends a watch's lines until it is over."""
        watch = following.watch
        following.task = asyncio.current_task()
        departure = _Departure(receive, watch.close)
        self._begin(following, payer)
        try:
            await send({**_WATCH_START, "headers": [*_WATCH_HEADERS, *headers]})
            # Headers go out with the first chunk only; a watch may have none for hours.
            await send(_FIRST)
            while True:
                if chunk := following.take():
                    following.sending_since_s = asyncio.get_running_loop().time()
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    following.sending_since_s = 0.0
                elif following.pending:
                    await following.convert()
                elif watch.over:
                    break
                else:
                    await watch.wait()
            if not departure.left:
                await send(_LAST)
        except asyncio.CancelledError:
            log.info("stream ended early", error="the client takes nothing of it")
        except Exception as error:
            log.info("stream ended early", error=repr(error))
        finally:
            departure.cancel()
            self._end(following, payer)

    def _begin(self, following: Following, payer: Payer) -> None:
        self._followings.add(following)
        self._count(payer, 1)
        self._deadlines.add(following)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _end(self, following: Following, payer: Payer) -> None:
        following.watch.close()
        following.task = None
        self._deadlines.discard(following)
        self._followings.discard(following)
        self._count(payer, -1)
        if not self._followings:
            self._emptied.set()

    def _sweep(self) -> None:
        """Ends the watches whose clients have lost them."""
        loop = asyncio.get_running_loop()
        lost_s = loop.time() - STALLED_S
        for following in tuple(self._followings):
            if 0 < following.sending_since_s < lost_s and following.task is not None:
                following.task.cancel()
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep) if self._followings else None

    # Logs and proxied answers

    async def pump(self, stream: Stream, payer: Payer, receive: Receive, send: Send) -> None:
        """Sends the chunks until they end."""
        pump = asyncio.create_task(_pump(stream, send))
        departure = _Departure(receive, pump.cancel)
        self._tasks.add(pump)
        self._count(payer, 1)
        try:
            await asyncio.wait((pump,))
        finally:
            departure.cancel()
            pump.cancel()
            await asyncio.wait((pump,))
            stream.close()
            self._tasks.discard(pump)
            self._count(payer, -1)
        if not departure.left:
            with suppress(Exception):
                await send(_LAST)


class _Departure:
    """Notices that the client has left: `left` is set, and `leave` called once. It takes no task."""

    __slots__ = ("_future", "_leave", "_receive", "left")

    def __init__(self, receive: Receive, leave: Callable[[], object]) -> None:
        self._receive, self._leave, self.left = receive, leave, False
        self._listen()

    def _listen(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.ensure_future(self._receive())
        self._future.add_done_callback(self._heard)

    def _heard(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        if future.exception() is None and future.result()["type"] != "http.disconnect":
            self._listen()
            return
        self.left = True
        self._leave()

    def cancel(self) -> None:
        self._future.cancel()


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
    headers = [(b"content-type", stream.content_type), _NO_CACHE, *stream.headers]
    try:
        await send({"type": "http.response.start", "status": stream.status, "headers": headers})
        # Headers go out with the first chunk only; a log may have none for hours.
        await send(_FIRST)
        async for chunk in stream.chunks:
            async with asyncio.timeout(STALLED_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except asyncio.CancelledError:
        pass
    except Exception as error:
        log.info("stream ended early", error=repr(error))
    finally:
        await stream.chunks.aclose()
