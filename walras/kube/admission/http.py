"""One HTTPS POST to a webhook, bounded in time and size: no redirect is followed, no connection kept."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

ANSWER_BYTES_MAX: Final = 4 << 20
HEAD_BYTES_MAX: Final = 64 << 10
# Of authorities, which take the more time to read the more there are.
AUTHORITIES_BYTES_MAX: Final = 64 << 10
_SAFE: Final = "/:@!$&'()*+,;=~%-._"

# What Go says where OpenSSL has a number.
_UNKNOWN: Final = "x509: certificate signed by unknown authority"
_X509: Final = {
    **dict.fromkeys((18, 19, 20, 21), _UNKNOWN),
    9: "x509: certificate has expired or is not yet valid",
    10: "x509: certificate has expired or is not yet valid",
}

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CalloutFailed(Exception):
    """A webhook that could not be asked, or gave no usable answer; the text says why."""


class CalloutRefused(CalloutFailed):
    """A webhook that was asked and answered with another status than 200."""


def trust(ca_bundle: str) -> ssl.SSLContext:
    """TLS that believes certificates of a clientConfig's caBundle, or the system's. Raises CalloutFailed."""
    if len(ca_bundle) > AUTHORITIES_BYTES_MAX:
        raise CalloutFailed(f"caBundle is larger than {AUTHORITIES_BYTES_MAX} bytes")
    return _trust(ca_bundle)


@lru_cache(maxsize=256)
def _trust(ca_bundle: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not ca_bundle:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context
    try:
        context.load_verify_locations(cadata=base64.b64decode(ca_bundle).decode("ascii"))
    except (ssl.SSLError, binascii.Error, ValueError) as error:
        raise CalloutFailed(f"unable to load root certificates: {error}") from None
    return context


def target(path: str) -> str:
    """The request target of a path with its query, with nothing in it that could end the line."""
    parts = urlsplit(path or "/")
    query = f"?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else ""
    return (quote(parts.path, safe=_SAFE) or "/") + query


async def post(streams: Streams, tls: ssl.SSLContext, host: str, path: str, body: bytes) -> bytes:
    """The body of a 200 answer. `host` is whom the certificate must name. Closes the connection.

    Raises CalloutFailed, OSError, EOFError.
    """
    reader, writer = streams
    try:
        await writer.start_tls(tls, server_hostname=host.rpartition(":")[0] or host)
        head = (
            f"POST {target(path)} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-apiserver-admission\r\n"
            f"Content-Type: application/json\r\nAccept: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii") + body)
        await writer.drain()
        code, headers = await _head(reader)
        answer = await _body(reader, headers)
    except ssl.SSLCertVerificationError as error:
        said = _X509.get(error.verify_code, error.verify_message)
        raise CalloutFailed(f"tls: failed to verify certificate: {said}") from None
    except (ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise CalloutFailed(str(error) or type(error).__name__) from None
    finally:
        with suppress(Exception):
            writer.close()
    if code != 200:
        raise CalloutRefused(_refusal(code, answer))
    return answer


def _refusal(code: int, body: bytes) -> str:
    if 300 <= code < 400:
        return f"the webhook answered {code}; redirects are not followed"
    said = body[:512].decode(errors="replace").strip()
    known = {
        401: "the server has asked for the client to provide credentials",
        403: said,
        404: "the server could not find the requested resource",
        405: "the server does not allow this method on the requested resource",
    }
    return (
        known.get(code)
        or f'an error on the server ("{said or code}") has prevented the request from succeeding'
    )


async def _head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    while True:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = raw[:-4].split("\r\n")
        version, _, tail = first.partition(" ")
        if not version.startswith("HTTP/1.") or not tail[:3].isdigit():
            raise CalloutFailed("the webhook does not speak HTTP/1.1")
        code = int(tail[:3])
        if code >= 200:
            break
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    return code, headers


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    length = headers.get("content-length", "")
    if length.isdigit():
        if int(length) > ANSWER_BYTES_MAX:
            raise CalloutFailed(f"the webhook's answer is larger than {ANSWER_BYTES_MAX} bytes")
        return await reader.readexactly(int(length))
    return await _rest(reader)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while chunk := await reader.read(HEAD_BYTES_MAX):
        found += chunk
        if len(found) > ANSWER_BYTES_MAX:
            raise CalloutFailed(f"the webhook's answer is larger than {ANSWER_BYTES_MAX} bytes")
    return bytes(found)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        if size < 0 or len(found) + size > ANSWER_BYTES_MAX:
            raise CalloutFailed(f"the webhook's answer is larger than {ANSWER_BYTES_MAX} bytes")
        found += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(found)
