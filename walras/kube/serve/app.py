"""The API server as an application: who is asking, for which cluster, and what for.

The interface is ASGI, not granian's RSGI: only there does sending to a client that does not read wait.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

import walras
from walras.core.clock import Clock
from walras.core.errors import (
    InternalError,
    MethodNotAllowed,
    NotFound,
    ServiceUnavailable,
    WalrasError,
    bare,
)
from walras.kube.access.accounts import Accounts
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.keys import SigningKey
from walras.kube.bodies import Receive
from walras.kube.context import EVERY_CLUSTER
from walras.kube.registry import Registry
from walras.kube.registry_builtin import for_all
from walras.kube.serve import discovery, documents, status
from walras.kube.serve.acting import Actor
from walras.kube.serve.answers import Answer, Headers, Stream, encode, json_answer, text_answer, warnings
from walras.kube.serve.audit import Audit
from walras.kube.serve.auditlog import AuditLog
from walras.kube.serve.callers import NOBODY, PUBLIC, Callers, header
from walras.kube.serve.compression import compressed
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.fair import Fair, Payer, Turn
from walras.kube.serve.interactive import Interactive
from walras.kube.serve.paths import Route
from walras.kube.serve.ports import Asked, Authenticator, Extra, PodAccess
from walras.kube.serve.requests import Request
from walras.kube.serve.resources import Resources
from walras.kube.serve.sockets import Socket, SocketGone
from walras.kube.serve.streams import Send, Streams, send_answer
from walras.kube.serve.watching import Following
from walras.kube.verbs import Verbs

log = structlog.get_logger(__name__)

Outcome = Answer | Stream | Following

_CACHED: Final = ((b"cache-control", b"public, max-age=3600"),)

# The Kubernetes release whose behaviour is followed; clients compare their own with it.
KUBERNETES_VERSION: Final = "1.36.3"
# What a POST beside the Kubernetes API may bring; the largest Bid is a quarter of it.
EXTRA_BYTES_MAX: Final = 128 << 10
# The operator's may be a backup of a whole cluster.
OPERATOR_BYTES_MAX: Final = 256 << 20


@dataclass(slots=True)
class _Call:
    """What has become of a request so far."""

    request: Request | None = None
    turn: Turn | None = None
    failure: WalrasError | None = None


class Application:
    """An ASGI application over the request verbs.

    `pods` (log and proxy of pods) may be set later, as may `extra`, which answers
    /clusters/NAME/walras/v1/PATH; until then these are 503 and 404. Without `accounts` the tokens of service
    accounts are good for as long as the application. `fair` is what else the server's time is shared with.
    """

    def __init__(
        self,
        verbs: Verbs,
        auth: Authenticator,
        clock: Clock,
        *,
        accounts: Accounts | None = None,
        pods: PodAccess | None = None,
        extra: Extra | None = None,
        audit: AuditLog | None = None,
        fair: Fair | None = None,
    ) -> None:
        self.verbs = verbs
        self._credentials = Credentials(auth, accounts or Accounts(verbs.api, SigningKey.generate()))
        self.access = Authoriser(verbs.api)
        self.access.watch()
        self.interactive = Interactive(verbs, self.access, clock, lambda: self.pods)
        self.pods = pods
        actor = Actor(verbs, clock, self._credentials, self.access, self.interactive)
        self._resources = Resources(verbs, clock, actor, self.interactive)
        self.extra = extra
        self.streams = Streams()
        self._fair = fair or Fair()
        self._callers = Callers(verbs.api, self._credentials, self.access, self._fair)
        self._audit = Audit(audit, clock, verbs.api.ids, NOBODY) if audit else None

    async def close(self) -> None:
        """Ends every stream, each with a proper last chunk; new streams are refused."""
        await asyncio.gather(self.streams.close(), self.interactive.close())

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._converse({**scope, "method": "GET"}, receive, send)
        if scope["type"] != "http":
            return
        call = _Call()
        trail = self._audit.begin(scope) if self._audit else None
        try:
            outcome = await self._outcome(call, scope, receive)
        except WalrasError as error:
            call.failure = bare(error)
            outcome = status.answer(error, header(scope, b"accept").decode("latin-1"))
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            call.failure = InternalError("an internal error occurred; the server's log has it")
            outcome = status.answer(call.failure)
        finally:
            if call.turn is not None:
                call.turn.leave()
        told = _warnings(call.request)
        if isinstance(outcome, Answer):
            code = outcome.status
            outcome = replace(outcome, headers=(*told, *outcome.headers)) if told else outcome
            outcome = await compressed(outcome, scope)
            await send_answer(send, outcome, head_only=scope["method"] == "HEAD")
        else:
            assert call.request is not None and call.turn is not None
            if trail is not None:
                trail.note("ResponseStarted", call.request, 200, None)
            payer, turn = call.request.identity.payer, call.turn
            if trail is None:
                # A watch may last for hours: nothing that only its beginning needed is kept so long.
                call.request = None
            del scope
            code = await self._stream(outcome, payer, turn, receive, send, told)
        if trail is not None:
            trail.note("ResponseComplete", call.request, code, call.failure)

    async def _stream(
        self,
        outcome: Stream | Following,
        payer: Payer,
        turn: Turn,
        receive: Receive,
        send: Send,
        told: Headers,
    ) -> int:
        """The code with which it was answered, once that is over."""
        refusal = self.streams.refusal(payer)
        if refusal is not None:
            outcome.close()
            answer = status.answer(refusal)
            await send_answer(send, answer)
            return answer.status
        if isinstance(outcome, Stream):
            await turn.run(self.streams.pump(outcome, payer, receive, send))
            return outcome.status
        await turn.run(self.streams.follow(outcome, payer, receive, send, told))
        return 200

    async def _outcome(self, call: _Call, scope: Mapping[str, Any], receive: Receive) -> Outcome:
        """What is answered, when it is the caller's turn."""
        request = call.request = await self._callers.request(scope, receive)
        if request.route.place in PUBLIC:
            return self._public(request)
        turn = call.turn = await self._fair.turn(request.identity.payer, request.identity.user)
        request.charge, request.aside = turn.charge, self.verbs.aside
        if request.route.subresource == "proxy":
            # The pod's answer may take as long as it likes.
            turn.leave()
        return await turn.run(self._allowed(request, scope))

    # WebSockets

    async def _converse(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """exec, attach and port-forward; refused in plain HTTP while that can be."""
        socket, call = Socket(receive, send), _Call()
        trail = self._audit.begin(scope) if self._audit else None
        code = 101
        try:
            await socket.connected()
            request = call.request = await self._callers.request(scope, receive)
            call.turn = await self._fair.turn(request.identity.payer, request.identity.user)
            registry = await call.turn.run(self._entered(request, scope))
            call.turn.leave()
            offered = scope.get("subprotocols") or ()
            await call.turn.run(self.interactive.hold(request, registry, socket, offered))
        except WalrasError as error:
            call.failure, code = bare(error), error.code
            await socket.refuse(status.answer(error))
        except SocketGone:
            pass
        except Exception:
            log.exception("connection failed", path=scope["path"])
        finally:
            if call.turn is not None:
                call.turn.leave()
            await socket.close()
        if trail is not None:
            trail.note("ResponseComplete", call.request, code, call.failure)

    async def _entered(self, request: Request, scope: Mapping[str, Any]) -> Registry:
        """What the caller's cluster serves. Raises Forbidden, ServiceUnavailable."""
        self._callers.authorise(request, scope)
        if self.streams.closing:
            raise ServiceUnavailable("the server is shutting down", retry_after_s=1)
        return self._registry(request.route.cluster)

    # What

    async def _allowed(self, request: Request, scope: Mapping[str, Any]) -> Outcome:
        """The answer to whoever is asking, in whose name it may be. Raises Forbidden."""
        self._callers.authorise(request, scope)
        return await self._answer(request)

    async def _answer(self, request: Request) -> Outcome:
        route = request.route
        if route.place == "resource":
            registry = self._registry(route.cluster)
            resource = registry.find(route.group, route.version, route.plural)
            if resource is None:
                return _unknown(registry, route)
            request.deprecation = resource.deprecation
            return await self._resources.handle(request, resource, registry)
        if route.place in ("health", "version", "unknown"):
            return self._public(request)
        registry = self._registry(route.cluster)
        if route.place == "walras" and request.method in ("GET", "HEAD", "POST"):
            return await self._extra(request)
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        match route.place:
            case "openapi":
                return documents.openapi_document(registry, request)
            case "keys":
                body = encode(self._credentials.accounts.jwks())
                return Answer(body, content_type=b"application/jwk-set+json", headers=_CACHED)
            case "issuer":
                return json_answer(self._credentials.accounts.configuration(route.cluster), headers=_CACHED)
        return _discovery(registry, request)

    def _registry(self, cluster: str) -> Registry:
        if cluster == EVERY_CLUSTER:
            return for_all()
        if not cluster:
            raise NotFound("the API of a cluster is at /clusters/NAME; nothing is served above it")
        if not self.verbs.api.has_cluster(cluster):
            raise NotFound(f'clusters "{cluster}" not found', details={"name": cluster, "kind": "clusters"})
        return self.verbs.api.registry(cluster)

    def _public(self, request: Request) -> Answer:
        match request.route.place:
            case "version":
                return json_answer(version())
            case "health":
                if self.streams.closing and request.route.name == "readyz":
                    raise ServiceUnavailable("the server is shutting down")
                return text_answer("ok")
        return discovery.not_found()

    async def _extra(self, request: Request) -> Answer:
        if self.extra is None:
            raise NotFound(status.NOT_SERVED)

        async def body() -> dict[str, Any]:
            limit = EXTRA_BYTES_MAX if request.identity.cluster else OPERATOR_BYTES_MAX
            return (await request.decoded(limit=limit)).value

        route, method = request.route, "GET" if request.method == "HEAD" else request.method
        asked = Asked(request.identity, route.cluster, method, route.rest, request.query, body)
        return json_answer(await self.extra(asked))  # noqa: S610


def version() -> dict[str, str]:
    """`/version`: the Kubernetes release whose behaviour is followed."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}+walras.{walras.__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "CPython",
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }


def _unknown(registry: Registry, route: Route) -> Answer:
    """A Status for what a built-in group lacks, plain text for the rest."""
    if any(resource.group == route.group and resource.builtin for resource in registry):
        raise NotFound(status.NOT_SERVED)
    return discovery.not_found()


def _discovery(registry: Registry, request: Request) -> Answer:
    route = request.route
    match route.place:
        case "root":
            return discovery.root(registry)
        case "api" | "apis":
            core = route.place == "api"
            wanted = discovery.wants_aggregated(request.header(b"accept"))
            if wanted:
                return discovery.aggregated(registry, core, wanted, request.header(b"if-none-match"))
            return discovery.api_versions() if core else discovery.group_list(registry)
        case "group":
            return discovery.group(registry, route.group) or discovery.not_found()
        case "resources":
            if not any(group == route.group for group, _ in registry.group_versions()):
                return discovery.not_found()
            return discovery.resource_list(registry, route.group, route.version)
    return discovery.not_found()


def _warnings(request: Request | None) -> Headers:
    """What the caller is warned of, each thing once."""
    if request is None:
        return ()
    told = [request.deprecation] if request.deprecation else []
    if request.asked is not None:
        told += request.asked.warnings
    return warnings(told)
