"""SPDY/3.1 frames: what a client's are read as, and what is refused."""

import struct
import zlib

import pytest

from walras.core.errors import BadRequest
from walras.kube.serve import spdy


def words(headers: dict[str, str]) -> bytes:
    def word(text: str) -> bytes:
        return struct.pack(">I", len(text)) + text.encode()

    return struct.pack(">I", len(headers)) + b"".join(word(n) + word(v) for n, v in headers.items())


class Client:
    """What a client writes."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=spdy.DICTIONARY)

    def compressed(self, block: bytes) -> bytes:
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: dict[str, str], *, end: bool = False) -> bytes:
        payload = struct.pack(">IIH", stream, 0, 0) + self.compressed(words(headers))
        return struct.pack(">II", 0x80030001, int(end) << 24 | len(payload)) + payload

    def data(self, stream: int, data: bytes, *, end: bool = False) -> bytes:
        return struct.pack(">II", stream, int(end) << 24 | len(data)) + data


def test_the_dictionary_is_that_of_the_specification() -> None:
    # The Adler-32 checksum by which zlib streams name it.
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_frames_are_read_however_they_are_cut() -> None:
    client, reader = Client(), spdy.Reader()
    text = (
        client.open(1, {"streamType": "error", "port": "80", "requestID": "0"}, end=True)
        + client.open(3, {"streamType": "data", "port": "80", "requestID": "0"})
        + client.data(3, b"hello", end=True)
        + struct.pack(">III", 0x80030006, 4, 7)
        + struct.pack(">IIII", 0x80030009, 8, 3, 100)
        + struct.pack(">IIII", 0x80030003, 8, 3, 5)
    )
    events = [event for byte in text for event in reader.feed(bytes((byte,)))]
    headers = {"port": "80", "requestid": "0"}
    assert events == [
        spdy.Opened(1, {**headers, "streamtype": "error"}, True),
        spdy.Opened(3, {**headers, "streamtype": "data"}, False),
        spdy.Data(3, b"hello", True),
        spdy.Pinged(7),
        spdy.Reset(3),
    ]


def test_what_is_written_can_be_read_again() -> None:
    writer, inflate = spdy.Writer(), zlib.decompressobj(zdict=spdy.DICTIONARY)
    for stream in (1, 3):
        reply = writer.reply(stream)
        head, size, number = struct.unpack_from(">III", reply)
        assert (head, size, number) == (0x80030002, len(reply) - 8, stream)
        assert inflate.decompress(reply[12:]) == struct.pack(">I", 0)
    assert list(spdy.Reader().feed(writer.data(3, b"x", end=True))) == [spdy.Data(3, b"x", True)]
    assert list(spdy.Reader().feed(writer.ping(2))) == [spdy.Pinged(2)]
    assert list(spdy.Reader().feed(writer.reset(5, spdy.REFUSED_STREAM))) == [spdy.Reset(5)]


def bomb() -> bytes:
    client = Client()
    payload = struct.pack(">IIH", 1, 0, 0) + client.compressed(b"\0" * (10 << 20))
    return struct.pack(">II", 0x80030001, len(payload)) + payload


@pytest.mark.parametrize(
    "text",
    [
        struct.pack(">II", 1, 0xFFFFFF),
        struct.pack(">II", 0x80040001, 0),
        struct.pack(">II", 0x80030001, 2) + b"xx",
        struct.pack(">II", 0x80030001, 14) + b"\0" * 10 + b"junk",
        struct.pack(">II", 0x80030006, 0),
        Client().open(1, {str(number): "x" for number in range(100)}),
        bomb(),
    ],
    ids=["too long", "other version", "cut off", "no zlib", "empty ping", "many headers", "bomb"],
)
def test_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequest):
        list(spdy.Reader().feed(text))
