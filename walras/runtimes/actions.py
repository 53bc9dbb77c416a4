"""What probes and hooks do to a container: run a program in it, GET from it, connect to it.

As the handlers of k8s.io/kubernetes/pkg/probe and pkg/kubelet/lifecycle. A request goes to the pod itself and
nowhere else: what a pod has the server ask must not reach where the pod cannot.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

from walras.core.errors import BadRequest, ServiceUnavailable
from walras.runtimes.base import Process, Session, Stream, Wish

Object = Mapping[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# A connection to a port of the pod. Raises ServiceUnavailable.
Dial = Callable[[int], Awaitable[Streams]]
SAID_MAX: Final = 10 << 10
_REDIRECTS_MAX: Final = 10
_VERSION: Final = "1.36"


class Failed(ServiceUnavailable):
    """The pod did not answer as it has to; the message says how, as kubelet would."""


async def execute(process: Process, argv: tuple[str, ...]) -> tuple[int, str]:
    """The exit code of a program in the container, and the first of what it said. Raises StartError."""
    session = await process.enter(argv, Wish())
    try:
        said = await asyncio.gather(*(_collect(session, stream) for stream in session.outputs))
        text = b"".join(said)[:SAID_MAX].decode(errors="replace")
        return await session.wait(), text
    finally:
        await session.close()


async def _collect(session: Session, stream: Stream) -> bytes:
    kept = bytearray()
    while data := await session.read(stream):
        kept += data[: SAID_MAX - len(kept)]
    return bytes(kept)


def port_of(container: Object, port: int | str) -> int:
    """The number of a port that may be given by name. Raises BadRequest."""
    if isinstance(port, int):
        number = port
    else:
        named = (each for each in container.get("ports") or () if each.get("name") == port)
        found = next(named, None)
        if found is None and not port.isdecimal():
            raise BadRequest(f"couldn't find port: {container['name']}")
        number = int(found["containerPort"] if found else port)
    if not 0 < number < 65_536:
        raise BadRequest(f"invalid port number: {number}")
    return number


def check_host(host: str, addresses: tuple[str, ...]) -> None:
    """Raises BadRequest for a host that is not the pod, which has `addresses`."""
    if not host or host == "localhost" or host in addresses:
        return
    try:
        if ipaddress.ip_address(host.strip("[]")).is_loopback:
            return
    except ValueError:
        pass
    raise BadRequest(f'host "{host}" is not the pod, and the server asks no other on behalf of a pod')


async def connect(dial: Dial, port: int) -> None:
    """Returns when the pod has taken a connection. Raises ServiceUnavailable."""
    _, writer = await dial(port)
    writer.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """`elsewhere` when it is a redirect that leads away from the pod, which was not followed."""

    status: int
    body: str
    elsewhere: bool = False


async def get(dial: Dial, action: Object, container: Object, host: str, purpose: str) -> Answer:
    """The answer to an HTTPGetAction, redirects within the pod followed. Raises BadRequest, Failed.

    `host`: the pod's address. `purpose`: "probe" or "lifecycle", for the user agent.
    """
    port = port_of(container, action["port"])
    scheme = str(action.get("scheme") or "HTTP").lower()
    path = str(action.get("path") or "/")
    named = str(action.get("host") or host).strip("[]")
    bracketed = f"[{named}]" if ":" in named else named
    url = urlsplit(f"{scheme}://{bracketed}:{port}/{path.lstrip('/')}")
    headers = _headers(action, purpose)
    for _ in range(_REDIRECTS_MAX):
        answer, location = await _ask(dial, url, headers)
        if not location or not 300 <= answer.status < 400:
            return answer
        following = _redirected(url, location)
        if following.hostname != url.hostname or following.scheme not in ("http", "https"):
            return Answer(answer.status, answer.body, elsewhere=True)
        url = following
    raise Failed(f'Get "{urlunsplit(url)}": stopped after 10 redirects')


def _redirected(url: SplitResult, location: str) -> SplitResult:
    """Where an answer says to ask on. Raises Failed for what is no URL."""
    shown = urlunsplit(url)
    try:
        following = urlsplit(urljoin(shown, location))
        _ = following.port  # which is where a number that is no port is found out
    except ValueError as error:
        raise Failed(f'Get "{shown}": failed to parse Location header "{location}": {error}') from error
    return following


def _headers(action: Object, purpose: str) -> list[tuple[str, str]]:
    given = [(str(each["name"]), str(each.get("value") or "")) for each in action.get("httpHeaders") or ()]
    names = {name.lower() for name, _ in given}
    defaults = [("User-Agent", f"kube-{purpose}/{_VERSION}"), ("Accept", "*/*")]
    kept = [(name, value) for name, value in given if not (name.lower() == "accept" and not value)]
    return [*kept, *(each for each in defaults if each[0].lower() not in names)]


async def _ask(dial: Dial, url: SplitResult, headers: list[tuple[str, str]]) -> tuple[Answer, str]:
    shown = urlunsplit(url)
    try:
        reader, writer = await dial(url.port or (443 if url.scheme == "https" else 80))
    except ServiceUnavailable as error:
        raise Failed(f'Get "{shown}": {error.message}') from error
    try:
        if url.scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            await writer.start_tls(context)
        writer.write(_request(url, headers))
        return await _answer(reader)
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
        raise Failed(f'Get "{shown}": {str(error) or type(error).__name__}') from error
    finally:
        writer.close()


def _request(url: SplitResult, headers: list[tuple[str, str]]) -> bytes:
    target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{url.query}" if url.query else "")
    host = next((value for name, value in headers if name.lower() == "host"), url.netloc)
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in ("host", "connection")]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("net/http: invalid header field value")
    return "\r\n".join([*lines, "", ""]).encode(errors="replace")


async def _answer(reader: asyncio.StreamReader) -> tuple[Answer, str]:
    status, head = 100, [""]
    while 100 <= status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/") or not rest[:3].isdecimal():
            raise ValueError(f"malformed HTTP response {head[0][:100]!r}")
        status = int(rest[:3])
    fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in head[1:])}
    length = fields.get("content-length", "")
    body = await _body(reader, min(int(length), SAID_MAX)) if length.isdecimal() else b""
    return Answer(status, body.decode(errors="replace")), fields.get("location", "")


async def _body(reader: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as error:
        return error.partial
