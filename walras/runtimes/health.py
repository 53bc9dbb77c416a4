"""A gRPC health check (grpc.health.v1.Health/Check) over as much of HTTP/2 (RFC 9113) as one call needs.

Compressed headers of answers are skipped, not read: what counts is in the message, and where there is none
the call has failed.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from walras.runtimes.actions import Dial, Failed

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 1, 4, 1, 8
_FRAME_MAX: Final = 1 << 14
_FRAMES_MAX: Final = 1000
_MESSAGE_MAX: Final = 1 << 12
_STATES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


async def check(dial: Dial, port: int, service: str) -> None:
    """Returns when the service says that it serves. Raises ServiceUnavailable, Failed."""
    reader, writer = await dial(port)
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(port, service))
        message = await _message(reader, writer)
    except (OSError, EOFError) as error:
        raise Failed(
            f"error: health rpc probe failed: {str(error) or 'the connection was closed'}"
        ) from error
    finally:
        writer.close()
    state = _state(message)
    if state != "SERVING":
        raise Failed(f'service unhealthy (responded with "{state}")')


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _call(port: int, service: str) -> bytes:
    fields = (
        (":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"),
        (":authority", f"localhost:{port}"), ("content-type", "application/grpc"), ("te", "trailers"),
        ("user-agent", "kube-probe/1.36"),
    )  # fmt: skip
    # Literal fields without indexing, as RFC 7541, section 6.2.2, has them; each name and value is short.
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    named = service.encode()[:_MESSAGE_MAX]
    request = b"\x0a" + _varint(len(named)) + named if named else b""
    body = struct.pack(">BI", 0, len(request)) + request
    return _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, body)


def _text(value: str) -> bytes:
    data = value.encode()
    assert len(data) < 127, "longer ones take more than one byte for their length"
    return bytes((len(data),)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


async def _message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The message of the answer. Raises Failed, OSError, EOFError."""
    data = bytearray()
    for _ in range(_FRAMES_MAX):
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        if size > _FRAME_MAX:
            raise Failed("error: health rpc probe failed: the answer is not HTTP/2")
        payload = await reader.readexactly(size)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY):
            raise Failed("error: health rpc probe failed: the call was refused")
        elif kind == _DATA:
            data += payload[1 : size - payload[0]] if flags & _PADDED and payload else payload
            if len(data) > _MESSAGE_MAX:
                break
            if len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[1:5]):
                return bytes(data[5 : 5 + int.from_bytes(data[1:5])])
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            raise Failed(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                if not data
                else "error: health rpc probe failed: the answer is cut short"
            )
    raise Failed("error: health rpc probe failed: the answer is too long")


def _state(message: bytes) -> str:
    """Of a HealthCheckResponse, whose field 1 is the state."""
    if not message:
        return _STATES[0]
    if message[0] != 0x08 or len(message) < 2 or message[1] >= len(_STATES):
        raise Failed("error: health rpc probe failed: the answer is no HealthCheckResponse")
    return _STATES[message[1]]
