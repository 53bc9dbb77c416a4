"""The path grammar of the Kubernetes API below /clusters/NAME, read by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import unquote

from walras.core.errors import BadRequest
from walras.kube import machines

Place = Literal[
    "health",
    "version",
    "root",
    "api",
    "apis",
    "group",
    "resources",
    "openapi",
    "keys",
    "issuer",
    "resource",
    "walras",
    "unknown",
]
HEALTH: Final = ("healthz", "livez", "readyz")
# What stands behind a namespace's name is another resource, but for the namespace's own subresources.
_NAMESPACE_SUBRESOURCES: Final = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `rest` is the undecoded tail of openapi, proxy, walras and unknown paths."""

    place: Place
    cluster: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


_UNKNOWN: Final = Route("unknown")
_REMEMBERED_MAX: Final = 256


def parse(raw_path: str) -> Route:
    """The route of an undecoded request path; place "unknown" when nothing of the kind is served.

    Raises BadRequest for a segment that no name can be.
    """
    return _remembered(raw_path) if len(raw_path) <= _REMEMBERED_MAX else _parse(raw_path)


def _parse(raw_path: str) -> Route:
    head, *tail = raw_path.removeprefix("/").split("/")
    if head != "clusters":
        return _within("", head, tail, raw_path)
    if not tail or not tail[0]:
        return _UNKNOWN
    cluster, inside = _decode(tail[0]), tail[1:]
    if not inside:
        return Route("root", cluster)
    prefix = len("/clusters/") + len(tail[0])
    return _within(cluster, inside[0], inside[1:], raw_path[prefix:])


# Clients ask for the same again and again; what is kept of that takes a megabyte.
_remembered = lru_cache(maxsize=2048)(_parse)


def _within(cluster: str, head: str, tail: list[str], path: str) -> Route:
    if tail and tail[-1] == "":
        tail = tail[:-1]
    if head in HEALTH:
        return Route("health", cluster, name=head)
    if head == "" and not tail:
        return Route("root", cluster)
    if head == "version" and not tail:
        return Route("version", cluster)
    if head == "openid" and tail == ["v1", "jwks"]:
        return Route("keys", cluster)
    if head == ".well-known" and tail == ["openid-configuration"]:
        return Route("issuer", cluster)
    if head == "openapi" and tail:
        return Route("openapi", cluster, rest="/".join(tail))
    if head == "walras" and tail and tail[0] == "v1":
        return Route("walras", cluster, rest="/".join(tail[1:]))
    if head == "api":
        return _core(cluster, tail, path)
    return (
        _groups(cluster, tail, path)
        if head == "apis"
        else replace(_UNKNOWN, cluster=cluster, rest=path.strip("/"))
    )


def _core(cluster: str, tail: list[str], path: str) -> Route:
    if not tail:
        return Route("api", cluster)
    return _resource(Route("resources", cluster, "", _decode(tail[0])), tail[1:], path)


def _groups(cluster: str, tail: list[str], path: str) -> Route:
    if not tail:
        return Route("apis", cluster)
    group = _decode(tail[0])
    if len(tail) == 1:
        return Route("group", cluster, group)
    return _resource(Route("resources", cluster, group, _decode(tail[1])), tail[2:], path)


def _resource(route: Route, segments: list[str], path: str) -> Route:
    if not segments:
        return route
    namespace = ""
    if len(segments) > 2 and segments[0] == "namespaces" and segments[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, segments = _decode(segments[1]), segments[2:]
    plural, name, subresource = (*map(_decode, segments[:3]), "", "", "")[:3]
    rest = ""
    if subresource == "proxy":
        rest = _behind(path, (3 if route.group else 2) + (2 if namespace else 0) + 3)
    elif subresource == "portforward" and route.group == machines.GROUP:
        # Port and protocol are in the path, and no business of access control.
        rest = "/".join(segments[3:])
    elif len(segments) > 3:
        # No subresource has another below it.
        subresource = "/".join(segments[2:])
    return replace(
        route,
        place="resource",
        namespace=namespace,
        plural=plural,
        name=name,
        subresource=subresource,
        rest=rest,
    )


def _behind(path: str, count: int) -> str:
    """What follows so many segments of a path, with its slash."""
    return "/".join(("", *path.split("/")[count + 1 :]))


def _decode(segment: str) -> str:
    text = unquote(segment) if "%" in segment else segment
    if text in (".", ".."):
        raise BadRequest(f"Name parameter invalid: \"{text}\": may not be '{text}'")
    if not text or "/" in text or "\x00" in text:
        raise BadRequest(f"the path segment {segment[:64]!r} cannot be a name")
    return text
