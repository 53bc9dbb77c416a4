"""The frames of WebSockets (RFC 6455, section 5), as a client of an instance writes and reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from walras.functions.connections import BadAnswer, Connection

MESSAGE_BYTES_MAX: Final = 16 << 20
CONTINUES, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, data: bytes) -> bytes:
    """A whole message for the instance. Its mask is of zeros: masks are against proxies on the way."""
    size = len(data)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes((0x80 | opcode,)) + length + bytes(4) + data


async def messages(connection: Connection) -> AsyncIterator[tuple[int, bytes]]:
    """(opcode, data) of each message of the instance, one that closes as the last; its pings are answered.

    Raises OSError, EOFError, BadAnswer.
    """
    # One buffer: a list would grow with parts that are empty.
    kind, message = 0, bytearray()
    while True:
        first, second = await connection.exactly(2)
        opcode, is_final, length = first & 15, bool(first & 0x80), second & 0x7F
        if first & 0x70 or second & 0x80:
            raise BadAnswer("a frame is not as agreed")
        if opcode >= CLOSE and (length > 125 or not is_final):
            raise BadAnswer("a control frame is too long")
        if length > 125:
            length = int.from_bytes(await connection.exactly(2 if length == 126 else 8))
        if len(message) + length > MESSAGE_BYTES_MAX:
            raise BadAnswer(f"a message is longer than {MESSAGE_BYTES_MAX} bytes")
        data = await connection.exactly(length)
        if opcode == PING:
            await connection.send(frame(PONG, data))
        elif opcode == CLOSE:
            yield CLOSE, data
            return
        elif opcode in (CONTINUES, TEXT, BINARY):
            if (opcode == CONTINUES) != bool(kind):
                raise BadAnswer("a message does not go on as it began")
            kind = kind or opcode
            message += data
            if is_final:
                yield kind, bytes(message)
                kind, message = 0, bytearray()
        elif opcode != PONG:
            raise BadAnswer("a frame is of no kind")
