"""Where functions are asked in HTTP/2, and gRPC is spoken: the sessions of a port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from walras.core.errors import ServiceUnavailable
from walras.functions.http2 import Session
from walras.kube.serve.fair import Fair
from walras.kube.serve.relay import Application

SESSIONS_MAX: Final = 2_000
# Of one address: each may have as much waiting for functions as `http2.WINDOW_BYTES`.
SESSIONS_EACH_MAX: Final = 200
# A session that is over, and whose client does not take the last of it, is broken off.
_CLOSED_S: Final = 10.0
# A client that asks for nothing for so long is told to go.
IDLE_S: Final = 300.0
# What a session that is told to go has to end its streams.
_GOING_S: Final = 5.0
_SWEEP_S: Final = 10.0
_BACKLOG: Final = 1024


class Listener:
    """`port` is where it listens once it has begun to; one address has at most `each_max` sessions."""

    def __init__(self, app: Application, fair: Fair, each_max: int = SESSIONS_EACH_MAX) -> None:
        self.app, self.fair, self.port, self._each_max = app, fair, 0, each_max
        self._sessions: set[Session] = set()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    async def start(self, host: str, port: int) -> None:
        """Port 0 takes any free one. Raises ServiceUnavailable."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Session(self), host or "0.0.0.0", port, backlog=_BACKLOG,  # noqa: S104
            )  # fmt: skip
        except OSError as error:
            raise ServiceUnavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Has every stream end, for some seconds."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.goes()
        try:
            async with asyncio.timeout(_GOING_S):
                while self._sessions:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            for session in list(self._sessions):
                session.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def opened(self, session: Session) -> None:
        own = [each for each in self._sessions if each.address == session.address]
        if len(own) >= self._each_max:
            _idlest(own, session).abort()
        elif len(self._sessions) >= SESSIONS_MAX:
            _idlest(self._sessions, session).abort()
        self._sessions.add(session)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def closed(self, session: Session) -> None:
        self._sessions.discard(session)
        if not self._sessions:
            self._emptied.set()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper, now_s = None, loop.time()
        for session in list(self._sessions):
            if session.closed_s is not None and now_s - session.closed_s > _CLOSED_S:
                session.abort()
            elif session.used_s is not None and now_s - session.used_s > IDLE_S:
                session.goes()
        if self._sessions:
            self._sweeper = loop.call_later(_SWEEP_S, self._sweep)


def _idlest(sessions: Iterable[Session], otherwise: Session) -> Session:
    """The one that has asked for nothing for longest, and is to make room; `otherwise` where all are busy."""
    idle = (each for each in sessions if each.used_s is not None)
    return min(idle, key=lambda each: each.used_s or 0.0, default=otherwise)
