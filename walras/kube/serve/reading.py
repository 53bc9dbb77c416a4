"""GET requests for resources: one object, a list, a watch, in the representation that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from walras.core.clock import Clock
from walras.core.errors import Cause, Expired, MethodNotAllowed
from walras.kube.context import Context
from walras.kube.listing import matcher, not_yet, parse_revision
from walras.kube.options import invalid
from walras.kube.record import Key
from walras.kube.registry import Resource
from walras.kube.serve import negotiate, status, watching
from walras.kube.serve.answers import Answer
from walras.kube.serve.converting import Converting
from walras.kube.serve.requests import Request, flag, whole_number
from walras.kube.serve.watching import Following
from walras.kube.steps import BYTES_MIN
from walras.kube.verbs import Verbs

Object = dict[str, Any]


class Reader:
    """Reads of every cluster."""

    def __init__(self, verbs: Verbs, clock: Clock) -> None:
        self._verbs = verbs
        self._clock = clock

    async def read(self, request: Request, resource: Resource) -> Answer | Following:
        """One object, a list or a watch. Raises the errors that become a Status."""
        shape = negotiate.wanted(resource, request.header(b"accept"), listed=not request.route.name)
        if flag(request.query, "watch"):
            return self._watch(request, resource, shape)
        route, context = request.route, request.context()
        if not route.name:
            return await self._list(request, resource, shape, context)
        if resource.namespaced and not route.namespace:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        if "resourceVersion" in request.query:
            self._check_reached(request)
        if shape == negotiate.PLAIN and not route.subresource and resource.is_as_stored:
            # As it lies in the store: neither decoded nor encoded.
            record = self._verbs.api.state.visible(
                Key(route.cluster, resource.key, route.namespace, route.name)
            )
            if record is not None:
                return Answer(record.raw)
        obj = await self._verbs.api.converter.known(
            context,
            lambda: self._verbs.get(context, resource, route.namespace, route.name, route.subresource),
        )
        return shown(request, resource, shape, obj, self._clock.now_ms)

    def _check_reached(self, request: Request) -> None:
        """Raises Timeout for a read of a later state than there is, Unclassified for nonsense."""
        wanted = parse_revision(request.query["resourceVersion"])
        current = self._verbs.api.revision(request.route.cluster)
        if wanted > current:
            raise not_yet(wanted, current)

    async def _list(
        self, request: Request, resource: Resource, shape: negotiate.Representation, context: Context
    ) -> Answer:
        query = request.query
        whole_number(query, "timeoutSeconds")
        page = await self._verbs.api.converter.known(
            context,
            lambda: self._verbs.list(
                context,
                resource,
                request.route.namespace,
                label_selector=query.get("labelSelector", ""),
                field_selector=query.get("fieldSelector", ""),
                limit=max(0, whole_number(query, "limit")),
                continue_=query.get("continue", ""),
                resource_version=query.get("resourceVersion", ""),
                resource_version_match=query.get("resourceVersionMatch", ""),
                send_initial_events="sendInitialEvents" in query,
            ),
        )
        metadata: Object = {"resourceVersion": page.resource_version}
        if page.continue_ or not (resource.builtin or shape.as_):
            metadata["continue"] = page.continue_
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
        if shape == negotiate.PLAIN and page.converted is None:
            # As they lie in the store: neither decoded nor encoded.
            return Answer(negotiate.joined(resource, [record.raw for record in page.records], metadata))
        given = (metadata, shape, query.get("includeObject", ""), self._clock.now_ms)
        raws = [record.raw for record in page.records] if page.converted is None else []
        if sum(map(len, raws)) >= BYTES_MIN:
            # Many rows take long to fill in.
            body = await self._verbs.aside.take(context, _listed, resource, raws, *given)
        else:
            body = negotiate.many(resource, page.items, *given)
        return Answer(body, 200, shape.content_type)

    def _watch(self, request: Request, resource: Resource, shape: negotiate.Representation) -> Following:
        route, query, context = request.route, request.query, request.context()
        if route.subresource:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        fields = query.get("fieldSelector", "")
        if route.name:
            fields = ",".join(filter(None, (fields, f"metadata.name={route.name}")))
        _check_initial_events(query)
        parse_revision(query.get("resourceVersion", ""))
        if shape.content_type is not negotiate.PLAIN.content_type:
            raise negotiate.unwatched()

        include, timeout_s = query.get("includeObject", ""), whole_number(query, "timeoutSeconds")
        timeout_s = min(timeout_s or watching.DEFAULT_TIMEOUT_S, watching.TIMEOUT_S_MAX)
        try:
            watch = self._verbs.watch(
                context,
                resource,
                route.namespace,
                label_selector=query.get("labelSelector", ""),
                field_selector=fields,
                resource_version=query.get("resourceVersion", ""),
                send_initial_events=flag(query, "sendInitialEvents"),
                bookmarks=flag(query, "allowWatchBookmarks"),
            )
        except Expired as error:
            # Clients expect this one as an event in a stream of status 200.
            return Following.failed(error)
        shaper = watching.shaper(resource, shape, include, self._clock.now_ms)
        if resource.converter is not None and shaper is not None:
            matches = matcher(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
            where, converter = (route.cluster, resource), self._verbs.api.converter
            return Converting(watch, shaper, timeout_s, converter, where, matches)
        return Following(watch, shaper, timeout_s)


def shown(
    request: Request,
    resource: Resource,
    shape: negotiate.Representation,
    obj: Object,
    now: Callable[[], int],
    code: int = 200,
) -> Answer:
    """One object as the request wants it."""
    body = negotiate.one(resource, obj, shape, request.query.get("includeObject", ""), now)
    return Answer(body, code, shape.content_type)


def _listed(
    resource: Resource,
    raws: list[bytes],
    metadata: Object,
    shape: negotiate.Representation,
    include_object: str,
    now: Callable[[], int],
) -> bytes:
    """As `negotiate.many`, of objects in JSON: nothing that is decoded is kept, or shared with others."""
    return negotiate.many(resource, [*map(_decode, raws)], metadata, shape, include_object, now)


_decode = msgspec.json.Decoder().decode


def _check_initial_events(query: Mapping[str, str]) -> None:
    """Raises Invalid for parameters that no watch takes together."""
    match, field = query.get("resourceVersionMatch", ""), "resourceVersionMatch"
    asked, forbidden = "sendInitialEvents" in query, "FieldValueForbidden"
    causes: list[Cause] = []
    if asked and match != "NotOlderThan":
        said = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        causes.append(Cause(forbidden, said, field))
    if match and not asked:
        said = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        causes.append(Cause(forbidden, said, field))
    if match and match != "NotOlderThan":
        said = f'Unsupported value: "{match[:64]}": supported values: "NotOlderThan"'
        causes.append(Cause("FieldValueNotSupported", said, field))
    if match and query.get("continue"):
        said = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        causes.append(Cause(forbidden, said, field))
    if causes:
        raise invalid("ListOptions", *causes)
