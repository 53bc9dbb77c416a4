"""What instances are sent of a request, and what of their answers goes back to who asked."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from support.functions import DOMAIN, Stage, service, stage
from support.world import AGENT

from walras.functions import client

Object = dict[str, Any]


# Both ways


def test_bodies_go_both_ways_in_pieces_as_they_come() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head and b"content-length" not in head
            writer.write(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nset-cookie: a\r\nset-cookie: b\r\n\r\n"
            )
            while size := int(await reader.readuntil(b"\r\n"), 16):
                data = await reader.readexactly(size + 2)
                writer.write(b"%x\r\n%b" % (size, data))
                await writer.drain()
            writer.write(b"0\r\n\r\n")

        await on.ready(service())
        on.program = program
        pieces = (b"one", b"two" * 50_000, b"three")
        answer = await on.get(method="POST", body=pieces)
        assert answer.status == 200 and answer.body == b"".join(pieces) and answer.whole
        assert [value for name, value in answer.headers if name == b"set-cookie"] == [b"a", b"b"]
        assert not any(name == b"transfer-encoding" for name, _ in answer.headers)

    stage(story)


def test_what_is_about_one_connection_or_forged_is_not_passed_on() -> None:
    async def story(on: Stage) -> None:
        heads = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(
                b"HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nx-end: 1\r\ncontent-length: 0\r\n\r\n"
            )

        await on.ready(service())
        on.program = program
        answer = await on.get(
            headers=(
                (b"connection", b"close, x-secret"),
                (b"x-secret", b"1"),
                (b"te", b"trailers"),
                (b"upgrade", b"h2c"),
                (b"x-forwarded-for", b"10.0.0.1"),
                (b"x-forwarded-proto", b"https"),
                (b"forwarded", b"for=10.0.0.1"),
                (b"cookie", b"a=1"),
                (b"cookie", b"b=2"),
                (b"authorization", b"Basic mine"),
            )
        )
        (head,) = heads
        lines = head.decode().strip().split("\r\n")
        assert lines[0] == "GET / HTTP/1.1"
        assert dict(line.split(": ", 1) for line in lines[1:]) == {
            "host": f"hello.default.{AGENT}.{DOMAIN}",
            "authorization": "Basic mine",
            "cookie": "a=1; b=2",
            "x-forwarded-for": "10.0.0.1, 192.0.2.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": f"hello.default.{AGENT}.{DOMAIN}",
        }
        assert [name for name, _ in answer.headers] == [b"x-end", b"content-length"]

    stage(story)


@pytest.mark.parametrize("pieces", [(b"x" * 11,), (b"x" * 6, b"x" * 6)])
def test_the_body_of_a_request_is_bounded(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BODY_BYTES_MAX", 10)

    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        await on.ready(service())
        on.program = program
        assert (await on.get(method="POST", body=pieces)).status == 413

    stage(story)


def test_a_client_that_goes_away_ends_its_request_at_the_instance() -> None:
    async def story(on: Stage) -> None:
        ended = asyncio.Event()

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nevents")
            try:
                await reader.read()
            finally:
                ended.set()

        await on.ready(service())
        on.program = program
        call = on.call()
        await on.until(lambda: call.answer.body == b"events")
        call.gone.set()
        await asyncio.wait_for(ended.wait(), 5)
        await on.until(lambda: on.backend().meter.level == 0)
        assert [each.in_flight for each in on.backend().instances.values()] == [0]

    stage(story)


@pytest.mark.parametrize("pieces", [(b"",), (b"x" * 9,), (b"x", b"y"), (b"x" * 6, b"x" * 6)])
def test_what_comes_after_a_body_of_the_wrong_length_does_not_pass_for_the_rest_of_it(
    pieces: tuple[bytes, ...],
) -> None:
    async def story(on: Stage) -> None:
        """The instance answers before it has read the body, and reads the body before the next request."""
        heads = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                heads.append(head := await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                if b"content-length: 10" in head:
                    await reader.readexactly(10)

        await on.ready(service())
        on.program = program
        length = ((b"content-length", b"10"),)
        answer = await on.get(method="POST", headers=length, body=pieces)
        # Of what comes in several pieces the answer may be there before the last of them.
        assert answer.status == 400 or len(pieces) > 1
        assert (await on.get(path="/next")).status == 200
        assert heads[-1].startswith(b"GET /next ")
        assert (await on.get(method="POST", headers=length, body=(b"x" * 10,))).status == 200

    stage(story)


@pytest.mark.parametrize("method", ["CONNECT", "get", "G T", ""])
def test_what_is_no_request_for_a_function_is_refused(method: str) -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        assert (await on.get(method=method)).status == 400

    stage(story)


# Connections


def test_a_connection_is_used_again() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        on.dialed.clear()
        for _ in range(5):
            assert (await on.get()).status == 200
        assert len(on.dialed) == 1

    stage(story)


def test_a_kept_connection_that_ends_before_it_answers_costs_only_who_cannot_ask_twice() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")

        await on.ready(service())
        on.program = program
        on.dialed.clear()
        assert [(await on.get()).status for _ in range(3)] == [200, 200, 200]
        assert len(on.dialed) == 3
        assert (await on.get(method="POST", body=(b"pay",))).status == 502

    stage(story)


def test_a_request_that_ends_its_instance_does_not_end_the_next() -> None:
    async def story(on: Stage) -> None:
        asked = set()

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            name = str(pod["metadata"]["name"])
            while head := await reader.readuntil(b"\r\n\r\n"):
                asked.add(name)
                if head.startswith(b"GET /die "):
                    on.dead.add(name)
                    return
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        await on.ready(service(min_scale="2"))
        on.program = program
        while len(asked) < 2:
            # Each of them keeps its connection.
            for each in (on.call(), on.call()):
                assert (await each.task).status == 200
        assert (await on.get(path="/die")).status == 502
        assert len(on.dead) == 1
        assert (await on.get()).status == 200

    stage(story)


def test_a_request_is_sent_once_however_it_ends() -> None:
    async def story(on: Stage) -> None:
        seen = Counter[str]()

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            seen[head.split(b" ")[0].decode()] += 1

        await on.ready(service(min_scale="2"))
        on.program = program
        assert (await on.get(method="POST", body=(b"pay",))).status == 502
        assert seen == {"POST": 1}

    stage(story)


# Instances that do not answer as they should


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_a_bad_gateway(said: bytes) -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await writer.drain()

        await on.ready(service())
        on.program = program
        answer = await on.get()
        assert (answer.status, answer.reason) == (502, "BadGateway")

    stage(story)


def test_an_answer_that_is_broken_off_does_not_pass_for_a_whole_one() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            await writer.drain()

        await on.ready(service())
        on.program = program
        call = on.call()
        with pytest.raises(ConnectionResetError):
            await call.task
        assert call.answer.body == b"half" and not call.answer.whole

    stage(story)


def test_an_instance_that_takes_too_long_is_a_timeout() -> None:
    async def story(on: Stage) -> None:
        on.hold(asyncio.Event())
        await on.ready(service())
        on.backend().limits = replace(on.backend().limits, timeout_ms=1)
        answer = await on.get()
        assert (answer.status, answer.reason) == (504, "Timeout")

    stage(story)


def test_nothing_goes_on_for_a_request_that_ends_before_its_body_does() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")

        await on.ready(service())
        on.program = program
        before = asyncio.all_tasks()
        assert (await on.get(method="POST", body=(b"first",), is_whole=False)).status == 502
        await on.until(lambda: not asyncio.all_tasks() - before)

    stage(story)
