"""KubeVirt's subresources over HTTP: acts by PUT, consoles and ports as plain streams over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from walras.core.errors import BadRequest, MethodNotAllowed, NotFound, ServiceUnavailable
from walras.kube import machines
from walras.kube.context import EVERY_CLUSTER
from walras.kube.record import parse
from walras.kube.serve import forwarding, status
from walras.kube.serve.answers import TEXT, Answer
from walras.kube.serve.ports import Entrance, Machines, PodAccess, Session, Wish
from walras.kube.serve.requests import Request
from walras.kube.serve.sockets import Socket, SocketGone

Object = dict[str, Any]

# The bytes of the stream in messages of any size, and nothing else.
PROTOCOL: Final = "plain.kubevirt.io"
_OPTIONS_BYTES_MAX: Final = 64 << 10
_CHUNK: Final = 32_768
_START_S: Final = 15.0
_SIZE: Final = (80, 24)
_TERMINAL: Final = Wish(stdin=True, stdout=True, stderr=False, tty=True)
_UPGRADE: Final = "Upgrade request required"

Read = Callable[[], Awaitable[bytes]]
Write = Callable[[bytes], Awaitable[None]]


def check(request: Request, offered: Machines | None) -> Machines:
    """Raises NotFound for what there is none of, ServiceUnavailable."""
    route = request.route
    known = route.subresource in machines.ACTS.get(route.plural, ())
    if not known or not route.namespace or route.cluster == EVERY_CLUSTER:
        raise NotFound(status.NOT_SERVED)
    if offered is None:
        raise ServiceUnavailable("no runtime is connected to this server yet", retry_after_s=1)
    return offered


async def answer(request: Request, offered: Machines | None) -> Answer:
    """What a request that is no WebSocket is answered."""
    acting, route = check(request, offered), request.route
    if route.subresource in machines.STREAMS:
        _entrance(request, acting)
        raise BadRequest(_UPGRADE)
    if request.method != "PUT":
        raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
    options = _options(await request.body(_OPTIONS_BYTES_MAX))
    code = await acting.act(
        route.cluster, route.plural, route.namespace, route.name, route.subresource, options
    )
    return Answer(b"", code, TEXT)


def _options(body: bytes) -> Object:
    """Of any media type, or of none: so clients send them."""
    if not body.strip():
        return {}
    try:
        found = parse(body)
    except ValueError as error:
        raise BadRequest(f"Can not unmarshal Request body to struct, error: {error}") from None
    if not isinstance(found, dict | None):
        raise BadRequest("Can not unmarshal Request body to struct, error: it is no object")
    return found or {}


def _entrance(request: Request, acting: Machines) -> Entrance:
    route = request.route
    return acting.entrance(route.cluster, route.plural, route.namespace, route.name, route.subresource)


async def hold(
    request: Request, acting: Machines, access: PodAccess, socket: Socket, offered: Sequence[str]
) -> None:
    """Serves the connection to its end. Raises WalrasError while it can be refused."""
    if request.route.subresource not in machines.STREAMS:
        raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
    found, cluster = _entrance(request, acting), request.route.cluster
    protocol = PROTOCOL if PROTOCOL in offered else None
    if request.route.subresource == "portforward":
        port = _port(request.route.rest)
        reader, writer = await access.dial(cluster, found.pod, port)
        try:
            await socket.accept(protocol)
            await _carry_port(socket, reader, writer)
        finally:
            writer.close()
        return
    session = await _console(access, cluster, found)
    try:
        await socket.accept(protocol)
        await _carry(socket, lambda: session.read("stdout"), session.write)
    finally:
        await session.close()


async def _console(access: PodAccess, cluster: str, found: Entrance) -> Session:
    try:
        async with asyncio.timeout(_START_S):
            session = await access.exec(cluster, found.pod, found.container, found.console, _TERMINAL)
    except TimeoutError:
        raise ServiceUnavailable("the guest does not answer") from None
    # As a serial terminal, of which nobody is told the size.
    session.resize(*_SIZE)
    return session


def _port(rest: str) -> int:
    """Of `PORT` or `PORT/tcp`. Raises BadRequest."""
    number, _, protocol = rest.partition("/")
    if protocol not in ("", "tcp"):
        raise BadRequest(f'only tcp is forwarded, not "{protocol[:16]}"')
    return forwarding.port_of(number)


async def _carry_port(socket: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    await _carry(socket, lambda: reader.read(_CHUNK), write)


async def _carry(socket: Socket, read: Read, write: Write) -> None:
    """Carries bytes both ways until either end has gone."""

    async def inward() -> None:
        while True:
            await write(await socket.receive())

    async def outward() -> None:
        while data := await read():
            await socket.send(data)

    tasks = [asyncio.ensure_future(inward()), asyncio.ensure_future(outward())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        with suppress(SocketGone, OSError):
            for task in done:
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
