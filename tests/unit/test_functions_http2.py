"""Clients in HTTP/2, kind and hostile ones: what they may have, and what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from itertools import count
from typing import Any

import h2.frame_buffer
import pytest
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, HeadersFrame
from support.http2 import GET, POST, Peer, Wire

from walras.functions import http2, listener
from walras.functions.guard import FRAMES_MAX
from walras.functions.http2 import RESETS_MAX, STREAMS_MAX, Session
from walras.functions.listener import Listener
from walras.functions.protocol import H2
from walras.kube.serve.fair import Fair

Scope = Mapping[str, Any]
START = {"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")], "trailers": True}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 30))


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def polite(scope: Scope, receive: Any, send: Any) -> None:
    """Answers with what it was sent."""
    await send(START)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        await send(body(message["body"], more=message["more_body"]))
        if not message["more_body"]:
            await send(TRAILERS)
            return


async def idle(scope: Scope, receive: Any, send: Any) -> None:
    """Neither reads nor answers, until its client goes."""
    await asyncio.Event().wait()


class Listening:
    """Hears one thing of each request, and counts them."""

    asked = 0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        self.asked += 1
        await receive()


def test_a_request_is_told_as_asgi_has_it_and_answered_with_trailers() -> None:
    async def story() -> None:
        scopes = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await polite(scope, receive, send)

        peer = Peer(app)
        number = peer.ask([*POST, (b"te", b"trailers"), (b"host", b"h")], ends=False)
        await peer.exchange()
        peer.h2.send_data(number, b"hello", end_stream=True)
        await peer.exchange()
        (scope,) = scopes
        said = scope["method"], scope["raw_path"], scope["query_string"], scope["client"]
        assert said == ("POST", b"/a", b"b=c", ("192.0.2.1", 1234))
        assert scope["headers"] == [(b"host", b"h"), (b"te", b"trailers")]
        (head,), (trailers,) = peer.heard(ResponseReceived), peer.heard(TrailersReceived)
        assert (b":status", b"200") in head.headers and trailers.headers == [(b"grpc-status", b"0")]
        assert peer.body(number) == b"hello" and len(peer.heard(StreamEnded)) == 1
        assert not peer.session.streams

    run(story())


def test_a_head_that_is_all_ends_the_stream_by_itself() -> None:
    async def story() -> None:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await send({**START, "trailers": False})
            await send(body(b""))

        peer = Peer(app)
        peer.ask()
        await peer.exchange()
        (head,) = peer.heard(ResponseReceived)
        assert head.stream_ended is not None and not peer.heard(DataReceived)

    run(story())


def test_an_answer_that_is_broken_off_does_not_pass_for_a_whole_one() -> None:
    async def story() -> None:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"half", more=True))
            raise ConnectionResetError("the instance is gone")

        peer = Peer(app)
        number = peer.ask()
        await peer.exchange()
        (reset,) = peer.heard(StreamReset)
        assert (reset.stream_id, reset.error_code) == (number, ErrorCodes.INTERNAL_ERROR)
        assert not peer.heard(StreamEnded) and peer.body(number) == b"half"

    run(story())


# The pace of both


def test_a_body_that_nobody_takes_stays_with_its_client() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await gate.wait()
            await polite(scope, receive, send)

        peer = Peer(app)
        number = peer.ask(POST, ends=False)
        await peer.exchange()
        room = peer.h2.local_flow_control_window(number)
        assert room == 65_535
        for _ in range(4):
            peer.h2.send_data(number, b"x" * 16_000)
        peer.h2.send_data(number, b"x" * (room - 64_000))
        await peer.exchange()
        assert peer.h2.local_flow_control_window(number) == 0
        gate.set()
        await peer.exchange()
        assert peer.h2.local_flow_control_window(number) > 60_000

    run(story())


def test_an_answer_that_its_client_has_no_room_for_waits() -> None:
    async def story() -> None:
        sent = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await send({**START, "trailers": False})
            for number in range(10):
                await send(body(b"x" * 20_000, more=number < 9))
                sent.append(number)

        peer = Peer(app)
        number = peer.ask()
        await peer.exchange()
        assert len(peer.body(number)) == 65_535 and sent == [0, 1, 2]
        peer.h2.increment_flow_control_window(200_000)
        peer.h2.increment_flow_control_window(200_000, number)
        await peer.exchange()
        assert len(peer.body(number)) == 200_000 and len(peer.heard(StreamEnded)) == 1

    run(story())


def test_a_client_that_takes_nothing_is_not_listened_to() -> None:
    async def story() -> None:
        peer = Peer(polite)
        peer.session.pause_writing()
        assert not peer.wire.is_reading()
        number = peer.ask(POST, ends=False)
        peer.h2.send_data(number, b"x" * 10_000, end_stream=True)
        await peer.exchange()
        assert not peer.heard(StreamEnded)
        peer.session.resume_writing()
        assert peer.wire.is_reading()
        await peer.exchange()
        assert len(peer.heard(StreamEnded)) == 1

    run(story())


def test_who_goes_or_takes_a_request_back_is_told_of_to_the_function() -> None:
    async def story() -> None:
        heard = []

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            while (message := await receive())["type"] != "http.disconnect":
                pass
            heard.append(message["type"])

        peer = Peer(app)
        first, _ = peer.ask(), peer.ask()
        await peer.exchange()
        peer.h2.reset_stream(first, ErrorCodes.CANCEL)
        await peer.exchange()
        assert heard == ["http.disconnect"]
        peer.session.connection_lost(None)
        await asyncio.sleep(0.01)
        assert heard == ["http.disconnect"] * 2

    run(story())


# Enemies


def test_whoever_takes_requests_back_again_and_again_is_sent_away() -> None:
    async def story() -> None:
        app = Listening()
        peer = Peer(app)
        await peer.exchange()
        for _ in range(1000):
            peer.h2.reset_stream(peer.ask(), ErrorCodes.CANCEL)
            peer.give(peer.h2.data_to_send())
            await asyncio.sleep(0)
        assert peer.wire.closed and app.asked <= RESETS_MAX + 1
        peer.events += peer.h2.receive_data(bytes(peer.wire.written))
        (end,) = peer.heard(ConnectionTerminated)
        assert end.error_code == ErrorCodes.ENHANCE_YOUR_CALM

    run(story())


def test_whoever_has_requests_reset_again_and_again_is_sent_away_too() -> None:
    async def story() -> None:
        app = Listening()
        peer = Peer(app)
        await peer.exchange()
        peer.h2.remote_settings.update({3: 10_000})
        peer.h2.remote_settings.acknowledge()
        for _ in range(1000):
            number = peer.ask(POST, ends=False)
            # More room for the answer than there can be is an error of the stream alone.
            overflow = bytes((0, 0, 4, 8, 0)) + number.to_bytes(4) + (2**31 - 1).to_bytes(4)
            peer.give(peer.h2.data_to_send() + overflow)
            await asyncio.sleep(0)
        assert peer.wire.closed and app.asked <= RESETS_MAX + 1

    run(story())


def test_whoever_lets_requests_end_may_take_some_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "RESETS_MAX", 10)

    async def story() -> None:
        peer = Peer(polite)
        for _ in range(20):
            peer.ask()
            await peer.exchange()
            peer.h2.reset_stream(peer.ask(POST, ends=False), ErrorCodes.CANCEL)
            await peer.exchange()
        assert not peer.wire.closed

    run(story())


def test_more_streams_at_once_than_were_agreed_on_end_the_connection() -> None:
    async def story() -> None:
        peer = Peer(idle)
        await peer.exchange()
        for _ in range(STREAMS_MAX):
            peer.ask()
        await peer.exchange()
        assert len(peer.session.streams) == STREAMS_MAX and not peer.wire.closed
        peer.h2.remote_settings.update({3: 10_000})
        peer.h2.remote_settings.acknowledge()
        peer.ask()
        await peer.exchange()
        assert peer.wire.closed

    run(story())


@pytest.mark.parametrize(
    "headers",
    [
        [*GET, (b"x", b"y" * 70_000)],
        # A bomb: little on the wire, much when it is unpacked.
        [*GET, *([(b"x-bomb", b"y" * 4000)] * 200)],
    ],
)
def test_a_head_that_is_too_large_is_never_a_request(headers: list[tuple[bytes, bytes]]) -> None:
    async def story() -> None:
        async def app(scope: Scope, receive: Any, send: Any) -> None:
            raise AssertionError("it was asked")

        peer = Peer(app)
        await peer.exchange()
        peer.h2.remote_settings.update({6: 10_000_000})
        peer.ask(headers)
        await peer.exchange()
        assert not peer.session.streams and peer.wire.closed

    run(story())


@pytest.mark.parametrize(
    "headers",
    [
        [*GET, *((b"x-%d" % number, b"") for number in range(300))],
        [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"*"), (b":authority", b"h")],
        [(b":method", b"G T"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")],
    ],
)
def test_a_head_that_is_no_requests_resets_its_stream_alone(headers: list[tuple[bytes, bytes]]) -> None:
    async def story() -> None:
        peer = Peer(polite)
        await peer.exchange()
        bad, good = peer.ask(headers), peer.ask()
        await peer.exchange()
        assert [each.stream_id for each in peer.heard(StreamReset)] == [bad]
        assert [each.stream_id for each in peer.heard(StreamEnded)] == [good]

    run(story())


SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def part(kind: int, size: int = 16_384) -> bytes:
    """A frame of the first stream that is not the last of its head."""
    return size.to_bytes(3) + bytes((kind, 0, 0, 0, 0, 1)) + bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        bytes(64),
        b"PRI * HTTP/3",
        # The beginning of a frame of 16 MiB; data of no stream; a head of more than 64 KiB, before its end.
        http2.PREFACE + b"\xff\xff\xff" + bytes(6),
        http2.PREFACE + SETTINGS + bytes((0, 0, 1, 0, 0, 0, 0, 0, 0, 1)),
        http2.PREFACE + SETTINGS + part(1) + part(9) * 4,
    ],
)
def test_what_is_no_http_ends_the_connection(data: bytes) -> None:
    async def story() -> None:
        peer = Peer(polite)
        peer.give(data)
        assert peer.wire.closed

    run(story())


def test_the_first_words_may_come_in_pieces_and_old_ones_are_told_so() -> None:
    async def story() -> None:
        peer = Peer(polite)
        number = peer.ask()
        for byte in peer.h2.data_to_send():
            peer.give(bytes((byte,)))
        await peer.exchange()
        assert [each.stream_id for each in peer.heard(StreamEnded)] == [number]
        old = Peer(polite)
        old.give(b"GET / HTTP/1.1\r\n")
        head, _, text = bytes(old.wire.written).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 505 ") and b"content-length: %d" % len(text) in head

    run(story())


def test_what_is_read_is_paid_for_by_whose_function_is_asked_and_waits_its_turn() -> None:
    async def story() -> None:
        times = count(0, 100_000)
        fair = Fair(lambda: next(times))

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            scope["walras.pays"]("one")
            await asyncio.Event().wait()

        peer = Peer(app, fair)
        number = peer.ask(POST, ends=False)
        await peer.exchange()
        others = [await fair.turn(("two", ""), "") for _ in range(64)]
        reads = 0
        while peer.wire.reads and reads < 100:
            reads += 1
            peer.h2.send_data(number, b"x")
            peer.give(peer.h2.data_to_send())
        # Two reads are a part of 0.2 ms.
        assert reads == 2
        await asyncio.sleep(0)
        for turn in others:
            turn.leave()
        for _ in range(10):
            await asyncio.sleep(0)
        assert peer.wire.is_reading()

    run(story())


def test_a_flood_of_small_frames_is_read_a_few_at_a_time() -> None:
    async def story() -> None:
        peer = Peer(polite)
        await peer.exchange()
        steps = list[int]()
        plain = peer.session._h2.receive_data

        def counted(data: bytes) -> Any:
            steps.append(len(data))
            return plain(data)

        peer.session._h2.receive_data = counted  # type: ignore[method-assign, assignment]
        for _ in range(1000):
            peer.h2.ping(b"12345678")
        number = peer.ask()
        peer.give(peer.h2.data_to_send())
        # A ping has 17 bytes; all but a few are left, and nothing more is taken from the socket.
        assert sum(steps) <= 17 * (FRAMES_MAX + 1) and not peer.wire.is_reading()
        for _ in range(200):
            await asyncio.sleep(0)
        assert max(steps) <= 17 * (FRAMES_MAX + 1) and peer.wire.is_reading()
        await peer.exchange()
        assert [each.stream_id for each in peer.heard(StreamEnded)] == [number]

    run(story())


def test_no_more_of_answers_is_remembered_than_is_usual_whatever_the_client_asks_for() -> None:
    async def story() -> None:
        number = count()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            headers = [(b"x-%d" % next(number), b"y" * 1000) for _ in range(10)]
            await send({**START, "headers": headers, "trailers": False})
            await send(body(b""))

        peer = Peer(app)
        for round_ in range(5):
            for size in (1 << 30, 0, 4096 >> round_, 1 << 20, 1 << 30):
                peer.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
                await peer.exchange()
            encoder = peer.session.h2.encoder
            assert len(encoder.table_size_changes) <= 2
            peer.ask()
            await peer.exchange()
            table = encoder.header_table
            assert 0 < sum(len(name) + len(value) + 32 for name, value in table.dynamic_entries) <= 4096
        heads = peer.heard(ResponseReceived)
        assert [head.headers[-1] for head in heads] == [
            (b"x-%d" % each, b"y" * 1000) for each in range(9, 50, 10)
        ]

    run(story())


def test_what_comes_late_for_a_stream_that_is_long_over_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        peer = Peer(polite)
        for _ in range(10):
            peer.ask()
            await peer.exchange()
        assert len(peer.session.h2._closed_streams) <= 2
        peer.give(
            bytes((0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 9)) + bytes((0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8))
        )
        number = peer.ask()
        await peer.exchange()
        assert not peer.wire.closed and peer.heard(StreamEnded, number)

    monkeypatch.setattr(H2, "MAX_CLOSED_STREAMS", 2)
    run(story())


def test_a_client_that_says_it_goes_hears_what_it_has_asked_for() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await gate.wait()
            await polite(scope, receive, send)

        peer = Peer(app)
        number = peer.ask()
        await peer.exchange()
        peer.give(GoAwayFrame(0).serialize())
        assert not peer.wire.is_closing()
        gate.set()
        await asyncio.sleep(0.01)
        assert peer.wire.is_closing() and not peer.session.streams
        said = h2.frame_buffer.FrameBuffer()
        said.max_frame_size = 1 << 20
        said.add_data(bytes(peer.wire.written))
        last: Any = list(said)[-1]
        assert last.stream_id == number and "END_STREAM" in last.flags

    run(story())


def test_there_are_only_so_many_connections_and_idle_ones_are_told_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        sessions = Listener(polite, Fair())
        wires = [Wire() for _ in range(3)]
        for wire in wires:
            Session(sessions).connection_made(wire)
        # The one that has been idle for longest makes room.
        assert [wire.closed for wire in wires] == [True, False, False]
        monkeypatch.setattr(listener, "IDLE_S", -1.0)
        sessions._sweep()
        assert all(wire.closed for wire in wires)
        # Whose client takes nothing of the end is broken off.
        monkeypatch.setattr(listener, "_CLOSED_S", -1.0)
        sessions._sweep()
        assert [wire.aborted for wire in wires] == [True, True, True]

    monkeypatch.setattr(listener, "SESSIONS_MAX", 2)
    run(story())


def test_one_address_has_only_so_many_connections_and_takes_none_of_others() -> None:
    async def story() -> None:
        sessions = Listener(polite, Fair(), each_max=2)
        other = Wire("192.0.2.2")
        Session(sessions).connection_made(other)
        wires = [Wire() for _ in range(3)]
        held = [Session(sessions) for _ in wires]
        for session, wire in zip(held[:2], wires, strict=False):
            session.connection_made(wire)
            # Each is at work.
            session.used_s = None
        held[2].connection_made(wires[2])
        assert [wire.aborted for wire in (other, *wires)] == [False, False, False, True]

    run(story())


def test_a_server_that_stops_lets_streams_end_and_takes_no_more() -> None:
    async def story() -> None:
        gate = asyncio.Event()

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            await gate.wait()
            await polite(scope, receive, send)

        peer = Peer(app)
        number = peer.ask()
        await peer.exchange()
        peer.session.goes()
        gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert peer.wire.closed and not peer.session.streams
        said = h2.frame_buffer.FrameBuffer()
        said.max_frame_size = 1 << 20
        said.add_data(bytes(peer.wire.written))
        frames: list[Any] = list(said)
        assert [type(each) for each in frames] == [GoAwayFrame, HeadersFrame, HeadersFrame]
        assert frames[0].last_stream_id == number and "END_STREAM" in frames[-1].flags

    run(story())
