"""Functions that speak HTTP/2, as gRPC does: what they are asked, and what becomes of what they answer."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest
from h2.errors import ErrorCodes
from support.functions import DOMAIN, Stage, service, stage
from support.http2 import Speaker
from support.world import AGENT

from walras.functions import client

Object = dict[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
CALL = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
BYE = [(b"grpc-status", b"0"), (b"said-last", b"bye")]


def speaking() -> Object:
    made = service()
    made["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"name": "h2c", "containerPort": 8080}]
    return made


async def echo(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    speaker = Speaker(reader, writer)
    while True:
        try:
            number, _ = await speaker.request()
        except EOFError:
            return
        speaker.answer(number, speaker.bodies[number], BYE)


async def asked(on: Stage, **said: Any) -> Any:
    return await on.get(**{"method": "POST", "headers": CALL, "trailers": True, **said})


def refused(answer: Any) -> tuple[int, str]:
    """What gRPC is told in the place of an answer."""
    said = dict(answer.headers)
    assert answer.status == 200 and said[b"content-type"] == b"application/grpc" and answer.whole
    return int(said[b"grpc-status"]), unquote(said[b"grpc-message"].decode())


def test_a_call_is_passed_on_in_http2_and_its_trailers_come_back() -> None:
    async def story(on: Stage) -> None:
        heads = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            number, head = await speaker.request()
            heads.append(head)
            speaker.answer(number, speaker.bodies[number], BYE)
            await reader.read()

        await on.ready(speaking())
        on.program = program
        answer = await asked(on, body=(b"one", b"two" * 4_000), headers=(*CALL, (b"connection", b"x-hop")))
        assert answer.body == b"one" + b"two" * 4_000 and answer.trailers == BYE and answer.whole
        host = f"hello.default.{AGENT}.{DOMAIN}".encode()
        (head,) = heads
        assert head[:4] == [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/"),
            (b":authority", host),
        ]
        assert (b"te", b"trailers") in head and not any(name == b"connection" for name, _ in head)

    stage(story)


def test_a_call_to_a_function_at_zero_is_held_and_a_connection_is_used_again() -> None:
    async def story(on: Stage) -> None:
        on.program = echo
        await on.ready(speaking())
        await on.idle()
        assert not on.world.pods()
        on.dialed.clear()
        call = on.call(method="POST", headers=CALL, body=(b"hi",), trailers=True)
        await on.until(on.world.pods)
        await on.run_all()
        assert (await call.task).body == b"hi"
        before = len(on.dialed)
        for _ in range(5):
            assert (await asked(on, body=(b"again",))).body == b"again"
        assert len(on.dialed) == before

    stage(story)


def test_a_head_that_is_all_of_an_answer_stays_one() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            number, _ = await speaker.request()
            speaker.h2.send_headers(number, [(b":status", b"200"), (b"grpc-status", b"5")], end_stream=True)
            speaker.flush()
            await reader.read()

        await on.ready(speaking())
        on.program = program
        answer = await asked(on)
        assert answer.headers == [(b"grpc-status", b"5")] and answer.whole and not answer.trailers

    stage(story)


def test_an_answer_begins_before_its_request_has_ended() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            speaker.h2.receive_data(await reader.read(65_536))
            speaker.h2.send_headers(1, [(b":status", b"200"), (b"said-first", b"hello")])
            speaker.flush()
            await reader.read()

        await on.ready(speaking())
        on.program = program
        call = on.call(method="POST", headers=CALL, body=(b"one",), is_whole=False, trailers=True)
        await on.until(lambda: call.answer.status)
        assert call.answer.headers == [(b"said-first", b"hello")]
        call.gone.set()
        await call.task

    stage(story)


def test_a_body_waits_for_the_room_that_the_instance_gives() -> None:
    async def story(on: Stage) -> None:
        gate, speakers = asyncio.Event(), []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            speakers.append(speaker)
            speaker.flush()
            had = 0
            while had < 65_535:
                for event in speaker.h2.receive_data(await reader.read(65_536)):
                    had += getattr(event, "flow_controlled_length", None) or 0
            assert had == 65_535
            await gate.wait()
            speaker.bodies[1] = b""
            speaker.h2.acknowledge_received_data(had, 1)
            await speaker.request()
            speaker.answer(1, b"%d" % (had + len(speaker.bodies[1])), BYE)
            await reader.read()

        await on.ready(speaking())
        on.program = program
        call = on.call(method="POST", headers=CALL, body=(b"x" * 30_000,) * 10, trailers=True)
        await on.until(lambda: speakers)
        await on.world.settle()
        assert not call.answer.status
        gate.set()
        assert (await asyncio.wait_for(call.task, 10)).body == b"300000"

    stage(story)


# Instances that go, and enemies


@pytest.mark.parametrize("by", ["goaway", "reset"])
def test_what_an_instance_says_it_has_not_done_is_asked_again(by: str) -> None:
    async def story(on: Stage) -> None:
        asked_for = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            number, _ = await speaker.request()
            asked_for.append(speaker.bodies[number])
            if len(asked_for) > 1:
                speaker.answer(number, b"done", BYE)
            elif by == "goaway":
                speaker.h2.close_connection(last_stream_id=0)
            else:
                speaker.h2.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            speaker.flush()
            await reader.read()

        await on.ready(speaking())
        on.program = program
        answer = await asked(on, body=(b"a", b"b"))
        assert answer.body == b"done" and asked_for == [b"ab", b"ab"]

    stage(story)


def test_an_instance_that_is_to_go_ends_what_it_has_and_is_asked_on_another_connection() -> None:
    async def story(on: Stage) -> None:
        connections = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(pod)
            speaker = Speaker(reader, writer)
            number, _ = await speaker.request()
            # A GOAWAY that leaves this stream be.
            speaker.flush()
            writer.write(bytes((0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, number, 0, 0, 0, 0)))
            speaker.answer(number, b"done", BYE)
            await reader.read()

        await on.ready(speaking())
        on.program = program
        for _ in range(2):
            answer = await asked(on)
            assert answer.body == b"done" and answer.trailers == BYE
        assert len(connections) == 2

    stage(story)


async def speak_old(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65_536)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await reader.read()


async def promise_much(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65_536)
    writer.write(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + b"\xff\xff\xff" + bytes((0, 0, 0, 0, 0, 1)))
    await reader.read()


async def say_much(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    speaker = Speaker(reader, writer)
    number, _ = await speaker.request()
    speaker.h2.send_headers(number, [(b":status", b"200"), *((b"x-%d" % each, b"") for each in range(300))])
    speaker.flush()
    await reader.read()


async def lie(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    speaker = Speaker(reader, writer)
    number, _ = await speaker.request()
    speaker.h2.send_headers(number, [(b":status", b"200"), (b"x", b"a\r\nset-cookie: b")])
    speaker.flush()
    await reader.read()


async def hang_up(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(65_536)


async def reset(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    speaker = Speaker(reader, writer)
    number, _ = await speaker.request()
    speaker.h2.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
    speaker.flush()
    await reader.read()


@pytest.mark.parametrize("program", [speak_old, promise_much, say_much, lie, hang_up, reset])
def test_an_instance_that_does_not_answer_as_http2_has_it_is_a_bad_gateway(program: Any) -> None:
    async def story(on: Stage) -> None:
        await on.ready(speaking())
        on.program = program
        code, message = refused(await asked(on))
        assert code == 14 and "the instance did not answer" in message
        assert (await on.get(trailers=True)).status == 502

    stage(story)


def test_an_answer_that_is_broken_off_is_no_whole_one() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            number, _ = await speaker.request()
            speaker.h2.send_headers(number, [(b":status", b"200")])
            speaker.h2.send_data(number, b"half")
            speaker.flush()

        await on.ready(speaking())
        on.program = program
        call = on.call(trailers=True)
        with pytest.raises(ConnectionResetError):
            await call.task
        assert not call.answer.whole
        # Who speaks gRPC is told by the trailers.
        answer = await asked(on)
        said = dict(answer.trailers)
        assert answer.body == b"half" and said[b"grpc-status"] == b"14"
        assert b"the instance broke its answer off" in said[b"grpc-message"]

    stage(story)


def test_a_call_that_takes_longer_than_the_revision_gives_it_ends_as_deadline_exceeded() -> None:
    async def story(on: Stage) -> None:
        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            speaker = Speaker(reader, writer)
            number, _ = await speaker.request()
            speaker.h2.send_headers(number, [(b":status", b"200")])
            speaker.flush()
            await reader.read()

        made = speaking()
        made["spec"]["template"]["spec"] |= {"timeoutSeconds": 300, "idleTimeoutSeconds": 1}
        await on.ready(made)
        on.program = program
        answer = await asked(on)
        assert answer.status == 200 and dict(answer.trailers)[b"grpc-status"] == b"4"

    stage(story)


def test_the_body_of_a_call_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(on: Stage) -> None:
        await on.ready(speaking())
        on.program = echo
        assert refused(await asked(on, body=(b"x" * 6, b"x" * 6)))[0] == 8

    monkeypatch.setattr(client, "BODY_BYTES_MAX", 10)
    stage(story)


@pytest.mark.parametrize("pieces", [(b"",), (b"x",), (b"x", b"y")])
def test_a_body_that_is_not_as_long_as_it_says_is_refused(pieces: tuple[bytes, ...]) -> None:
    async def story(on: Stage) -> None:
        await on.ready(speaking())
        on.program = echo
        length = (b"content-length", b"10")
        code, message = refused(await asked(on, headers=(*CALL, length), body=pieces))
        assert code == 13 and "not as long" in message
        assert (await asked(on, headers=(*CALL, length), body=(b"x" * 10,))).body == b"x" * 10

    stage(story)


# Who cannot be served


def test_who_cannot_be_told_trailers_hears_where_grpc_is_spoken() -> None:
    async def story(on: Stage) -> None:
        on.program = echo
        await on.ready(speaking())
        code, message = refused(await asked(on, trailers=False))
        assert code == 12 and "port 81" in message
        # What is no gRPC does without, and so does gRPC-Web.
        web = ((b"content-type", b"application/grpc-web+proto"),)
        assert (await on.get(method="POST", headers=web, body=(b"hi",))).body == b"hi"
        assert (await on.get(method="POST", body=(b"hi",))).body == b"hi"
        talk = on.talk()
        await talk.task
        assert talk.heard[0]["status"] == 400

    stage(story)


def test_refusals_reach_grpc_in_its_own_words() -> None:
    async def story(on: Stage) -> None:
        code, message = refused(await asked(on, host=f"nobody.default.{AGENT}.{DOMAIN}"))
        assert (code, message) == (12, "no function is at this host")

    stage(story)


def test_the_url_of_what_speaks_http2_is_at_its_own_port() -> None:
    async def story(on: Stage) -> None:
        on.program = echo
        await on.ready(speaking())
        assert on.status()["url"] == f"http://hello.default.{AGENT}.{DOMAIN}:81"
        traffic = [
            {"revisionName": "hello-00001", "percent": 100, "tag": "old"},
            {"latestRevision": True, "tag": "new"},
        ]
        await on.ready(service(says="two", traffic=traffic))
        await on.world.settle()
        urls = {each["tag"]: each["url"] for each in on.status()["traffic"]}
        assert urls["old"].endswith(":81") and not urls["new"].endswith(":81")

    stage(story)
