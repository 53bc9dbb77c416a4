"""HTTP/1.1 to a port of a pod, in TLS too: one request forwarded, its answer streamed back."""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import quote, unquote

from walras.core.errors import BadRequest, ServiceUnavailable
from walras.kube.access import impersonation
from walras.kube.serve.answers import TEXT, Answer, Headers, Stream
from walras.kube.serve.ports import PodAccess
from walras.kube.serve.requests import Request
from walras.kube.serve.rewriting import rewritten

Object = dict[str, Any]

_CHUNK_BYTES: Final = 64 * 1024
_ANSWER_TIMEOUT_S: Final = 300
_PAGE_BYTES_MAX: Final = 512 * 1024
# Hop by hop (RFC 9110, section 7.6.1), or the caller's business with this server and not the pod's.
_DROPPED: Final = frozenset(
    (b"authorization", b"connection", b"content-length", b"expect", b"host", b"keep-alive",
     b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade")
)  # fmt: skip
# RFC 9110, sections 5.6.2 and 5.5; what is not of this form is not passed on.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_ODD: Final = (b"\r", b"\n", b"\0")


def target(pod_name: str) -> tuple[str, str, str]:
    """(scheme, pod, port) of `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`. Raises BadRequest."""
    parts = pod_name.split(":")
    match parts:
        case [name]:
            found = ("", name, "")
        case [name, port]:
            found = ("", name, port)
        case [scheme, name, port] if scheme in ("", "http", "https"):
            found = (scheme, name, port)
        case _:
            raise BadRequest(f'invalid pod request "{pod_name}"')
    return found


def port_of(pod: Object, asked: str) -> int:
    """The port number: a number, the name of a container port, or the first one. Raises BadRequest."""
    ports = [port for each in pod["spec"].get("containers", ()) for port in each.get("ports") or ()]
    if not asked:
        return int(ports[0]["containerPort"]) if ports else 80
    if asked.isascii() and asked.isdigit() and len(asked) <= 5 and 0 < int(asked) < 65536:
        return int(asked)
    for port in ports:
        if port.get("name") == asked:
            return int(port["containerPort"])
    raise BadRequest(f'no port "{asked[:64]}" in pod {pod["metadata"]["name"]}')


def behind(
    service: Object, endpoints: Object | None, port: str, find: Callable[[str], Object | None]
) -> tuple[Object, int]:
    """The first pod that is ready behind the Service, and its port; `find` finds a pod by name.

    `port`: a number or name of the Service's. Raises ServiceUnavailable.
    """
    name = service["metadata"]["name"]
    if port.isascii() and port.isdigit():
        numbered = (each for each in service["spec"].get("ports") or () if str(each.get("port")) == port)
        declared = next(numbered, None)
        if declared is None:
            raise ServiceUnavailable(f'no service port {port} found for service "{name}"')
        port = str(declared.get("name") or "")
    for subset in (endpoints or {}).get("subsets") or ():
        for each in subset.get("ports") or ():
            if (each.get("name") or "") != port:
                continue
            for address in subset.get("addresses") or ():
                pod = find(str((address.get("targetRef") or {}).get("name") or ""))
                ips = ((pod or {}).get("status") or {}).get("podIPs") or ()
                # Endpoints can be written by anybody; only a pod's own address leads to it.
                if pod is not None and address.get("ip") in [known.get("ip") for known in ips]:
                    return pod, int(each["port"])
    raise ServiceUnavailable(f'no endpoints available for service "{name}"')


async def forward(
    pods: PodAccess, cluster: str, pod: Object, port: int, request: Request, *, secure: bool = False
) -> Answer | Stream:
    """The pod's answer. Raises ServiceUnavailable when there is none.

    Whoever reads the proxy itself is sent to the path below it, and pages lead to addresses below it, as
    with kube-apiserver. `secure`: the pod speaks TLS, and shows any certificate.
    """
    if not request.route.rest and request.method in ("GET", "HEAD"):
        # What a page names beside itself is to be found below the proxy.
        query = f"?{request.query_string}" if request.query_string else ""
        location = _base(request) + f"/{query}".encode("latin-1", "replace")
        return Answer(b"", 301, TEXT, ((b"location", location),))
    body = await request.body()
    head = _request_head(request, port, len(body))
    name = pod["metadata"]["name"]
    try:
        reader, writer = await pods.dial(cluster, pod, port)
    except OSError as error:
        raise ServiceUnavailable(f"error trying to reach port {port} of pod {name}: {error}") from None
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            if secure:
                await writer.start_tls(_any_certificate())
            writer.write(head + body)
            await writer.drain()
            status, headers = await _answer_head(reader)
    except (OSError, EOFError, ValueError, TimeoutError, TypeError) as error:
        writer.close()
        why = str(error) or type(error).__name__
        raise ServiceUnavailable(f"error trying to reach port {port} of pod {name}: {why}") from None
    except BaseException:
        writer.close()
        raise
    if request.method == "HEAD" or status in (204, 304):
        writer.close()
        return Answer(b"", status, headers.get(b"content-type", TEXT), _passed(headers, request))
    chunks = _body(reader, writer, headers)
    content_type = headers.get(b"content-type", TEXT)
    passed = _passed(headers, request)
    if content_type.partition(b";")[0].strip() == b"text/html" and not headers.get(b"content-encoding"):
        chunks = _page(chunks, _base(request))
        passed = tuple(each for each in passed if each[0] != b"content-length")
    return Stream(chunks, status, content_type, passed, writer.close)


async def _page(chunks: AsyncGenerator[bytes, None], base: bytes) -> AsyncGenerator[bytes, None]:
    """A page whose addresses lead below the proxy; one that is too long is passed on as it is."""
    page, whole = bytearray(), True
    try:
        async for chunk in chunks:
            if not whole:
                yield chunk
                continue
            page += chunk
            whole = len(page) <= _PAGE_BYTES_MAX
            if not whole:
                yield bytes(page)
        if whole:
            yield await asyncio.to_thread(rewritten, bytes(page), base)
    finally:
        await chunks.aclose()


@functools.cache
def _any_certificate() -> ssl.SSLContext:
    """As kube-apiserver, which does not know who vouches for pods."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _request_head(request: Request, port: int, length: int) -> bytes:
    # Decoded and encoded again, as kube-apiserver does: clients send the whole tail as one segment, a%2Fb.
    path = quote(unquote(request.route.rest) or "/", safe="/:@!$&'()*+,;=~")
    target = f"{path}?{request.query_string}" if request.query_string else path
    line = f"{request.method} {target} HTTP/1.1".encode("latin-1", "replace")
    fields = [(b"host", b"localhost:%d" % port), (b"connection", b"close")]
    if length or request.method in ("POST", "PUT", "PATCH"):
        fields.append((b"content-length", b"%d" % length))
    # A page that a browser asks for is to be read here before it is sent on.
    dropped = _DROPPED | {b"accept-encoding"} if "text/html" in request.header(b"accept") else _DROPPED
    fields += [
        (name, value)
        for name, value in request.headers.items()
        if name not in dropped and not name.startswith(impersonation.PREFIX)
    ]
    lines = [line, *(b"%b: %b" % field for field in fields)]
    if any(odd in each for each in lines for odd in _ODD) or line.count(b" ") != 2:
        raise BadRequest("the request cannot be forwarded")
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the final answer. Raises ValueError, EOFError."""
    while True:
        head = await _until_blank(reader)
        first, *rest = head.split(b"\r\n")
        version, _, tail = first.partition(b" ")
        code = tail[:3]
        if not version.startswith(b"HTTP/1.") or not code.isdigit():
            raise ValueError("the pod does not speak HTTP/1.1")
        if int(code) >= 200:
            break
        if int(code) == 101:
            raise ValueError("the pod wants to switch protocols")
    headers: dict[bytes, bytes] = {}
    for line in rest:
        name, colon, value = line.partition(b":")
        if colon and _TOKEN.fullmatch(name) and _VALUE.fullmatch(value):
            headers.setdefault(name.lower(), value.strip())
    return int(code), headers


async def _until_blank(reader: asyncio.StreamReader) -> bytes:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise ValueError("the head of the answer is too long") from None


async def _body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[bytes, bytes]
) -> AsyncGenerator[bytes, None]:
    with suppress(OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        try:
            if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
                while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                    async for chunk in _exactly(reader, size):
                        yield chunk
                    await reader.readexactly(2)
            elif headers.get(b"content-length", b"").isdigit():
                async for chunk in _exactly(reader, int(headers[b"content-length"])):
                    yield chunk
            else:
                while chunk := await reader.read(_CHUNK_BYTES):
                    yield chunk
        finally:
            writer.close()


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncGenerator[bytes, None]:
    while size > 0:
        chunk = await reader.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError
        size -= len(chunk)
        yield chunk


def _passed(headers: dict[bytes, bytes], request: Request) -> Headers:
    """The answer's headers for the client; a Location inside the pod becomes one below the proxy."""
    found = {
        name: value for name, value in headers.items() if name not in _DROPPED and name != b"content-type"
    }
    # Kept, so that an answer the pod breaks off does not pass for a whole one.
    length = headers.get(b"content-length", b"")
    if length.isdigit() and b"transfer-encoding" not in headers:
        found[b"content-length"] = length
    location = found.get(b"location", b"")
    if location.startswith(b"/") and not location.startswith(b"//"):
        found[b"location"] = _base(request) + location
    return tuple(found.items())


def _base(request: Request) -> bytes:
    """The proxy's own path, as its caller writes it."""
    route = request.route
    within = f"/api/{route.version}/namespaces/{route.namespace}/{route.plural}/{route.name}/proxy"
    return (request.prefix + within).encode()
