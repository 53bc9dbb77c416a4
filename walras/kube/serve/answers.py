"""What a handler gives back: a whole body, or a stream of chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
# Characters of all warnings of one answer, and of each of them once there are more.
WARNED_MAX: Final = 4096
WARNING_MAX: Final = 256
encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is known."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = ()


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Stream:
    """A response that goes on until its chunks end, the client goes away or the server closes.

    The chunks are closed (`aclose`) in each of these cases, and `close` is called, which also frees what
    chunks that were never asked for hold: closing a generator that has not begun runs nothing of it.
    """

    chunks: AsyncGenerator[bytes, None]
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = ()
    close: Callable[[], object] = _nothing


def json_answer(value: Mapping[str, Any], status: int = 200, headers: Headers = ()) -> Answer:
    return Answer(encode(value), status, JSON, headers)


def text_answer(text: str, status: int = 200) -> Answer:
    return Answer(text.encode(), status, TEXT)


def warning(text: str) -> tuple[bytes, bytes]:
    """A Warning header (RFC 7234, section 5.5), as client-go prints it."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    value = f'299 - "{quoted}"'.encode("ascii", "replace")
    return b"warning", bytes(byte for byte in value if byte >= 0x20)


def warnings(texts: Iterable[str]) -> Headers:
    """A header for each thing, once; cut short, and then left out, where they are too much for a client."""
    told = list(dict.fromkeys(text for text in texts if text))
    if sum(map(len, told)) <= WARNED_MAX:
        return tuple(map(warning, told))
    headers: list[tuple[bytes, bytes]] = []
    room = WARNED_MAX
    for text in told:
        if room <= 0:
            break
        room -= len(text[:WARNING_MAX])
        headers.append(warning(text[:WARNING_MAX]))
    return tuple(headers)
