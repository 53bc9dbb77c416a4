"""Who is asking, in whose name, for which cluster, and whether they may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from walras.core.errors import Forbidden, Unauthorized
from walras.kube.access import impersonation
from walras.kube.access.authoriser import Authoriser, forbidden
from walras.kube.access.certificates import Holder
from walras.kube.access.words import ANONYMOUS, UNAUTHENTICATED
from walras.kube.api import API
from walras.kube.bodies import Receive
from walras.kube.context import Identity
from walras.kube.serve import paths
from walras.kube.serve.asking import attributes
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.fair import Fair
from walras.kube.serve.paths import Route
from walras.kube.serve.requests import Request, parse_query

# Where a scope has the certificate that its caller has shown.
CERTIFICATE: Final = "walras.certificate"
# Where it has the prefix that its path got here, and that its caller does not write.
UNWRITTEN: Final = "walras.unwritten"
# What everybody may ask.
PUBLIC: Final = ("health", "version")
NOBODY: Final = Identity(ANONYMOUS, (UNAUTHENTICATED,), " ")
# Who pays for finding out who somebody is.
_STRANGERS: Final = (" ", "")


class Callers:
    """Turns the scopes of ASGI into requests of somebody."""

    def __init__(self, api: API, credentials: Credentials, access: Authoriser, fair: Fair) -> None:
        self._api = api
        self._credentials = credentials
        self._access = access
        self._fair = fair

    async def request(self, scope: Mapping[str, Any], receive: Receive) -> Request:
        """The request, and who calls.

        Raises BadRequest, Unauthorized, TooManyRequests; Forbidden for a cluster that is not the caller's.
        """
        # Of a header that is sent more than once the first counts.
        headers = dict(reversed(scope["headers"]))
        token = _bearer(headers.get(b"authorization", b""))
        await self._meet(token)
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        query = scope["query_string"]
        route = paths.parse(raw_path)
        identity = self._identify(route, token, scope.get(CERTIFICATE))
        prefix = f"/clusters/{route.cluster}" if route.cluster and not scope.get(UNWRITTEN) else ""
        if not route.cluster and route.place not in PUBLIC:
            # Whoever has one cluster alone need not name it.
            route = replace(route, cluster=identity.cluster)
        return Request(
            scope["method"],
            route,
            parse_query(query),
            query.decode("latin-1"),
            headers,
            receive,
            identity,
            self._access,
            self._api.hold_to(route.cluster),
            prefix,
        )

    async def _meet(self, token: str) -> None:
        """Verifies a token that was not seen before, in the turns of strangers.

        A flood of false ones, which are nobody's to pay for, holds up only who is new.
        """
        accounts = self._credentials.accounts
        if not accounts.is_news(token):
            return
        turn = await self._fair.turn(_STRANGERS, "")
        try:
            if not await turn.run(accounts.learn(token)):
                raise Unauthorized("Unauthorized")
        finally:
            turn.leave()

    def _identify(self, route: Route, token: str, certificate: Holder | None) -> Identity:
        if route.place in PUBLIC:
            return NOBODY
        if certificate is not None:
            identity = certificate.identity(self._api)
        else:
            identity = self._credentials.identify(token)
        if identity is None:
            raise Unauthorized("Unauthorized")
        if identity.cluster and route.cluster not in ("", identity.cluster):
            # The same words whether the cluster exists or not.
            raise Forbidden(
                f'clusters "{route.cluster}" is forbidden: User "{identity.user}" may open only '
                f'the cluster "{identity.cluster}"',
                details={"name": route.cluster, "kind": "clusters"},
            )
        return identity

    def authorise(self, request: Request, scope: Mapping[str, Any]) -> None:
        """Whoever is asking, or in whose name, may do it. Raises BadRequest, Forbidden; NotFound where the
        cluster went while the request waited."""
        request.check_still()
        cluster = request.route.cluster
        # Most name nobody, which one look at all headers tells.
        some = impersonation.PREFIX in b"\n".join(request.headers).lower()
        someone = impersonation.wanted(scope["headers"]) if some else None
        if someone is not None:
            request.identity = impersonation.become(request.identity, cluster, someone, self._access)
        if cluster:
            asked = attributes(request)
            request.decision = self._access.decide(request.identity, cluster, asked)
            if not request.decision.allowed:
                raise forbidden(request.identity, asked, request.decision.reason)


def header(scope: Mapping[str, Any], name: bytes) -> bytes:
    """A header's first value; nothing where it is not sent."""
    return next((value for each, value in scope["headers"] if each == name), b"")


def _bearer(authorization: bytes) -> str:
    """The token of an Authorization header; "" for any other scheme."""
    scheme, _, token = authorization.decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
