"""WebSockets between callers and instances of functions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import pytest
from support.functions import Program, Stage, Talk, service, stage

Object = dict[str, Any]
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accepting(*, protocol: bytes = b"", proof: bytes = b"") -> bytes:
    """The answer of an instance that accepts, but for the proof, which depends on the key."""
    line = b"sec-websocket-protocol: %b\r\n" % protocol if protocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %b\r\n%b\r\n" % (proof, line)
    )


async def asked(reader: asyncio.StreamReader) -> tuple[list[bytes], bytes]:
    """The lines of the handshake, and the proof that it was read."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    (key,) = [line.split(b": ")[1] for line in lines if line.startswith(b"sec-websocket-key")]
    return lines, base64.b64encode(hashlib.sha1(key + MAGIC).digest())


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(first byte, unmasked data) of a frame of a client."""
    first, second = await reader.readexactly(2)
    assert second & 0x80, "clients mask"
    size = second & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    mask = await reader.readexactly(4)
    data = await reader.readexactly(size)
    return first, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def talking(conversation: Any, *, protocol: bytes = b"") -> Program:
    """An instance that accepts, and then does this."""

    async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines, proof = await asked(reader)
        assert lines[0] == b"GET /talk?a=b HTTP/1.1"
        assert not any(b"extensions" in line for line in lines)
        writer.write(accepting(protocol=protocol, proof=proof))
        await conversation(reader, writer)

    return program


async def opened(on: Stage, program: Program, *protocols: str) -> Talk:
    await on.ready(service())
    on.program = program
    return on.talk("hello.default.acme.functions.localhost", *protocols)


def test_messages_go_both_ways_and_an_end_ends_both() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            first, data = await read_frame(reader)
            if first & 15 == 8:
                return
            if len(data) < 126:
                writer.write(bytes((first, len(data))) + data)
            else:
                writer.write(bytes((first, 127)) + len(data).to_bytes(8) + data)
            if data == b"bye":
                writer.write(b"\x88\x02\x0b\xb8")

    async def story(on: Stage) -> None:
        talk = await opened(on, talking(echo, protocol=b"chat"), "chat", "other")
        talk.say("hello")
        talk.say(data=b"\x00" * 70_000)
        talk.say("bye")
        await asyncio.wait_for(talk.task, 10)
        assert talk.heard == [
            {"type": "websocket.accept", "subprotocol": "chat", "headers": []},
            {"type": "websocket.send", "text": "hello"},
            {"type": "websocket.send", "bytes": b"\x00" * 70_000},
            {"type": "websocket.send", "text": "bye"},
            {"type": "websocket.close", "code": 3000},
        ]
        assert on.backend().meter.level == 0

    stage(story)


def test_pings_are_answered_and_parts_are_put_together() -> None:
    heard = []

    async def parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x89\x02hi" + b"\x01\x03one" + b"\x8a\x00" + b"\x00\x03two" + b"\x80\x05three")
        heard.append(await read_frame(reader))
        writer.write(b"\x88\x00")

    async def story(on: Stage) -> None:
        talk = await opened(on, talking(parts))
        await asyncio.wait_for(talk.task, 10)
        assert [each.get("text") for each in talk.heard] == [None, "onetwothree", None]
        assert heard == [(0x8A, b"hi")]

    stage(story)


def test_an_instance_hears_when_its_caller_goes() -> None:
    heard = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await read_frame(reader))

    async def story(on: Stage) -> None:
        talk = await opened(on, talking(listen))
        await on.until(lambda: talk.heard)
        talk.go()
        await asyncio.wait_for(talk.task, 10)
        await on.until(lambda: heard or on.backend().meter.level == 0)
        assert [each.in_flight for each in on.backend().instances.values()] == [0]

    stage(story)


@pytest.mark.parametrize(
    "said",
    [
        b"\x81\x85\x00\x00\x00\x00hello",
        b"\xc1\x00",
        b"\x80\x00",
        b"\x01\x01a\x01\x01b",
        b"\x83\x00",
        b"\x09\x00",
        b"\x89\x7e\x00\x80" + b"x" * 128,
        b"\x81\x02\xff\xff",
        b"\x82\x7f\x7f" + b"\xff" * 7,
        b"\x81\x05hel",
    ],
)
def test_frames_that_are_none_end_the_conversation(said: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async def story(on: Stage) -> None:
        talk = await opened(on, talking(nonsense))
        await asyncio.wait_for(talk.task, 10)
        assert [each["type"] for each in talk.heard] == ["websocket.accept", "websocket.close"]
        assert talk.heard[1]["code"] == 1011

    stage(story)


def test_who_does_not_accept_is_passed_on_and_who_pretends_to_is_a_bad_gateway() -> None:
    async def no(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nx-why: you\r\n\r\nno")

    async def lie(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        writer.write(accepting(proof=b"bm8="))

    async def story(on: Stage) -> None:
        talk = await opened(on, no)
        await asyncio.wait_for(talk.task, 10)
        start, body = talk.heard
        assert (start["status"], body["body"]) == (403, b"no") and (b"x-why", b"you") in start["headers"]
        on.program = lie
        for program, protocols in ((lie, ()), (talking(lambda *_: None, protocol=b"other"), ("chat",))):
            on.program = program
            talk = on.talk("hello.default.acme.functions.localhost", *protocols)
            await asyncio.wait_for(talk.task, 10)
            assert talk.heard[0]["status"] == 502

    stage(story)


def test_a_conversation_with_nobody_is_refused_in_plain_http() -> None:
    async def story(on: Stage) -> None:
        talk = on.talk("nobody.default.acme.functions.localhost")
        await asyncio.wait_for(talk.task, 10)
        assert talk.heard[0] == {
            "type": "websocket.http.response.start",
            "status": 404,
            "headers": [(b"content-type", b"application/json")],
        }

    stage(story)
