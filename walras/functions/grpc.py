"""What of gRPC concerns who stands between a client and a server (grpc/doc/PROTOCOL-HTTP2.md). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

Headers = list[tuple[bytes, bytes]]

_TYPE: Final = b"application/grpc"
# gRPC-Web, of which this is the beginning too, has its trailers in the body.
_CALL: Final = re.compile(re.escape(_TYPE) + rb"([+;].*)?")
# What gRPC calls a status of HTTP (grpc/doc/http-grpc-status-mapping.md); UNKNOWN without one.
_CODES: Final = {
    400: 13,
    401: 16,
    403: 7,
    404: 12,
    408: 4,
    413: 8,
    429: 14,
    431: 8,
    502: 14,
    503: 14,
    504: 4,
    505: 12,
}
_UNKNOWN: Final = 2
_MESSAGE_CHARACTERS_MAX: Final = 1024
# All that may stand in a message as it is: printable ASCII but for the percent sign.
_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def is_call(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request is a call of gRPC."""
    return any(name == b"content-type" and _CALL.fullmatch(value) for name, value in headers)


def refusal(http_status: int, message: str) -> Headers:
    """The headers of an answer that has nothing else."""
    return [(b"content-type", _TYPE), *failure(http_status, message)]


def failure(http_status: int, message: str) -> Headers:
    """The trailers of an answer that went wrong on its way."""
    code = _CODES.get(http_status, _UNKNOWN)
    text = quote(message[:_MESSAGE_CHARACTERS_MAX], safe=_PLAIN)
    return [(b"grpc-status", b"%d" % code), (b"grpc-message", text.encode())]
