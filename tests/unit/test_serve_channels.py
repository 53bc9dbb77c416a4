"""exec, attach and port-forward over a WebSocket: channels, statuses, ports, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from unit.test_serve_spdy import Client

from walras.core.errors import BadRequest, InternalError, ServiceUnavailable
from walras.kube.serve import channels, forwarding, spdy
from walras.kube.serve.ports import Stream, Wish
from walras.kube.serve.sockets import Socket

Message = dict[str, Any]


class Wire:
    """The client's end of a WebSocket."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.socket = Socket(self.coming.get, self._send)

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))

    def say(self, data: bytes) -> None:
        self.coming.put_nowait({"type": "websocket.receive", "bytes": data})

    def leave(self) -> None:
        self.coming.put_nowait({"type": "websocket.disconnect", "code": 1005})

    @property
    def messages(self) -> list[bytes]:
        return [each["bytes"] for each in self.sent if each["type"] == "websocket.send"]

    def channel(self, number: int) -> bytes:
        return b"".join(each[1:] for each in self.messages if each[0] == number)


class Program:
    """A session whose program says what it is told to and remembers what it hears."""

    def __init__(self, code: int | None, **said: bytes) -> None:
        self.said: dict[Any, list[bytes]] = {stream: [text] for stream, text in said.items()}
        self.heard = b""
        self.input_ended = False
        self.sizes: list[tuple[int, int]] = []
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if code is not None:
            self._end.set_result(code)

    @property
    def outputs(self) -> tuple[Stream, ...]:
        return tuple(self.said)

    async def read(self, stream: Stream) -> bytes:
        if self.said[stream]:
            return self.said[stream].pop()
        await self.wait()
        return b""

    async def write(self, data: bytes) -> None:
        self.heard += data

    def end_input(self) -> None:
        self.input_ended = True
        self._end.set_result(0)

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    async def close(self) -> None:
        pass


