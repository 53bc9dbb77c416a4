"""A container's log over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from unit.test_serve_channels import Wire

from walras.kube.serve import logsocket
from walras.kube.serve.answers import Answer, Stream


class Log:
    """A log of some lines, which goes on for ever where it is followed."""

    def __init__(self, *lines: bytes, followed: bool = False) -> None:
        self.lines, self.followed = lines, followed
        self.closed: list[str] = []
        # Everything there is was taken.
        self.read = asyncio.Event()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            for line in self.lines:
                yield line
            self.read.set()
            if self.followed:
                await asyncio.Event().wait()
        finally:
            self.closed.append("chunks")

    def stream(self) -> Stream:
        return Stream(self._chunks(), close=lambda: self.closed.append("stream"))


@pytest.mark.parametrize("protocol", ["", "binary.k8s.io"])
def test_a_log_is_an_empty_message_and_then_what_was_said(protocol: str) -> None:
    async def story() -> None:
        wire, log = Wire(), Log(b"one\n", b"two\n")
        await logsocket.send(wire.socket, protocol, log.stream())
        assert wire.sent[0] == {"type": "websocket.accept", "subprotocol": protocol or None}
        assert wire.messages == [b"", b"one\n", b"two\n"]
        assert log.closed == ["chunks", "stream"]

    asyncio.run(story())


def test_a_log_that_is_followed_is_let_go_when_its_reader_is_gone() -> None:
    async def story() -> None:
        wire, log = Wire(), Log(b"one\n", followed=True)
        following = asyncio.create_task(logsocket.send(wire.socket, "", log.stream()))
        await log.read.wait()
        wire.say(b"what a reader says is nobody's")
        wire.leave()
        await following
        assert log.closed == ["chunks", "stream"]

    asyncio.run(story())


def test_a_pod_that_runs_nowhere_yet_has_an_empty_log() -> None:
    async def story() -> None:
        wire = Wire()
        await logsocket.send(wire.socket, "", Answer(b"", 204))
        assert wire.messages == [b"", b""]

    asyncio.run(story())
