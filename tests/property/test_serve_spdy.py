"""Whatever bytes a client sends as SPDY, reading them ends in events or in a refusal."""

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.errors import BadRequest
from walras.kube.serve import spdy

HEADS = st.sampled_from([b"\x80\x03\x00\x01", b"\x80\x03\x00\x03", b"\x80\x03\x00\x06", b"\0\0\0\x01"])


@settings(deadline=None)
@given(st.lists(st.tuples(HEADS, st.binary(max_size=64)), max_size=8), st.binary(max_size=32))
def test_no_input_breaks_the_reader(frames: list[tuple[bytes, bytes]], rest: bytes) -> None:
    reader = spdy.Reader()
    text = b"".join(head + b"\0" + len(body).to_bytes(3, "big") + body for head, body in frames) + rest
    with suppress(BadRequest):
        for event in reader.feed(text):
            assert isinstance(event, spdy.Opened | spdy.Data | spdy.Reset | spdy.Pinged)