def told(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await story()

    asyncio.run(run())


@pytest.mark.parametrize(("code", "status"), [(0, "Success"), (3, "Failure")])
def test_output_comes_before_the_status_that_ends_it(code: int, status: str) -> None:
    async def story() -> None:
        wire = Wire()
        await channels.converse(wire.socket, Program(code, stdout=b"out", stderr=b"err"), Wish(), channels.V5)
        assert (wire.channel(1), wire.channel(2)) == (b"out", b"err")
        said = json.loads(wire.channel(3))
        assert said["status"] == status
        if code:
            assert said["reason"] == "NonZeroExitCode"
            assert said["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]

    told(story)


def test_who_only_listens_is_not_told_of_the_programs_failure_as_its_own() -> None:
    async def story() -> None:
        wire = Wire()
        program = Program(137, stdout=b"out")
        await channels.converse(wire.socket, program, Wish(), channels.V5, tells_code=False)
        assert (wire.channel(1), json.loads(wire.channel(3))["status"]) == (b"out", "Success")

    told(story)


@pytest.mark.parametrize(
    ("code", "said"), [(0, b""), (3, b"command terminated with non-zero exit code: exit code 3")]
)
def test_in_the_first_protocol_only_a_failure_is_told_and_as_text(code: int, said: bytes) -> None:
    async def story() -> None:
        wire = Wire()
        await channels.converse(wire.socket, Program(code, stdout=b"out"), Wish(), channels.V1)
        assert (wire.channel(1), wire.channel(3)) == (b"out", said)

    told(story)


def test_input_sizes_and_its_end_go_in() -> None:
    async def story() -> None:
        wire, program = Wire(), Program(None, stdout=b"")
        sizes = (b'\x04{"Width":80,"Height":24}', b"\x04junk", b'\x04{"Width":-1,"Height":2}')
        for message in (b"\x00abc", b"", *sizes, b"\x07unknown", b"\xff\x01", b"\xff\x00"):
            wire.say(message)
        await channels.converse(wire.socket, program, Wish(stdin=True, tty=True), channels.V5)
        assert (program.heard, program.input_ended, program.sizes) == (b"abc", True, [(80, 24)])

    told(story)


def test_in_v4_nothing_ends_the_input_and_who_asked_for_none_gives_none() -> None:
    async def story() -> None:
        wire, program = Wire(), Program(None, stdout=b"")
        wire.say(b"\x00abc")
        wire.say(b"\xff\x00")
        wire.leave()
        await channels.converse(wire.socket, program, Wish(), channels.V4)
        assert (program.heard, program.input_ended) == (b"", False)

    told(story)


def test_a_client_that_leaves_ends_the_conversation() -> None:
    async def story() -> None:
        wire = Wire()
        wire.leave()
        await channels.converse(wire.socket, Program(None, stdout=b"x"), Wish(), channels.V5)
        assert wire.channel(3) == b""

    told(story)


def test_what_cannot_start_is_told_as_a_failure() -> None:
    said = channels.failure(InternalError("no such program"))
    assert (said["status"], said["reason"]) == ("Failure", "InternalError")
    assert said["message"] == "error executing command in container: no such program"


@pytest.mark.parametrize("wrong", [{}, {"stdout": True, "stderr": True, "tty": True}])
def test_a_wish_must_make_sense(wrong: dict[str, bool]) -> None:
    with pytest.raises(BadRequest):
        channels.wish({**dict.fromkeys(("stdin", "stdout", "stderr", "tty"), False), **wrong})


# port-forward


@asynccontextmanager
async def echo() -> AsyncIterator[forwarding.Dial]:
    """A pod whose port 7 answers in capitals; no other port answers."""
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            writer.write((await reader.read()).upper())
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    number = server.sockets[0].getsockname()[1]

    async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port != 7:
            raise ServiceUnavailable(f"nobody listens on {port}")
        return await asyncio.open_connection("127.0.0.1", number)

    async with server:
        yield dial
        await asyncio.gather(*(each for each in serving if each is not None))


def opened(client: Client, first: int, port: str = "7", request: str = "0") -> bytes:
    headers = {"port": port, "requestID": request}
    return (
        client.open(first, {"streamType": "error", **headers})
        + client.data(first, b"", end=True)
        + client.open(first + 2, {"streamType": "data", **headers})
    )


async def tunnelled(
    wire: Wire, dial: forwarding.Dial, until: Callable[[list[spdy.Event]], bool]
) -> list[spdy.Event]:
    """What the tunnel sends back until that is enough, then the client leaves."""
    running = asyncio.create_task(forwarding.Tunnel(wire.socket, dial).run())
    events: list[spdy.Event] = []
    reader, seen = spdy.Reader(), 0
    while not until(events) and not running.done():
        await asyncio.sleep(0)
        for message in wire.messages[seen:]:
            events += reader.feed(message)
            seen += 1
    wire.leave()
    await running
    return events


def data_of(events: list[spdy.Event], stream: int) -> bytes:
    return b"".join(each.data for each in events if isinstance(each, spdy.Data) and each.stream == stream)


def ended(*streams: int) -> Callable[[list[spdy.Event]], bool]:
    return lambda events: (
        {each.stream for each in events if isinstance(each, spdy.Data) and each.ended} >= set(streams)
    )


def test_connections_through_a_tunnel_do_not_mix() -> None:
    async def story() -> None:
        async with echo() as dial:
            wire, client = Wire(), Client()
            wire.say(opened(client, 1) + client.data(3, b"one"))
            wire.say(
                opened(client, 5, request="1")
                + client.data(7, b"two", end=True)
                + client.data(3, b"", end=True)
            )
            events = await tunnelled(wire, dial, ended(1, 3, 5, 7))
            assert (data_of(events, 3), data_of(events, 7)) == (b"ONE", b"TWO")
            assert (data_of(events, 1), data_of(events, 5)) == (b"", b"")

    told(story)


def test_a_port_that_does_not_answer_is_told_on_the_stream_of_errors() -> None:
    async def story() -> None:
        async with echo() as dial:
            wire = Wire()
            wire.say(opened(Client(), 1, port="9"))
            events = await tunnelled(wire, dial, ended(1, 3))
            assert data_of(events, 1) == b"error forwarding port 9 to the pod: nobody listens on 9"

    told(story)


@pytest.mark.parametrize(
    "headers",
    [{"streamType": "data", "port": "7", "requestID": "0"}, {"streamType": "error", "port": "70000"},
     {"streamType": "error"}, {"streamType": "stdin", "port": "7"}],
)  # fmt: skip
def test_streams_that_make_no_sense_are_refused_each_by_itself(headers: dict[str, str]) -> None:
    async def story() -> None:
        async with echo() as dial:
            wire, client = Wire(), Client()
            wire.say(client.open(1, headers) + opened(client, 3) + client.data(5, b"x", end=True))
            events = await tunnelled(wire, dial, ended(3, 5))
            assert spdy.Reset(1) in events
            assert data_of(events, 5) == b"X"

    told(story)


def test_too_many_streams_are_refused() -> None:
    async def story() -> None:
        async with echo() as dial:
            wire, client = Wire(), Client()
            for number in range(forwarding.STREAMS_MAX + 1):
                headers = {"streamType": "error", "port": "7", "requestID": str(number)}
                wire.say(client.open(2 * number + 1, headers))
            last = spdy.Reset(2 * forwarding.STREAMS_MAX + 1)
            assert last in await tunnelled(wire, dial, lambda events: last in events)

    told(story)


def test_what_is_no_spdy_ends_the_tunnel() -> None:
    async def story() -> None:
        async with echo() as dial:
            wire = Wire()
            wire.say(b"GET / HTTP/1.1\r\n\r\n")
            await forwarding.Tunnel(wire.socket, dial).run()

    told(story)


def test_the_older_channels_name_their_ports_and_tell_what_fails() -> None:
    async def story() -> None:
        async with echo() as dial:
            wire = Wire()
            running = asyncio.create_task(forwarding.Channels(wire.socket, dial, [7, 9]).run())
            while len(wire.messages) < 5:  # noqa: ASYNC110  only the sockets know when
                await asyncio.sleep(0)
            assert wire.messages[:2] == [b"\x00\x07\x00", b"\x01\x07\x00"]
            assert b"nobody listens on 9" in wire.channel(3)
            wire.say(b"\x00hello")
            wire.say(b"\x09beyond")
            wire.leave()
            await running

    told(story)
