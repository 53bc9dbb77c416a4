"""OpenAPI documents over HTTP: by version, group and media type, each under its ETag."""

from __future__ import annotations

from collections.abc import Callable

from walras.kube import openapi
from walras.kube.openapi_protobuf import MEDIA_TYPES
from walras.kube.registry import Registry
from walras.kube.serve import discovery, negotiate
from walras.kube.serve.answers import JSON, Answer, Headers
from walras.kube.serve.requests import Request


def openapi_document(registry: Registry, request: Request) -> Answer:
    """The answer to a path below /openapi; not found where there is no document."""
    match request.route.rest.split("/"):
        case ["v2"]:
            return _openapi_v2(registry, request)
        case ["v3"]:
            return Answer(openapi.index(registry))
        case ["v3", "api", version]:
            group = ""
        case ["v3", "apis", group, version]:
            pass
        case _:
            return discovery.not_found()
    if not registry.of(group, version):
        return discovery.not_found()
    digest, asked = openapi.digest(registry, (group, version)), request.query.get("hash")
    if asked and asked != digest:
        # A client that comes with an older index is shown to the document that there is now.
        where = f"{request.prefix}/openapi/{request.route.rest}?hash={digest}"
        return Answer(b"", 301, headers=((b"location", where.encode()),))
    # The index names a document by its hash, so what was read under one never changes.
    fresh = ((b"cache-control", b"public, immutable"),) if asked else ()
    return _versioned(request, digest, lambda: openapi.document(registry, (group, version)), fresh)


def _openapi_v2(registry: Registry, request: Request) -> Answer:
    """In protobuf for who asks for it first, which is what older clients read."""
    digest = openapi.digest(registry)
    wanted = next(iter(negotiate.clauses(request.header(b"accept"))), ("", {}))[0]
    if wanted in MEDIA_TYPES:
        media = MEDIA_TYPES[-1].encode()
        return _versioned(request, digest, lambda: openapi.document_v2_protobuf(registry), (), media)
    return _versioned(request, digest, lambda: openapi.document_v2(registry), ())


def _versioned(
    request: Request, digest: str, make: Callable[[], bytes], headers: Headers, media: bytes = JSON
) -> Answer:
    """A document under its ETag; 304 to who has it already."""
    etag = f'"{digest}"'
    headers = (*headers, (b"etag", etag.encode()), (b"vary", b"Accept"))
    if etag in request.header(b"if-none-match"):
        return Answer(b"", 304, headers=headers)
    return Answer(make(), content_type=media, headers=headers)
