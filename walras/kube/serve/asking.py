"""What a request asks to do, as access control sees it (k8s.io/apiserver/pkg/endpoints/request)."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from walras.kube.access.words import Attributes
from walras.kube.serve.paths import Route
from walras.kube.serve.requests import Request, flag

_VERBS: Final = {"GET": "get", "HEAD": "get", "OPTIONS": "get", "POST": "create", "PUT": "update",
                 "PATCH": "patch", "DELETE": "delete"}  # fmt: skip
_COLLECTIVE: Final = {"get": "list", "delete": "deletecollection"}
_ONE_NAME: Final = "metadata.name="


def attributes(request: Request) -> Attributes:
    """What is to be done with a resource, or with a path that is none."""
    route, method = request.route, request.method
    if route.place != "resource":
        return Attributes("get" if method == "HEAD" else method.lower(), path=path(route))
    name, namespace = route.name, route.namespace
    verb = _VERBS.get(method, method.lower())
    if not name:
        verb = _COLLECTIVE.get(verb, verb)
    if verb in ("get", "list") and not route.subresource and flag(request.query, "watch"):
        verb = "watch"
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _selected(request.query.get("fieldSelector", ""))
    if route.plural == "namespaces" and not route.group and name:
        namespace = name
    return Attributes(verb, route.group, route.plural, route.subresource, namespace, name)


def path(route: Route) -> str:
    """The path of what is no resource, in its one spelling, below /clusters/NAME."""
    match route.place:
        case "root":
            return "/"
        case "unknown":
            return f"/{unquote(route.rest)}"
        case "group":
            return f"/apis/{route.group}"
        case "resources":
            return f"/apis/{route.group}/{route.version}" if route.group else f"/api/{route.version}"
        case "openapi":
            return f"/openapi/{route.rest}"
        case "walras":
            return f"/walras/v1/{route.rest}"
        case "health":
            return f"/{route.name}"
        case "keys":
            return "/openid/v1/jwks"
        case "issuer":
            return "/.well-known/openid-configuration"
    return f"/{route.place}"


def _selected(fields: str) -> str:
    """The name that a field selector asks for, so that a rule with resourceNames can allow it."""
    for term in fields.split(","):
        if term.startswith(_ONE_NAME):
            return term.removeprefix(_ONE_NAME).removeprefix("=")
    return ""
