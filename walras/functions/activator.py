"""Requests to functions: to which revision by their host, and held until an instance of it is free."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

import structlog

from walras.core.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    NotFound,
    ServiceUnavailable,
    Timeout,
    Unauthorized,
    Unclassified,
    WalrasError,
)
from walras.functions.backend import RETRY_S, Backend
from walras.functions.backends import Backends
from walras.functions.calls import Call
from walras.functions.client import Client
from walras.functions.connections import HEAD_BYTES_MAX
from walras.functions.forwarding import Exchange
from walras.functions.routing import Found, Routing
from walras.functions.shares import Share
from walras.functions.sockets import Conversation, SocketClient
from walras.functions.waiting import why_failing, why_waiting
from walras.kube.api import API
from walras.kube.bodies import Receive
from walras.kube.context import Identity
from walras.kube.serve.fair import Fair
from walras.kube.serve.streams import Send

log = structlog.get_logger(__name__)

# Requests at once, held ones counted in: of all agents, and of one.
REQUESTS_MAX: Final = 20_000
REQUESTS_OF_ONE_MAX: Final = 4_000
# Where a scope has the cluster of the pod that asks.
WITHIN: Final = "walras.within"
# Where it has what tells its connection whose the request is.
PAYS: Final = "walras.pays"
_AUTHORIZATION: Final = frozenset((b"authorization",))

# Whose a bearer token is; None when it is nobody's.
Identify = Callable[[str], Awaitable[Identity | None]]


class TooLarge(Unclassified):
    code = 431
    reason = "RequestHeaderFieldsTooLarge"


class NoTrailers(Unclassified):
    code = 505
    reason = "HTTPVersionNotSupported"


class _Asked(NamedTuple):
    scope: Mapping[str, Any]
    client: Client
    host: bytes
    share: Share
    hides: frozenset[bytes]


class Activator:
    """The application behind the listener of functions. `fair` shares the server's time out."""

    def __init__(
        self,
        api: API,
        routing: Routing,
        backends: Backends,
        identify: Identify,
        fair: Fair,
        http2_port: int = 0,
    ) -> None:
        """`http2_port`: where the listener is that trailers pass through."""
        self._api, self._routing, self._backends = api, routing, backends
        self._identify, self._fair, self._http2_port = identify, fair, http2_port
        # Requests that go on: by cluster, and of all.
        self._open: Counter[str] = Counter()
        self._count = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closing = False

    async def close(self) -> None:
        """Takes no new requests, and ends those that go on."""
        self._is_closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        kind = SocketClient if scope["type"] == "websocket" else Client
        client = kind(scope, receive, send, task.cancel)
        try:
            await self._serve(scope, client)
        except asyncio.CancelledError:
            if not client.left and not client.has_begun:
                await client.refuse(ServiceUnavailable("the server is shutting down", retry_after_s=1))
        except WalrasError as error:
            if not client.has_begun:
                await client.refuse(error)
            elif not await client.fail(error):
                # What is broken off must not pass for a whole answer.
                raise ConnectionResetError(error.message) from None
        except Exception:
            log.exception("request failed")
            await client.refuse(InternalError("the request could not be passed on"))
        finally:
            client.close()
            self._tasks.discard(task)

    async def _serve(self, scope: Mapping[str, Any], client: Client) -> None:
        if self._is_closing:
            raise ServiceUnavailable("the server is shutting down", retry_after_s=1)
        host = _host(scope)
        within = str(scope.get(WITHIN) or "")
        found = self._routing.find(host, within)
        cluster = found.where.cluster
        self._has_room(cluster)
        self._open[cluster] += 1
        self._count += 1
        try:
            hides = await self._admit(scope, found)
            if isinstance(client, SocketClient):
                await client.connected()
            if (pays := scope.get(PAYS)) is not None:
                pays(cluster)
            share = Share(self._fair, cluster)
            await share.begin()
            await share.run(self._through(found, _Asked(scope, client, host, share, hides)))
        finally:
            self._count -= 1
            self._open[cluster] -= 1
            if not self._open[cluster]:
                del self._open[cluster]

    async def _through(self, found: Found, asked: _Asked) -> None:
        try:
            backend = self._backends.open(self._routing.revision(found))
        except NotFound as gone:
            raise ServiceUnavailable(gone.message, retry_after_s=RETRY_S) from None
        exchange = self._exchange(asked, backend)
        backend.enter()
        try:
            await self._answer(exchange, backend)
        finally:
            backend.leave()

    def _exchange(self, asked: _Asked, backend: Backend) -> Exchange | Call | Conversation:
        """How it is passed on. Raises BadRequest, Unclassified."""
        scope, client, host, share, hides = asked
        if isinstance(client, SocketClient):
            if backend.is_http2:
                raise BadRequest("the function speaks HTTP/2, in which there are no WebSockets")
            return Conversation(scope, client, host, self._api.ids, share, hides=hides)
        if backend.is_http2 and client.is_grpc and not client.takes_trailers:
            raise NoTrailers(f"gRPC is spoken at port {self._http2_port}, and not at this one")
        return (Call if backend.is_http2 else Exchange)(scope, client, host, share, hides=hides)

    def _has_room(self, cluster: str) -> None:
        if self._open[cluster] >= REQUESTS_OF_ONE_MAX or self._count >= REQUESTS_MAX:
            raise ServiceUnavailable("too many requests at once; try again later", retry_after_s=1)

    async def _admit(self, scope: Mapping[str, Any], found: Found) -> frozenset[bytes]:
        """The headers that are not for the instance. Raises Unauthorized, Forbidden."""
        if not found.is_private or scope.get(WITHIN) == found.where.cluster:
            return frozenset()
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").decode("latin-1").partition(" ")
        identity = await self._identify(token.strip()) if scheme.lower() == "bearer" else None
        if identity is None:
            raise Unauthorized("the function is cluster-local: call it with a token of its cluster")
        if identity.cluster not in ("", found.where.cluster):
            raise Forbidden("the function is cluster-local, and the token is of another cluster")
        # An instance has no business with its caller's rights.
        return _AUTHORIZATION

    async def _answer(self, exchange: Exchange | Call | Conversation, backend: Backend) -> None:
        """Has an instance answer, within the time that the revision gives a request."""
        has_instance = False
        try:
            async with asyncio.timeout(backend.limits.timeout_ms / 1000):
                while True:
                    has_instance = False
                    instance = await backend.acquire()
                    has_instance = True
                    try:
                        if await exchange.run(self._backends, backend, instance):
                            return
                        # Nobody is there: whoever is next will be told, and we ask another one.
                        backend.lose(instance)
                        self._backends.probe(backend, instance)
                    finally:
                        backend.release(instance)
        except TimeoutError:
            if has_instance:
                raise Timeout("the instance did not answer in time") from None
            raise self._explained(backend) from None

    def _explained(self, backend: Backend) -> WalrasError:
        """Why no instance was there in time."""
        where, pods = backend.where, [each.pod for each in backend.instances.values()]
        why = why_waiting(self._api, where.cluster, pods) or why_failing(pods)
        seconds = backend.limits.timeout_ms // 1000
        reason, message = why or ("ServiceUnavailable", "its instances are busy or still starting")
        text = f'no instance of revision "{where.name}" had room within {seconds} s: {message}'
        error = ServiceUnavailable(text, retry_after_s=RETRY_S)
        error.reason = reason
        return error


def _host(scope: Mapping[str, Any]) -> bytes:
    """The host that is asked for. Raises BadRequest, TooLarge, NotFound."""
    size = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if size + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > HEAD_BYTES_MAX:
        raise TooLarge(f"the head of a request may have {HEAD_BYTES_MAX} bytes")
    hosts = [bytes(value) for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1:
        raise BadRequest("a request has one host")
    if not hosts:
        raise NotFound("a request says by its host which function it is for")
    return hosts[0]
