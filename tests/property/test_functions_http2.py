"""Whatever is sent in HTTP/2, by clients or by instances, has an end that somebody has thought of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.http2 import GET, POST, Peer

from walras.functions.connections import LOST
from walras.functions.h2c import H2C
from walras.functions.http2 import PREFACE, STREAMS_MAX
from walras.functions.shares import Share
from walras.kube.serve.fair import Fair

SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
# A GET of HPACK's static table alone, with an authority.
HEAD = b"\x82\x86\x84\x41\x01h"
# An answer of 200.
ANSWER = b"\x88"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def frames(head: bytes, *streams: int) -> st.SearchStrategy[bytes]:
    payload = st.one_of(
        st.just(head),
        st.binary(max_size=40),
        st.sampled_from((b"", bytes(4), bytes(8), b"\x00\x03\x00\x00\x00\x05")),
    )
    one = st.builds(
        frame,
        st.integers(0, 11),
        st.sampled_from((0, 1, 4, 5, 8, 0x20, 0x25, 0xFF)),
        st.sampled_from((0, *streams, *streams, 2, 1 << 31)),
        payload,
    )
    proper = st.builds(frame, st.just(1), st.sampled_from((4, 5)), st.sampled_from(streams), st.just(head))
    return st.lists(st.one_of(proper, one), max_size=25).map(b"".join)


async def echo(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    while (message := await receive())["type"] == "http.request":
        await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})
        if not message["more_body"]:
            await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})
            return


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(frames(HEAD, 1, 3, 5), st.lists(st.integers(1, 60), max_size=10))
def test_a_session_takes_whatever_comes_and_leaves_nothing_behind(said: bytes, cuts: list[int]) -> None:
    async def story() -> None:
        peer = Peer(echo)
        left = PREFACE + SETTINGS + said
        for cut in [*cuts, len(left)]:
            piece, left = left[:cut], left[cut:]
            peer.give(piece)
            await asyncio.sleep(0)
            assert len(peer.session.streams) <= STREAMS_MAX
        for _ in range(30):
            await asyncio.sleep(0)
        peer.session.connection_lost(None)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not peer.session.streams
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(story())


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(frames(ANSWER, 1), st.booleans())
def test_an_instance_may_say_what_it_wants_and_is_heard_or_lost(said: bytes, ends: bool) -> None:
    async def story() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(SETTINGS + said)
        reader.feed_eof()
        link = H2C(reader, Writer())  # type: ignore[arg-type]
        share = Share(Fair(), "one")
        try:
            await link.begin(GET if ends else POST, share, ends=ends)
            code, _ = await link.head()
            assert 200 <= code < 600
            async for _ in link.body():
                pass
        except LOST:
            pass

    asyncio.run(asyncio.wait_for(story(), 10))


class Writer:
    """Takes everything."""

    def write(self, data: bytes) -> None:
        del data

    async def drain(self) -> None:
        return

    def is_closing(self) -> bool:
        return False
