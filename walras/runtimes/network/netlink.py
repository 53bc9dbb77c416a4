"""Netlink (RFC 3549): messages as bytes, and how they are put to the kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

ROUTE: Final = 0
NETFILTER: Final = 12
REQUEST, ACK, REPLACE, EXCL, CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_NESTED: Final = 0x8000
_ERROR: Final = 2
_HEAD: Final = struct.Struct("=IHHII")
_TIMEOUT_S: Final = 10.0
_SNDBUFFORCE: Final = 32
_SPARE: Final = 1 << 16


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def attribute(kind: int, value: bytes | str | int) -> bytes:
    """One attribute; text ends with a zero byte, a number has four bytes in the host's order."""
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("=I", value)
    return _padded(struct.pack("=HH", len(value) + 4, kind) + value)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def message(kind: int, flags: int, body: bytes, number: int = 1) -> bytes:
    return _padded(_HEAD.pack(_HEAD.size + len(body), kind, REQUEST | flags, number, 0) + body)


def tell(protocol: int, messages: Sequence[bytes]) -> None:
    """Puts the messages to the kernel in this thread's network namespace, each with ACK set, one by one.

    What belongs together, such as a batch, is one of them. Raises OSError for the first that is refused.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
        kernel.settimeout(_TIMEOUT_S)
        kernel.bind((0, 0))
        for each in messages:
            with suppress(OSError):
                # Large batches are more than a socket usually takes at once.
                kernel.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, len(each) + _SPARE)
            kernel.send(each)
            _answered(kernel, _acknowledged(each))


def _acknowledged(data: bytes) -> set[int]:
    """The numbers of its messages that ask for an answer."""
    found, at = set(), 0
    while at < len(data):
        size, _, flags, number, _ = _HEAD.unpack_from(data, at)
        if flags & ACK:
            found.add(number)
        at += (size + 3) & ~3
    return found


def _answered(kernel: socket.socket, waiting: set[int]) -> None:
    while waiting:
        data, at = kernel.recv(1 << 16), 0
        while at < len(data):
            size, kind, _, number, _ = _HEAD.unpack_from(data, at)
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", data, at + _HEAD.size)
                if code:
                    raise OSError(-code, os.strerror(-code))
                waiting.discard(number)
            if size < _HEAD.size:
                raise OSError(errno.EPROTO, "netlink answered nonsense")
            at += (size + 3) & ~3
