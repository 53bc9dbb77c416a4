"""HTTP requests for resources, turned into the request verbs and their outcomes into answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import (
    BadRequest,
    Cause,
    Expired,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    ServiceUnavailable,
    WalrasError,
)
from walras.kube import machines, objects, patching, policy
from walras.kube.access.authoriser import Authoriser
from walras.kube.context import Context
from walras.kube.listing import matcher, not_yet, parse_revision
from walras.kube.options import deleting, invalid, is_dry_run
from walras.kube.record import Key
from walras.kube.registry import Registry, Resource
from walras.kube.serve import discovery, negotiate, pods, proxy, reviews, status, tokens, watching
from walras.kube.serve import machines as machine_acts
from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.converting import Converting
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.interactive import Interactive
from walras.kube.serve.ports import PodAccess
from walras.kube.serve.requests import Request, delete_options, flag, whole_number
from walras.kube.serve.watching import Following
from walras.kube.verbs import Verbs

Object = dict[str, Any]
Outcome = Answer | Stream | Following
Writer = Callable[[Request, Resource], Awaitable[Answer]]

_ACTING: Final = ("attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "token")


class Resources:
    """The resource paths of every cluster."""

    def __init__(
        self,
        verbs: Verbs,
        clock: Clock,
        credentials: Credentials,
        access: Authoriser,
        interactive: Interactive,
    ) -> None:
        self._verbs = verbs
        self._clock = clock
        self._credentials = credentials
        self._access = access
        self.pods: PodAccess | None = None
        self._interactive = interactive
        # By method, and whether an object and a subresource are named.
        self._writers: Mapping[tuple[str, bool, bool], Writer] = {
            ("POST", False, False): self._create,
            ("PUT", True, False): self._update,
            ("PUT", True, True): self._update,
            ("PATCH", True, False): self._patch,
            ("PATCH", True, True): self._patch,
            ("DELETE", True, False): self._delete,
            ("DELETE", False, False): self._delete_collection,
        }

    async def handle(self, request: Request, resource: Resource, registry: Registry) -> Outcome:
        """The answer to a request for `resource`. Raises the errors that become a Status."""
        route = request.route
        if not resource.builtin and not _is_served(request, resource):
            return discovery.not_found()
        if route.namespace and not resource.namespaced:
            raise NotFound(status.NOT_SERVED)
        if resource.group == machines.GROUP:
            return await machine_acts.answer(request, self._interactive.machines)
        if resource.group in reviews.GROUPS:
            return await self._review(request, resource, registry)
        if resource.key == "bindings":
            return await self._bindings(request, registry)
        if route.subresource in _ACTING and route.subresource in resource.subresources:
            return await self._act(request, resource)
        if route.subresource and route.subresource not in resource.subresources:
            raise _no_such_subresource(resource, route.name)
        if route.subresource == "finalize" and request.method != "PUT":
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        if request.method == "GET" or (request.method == "HEAD" and not resource.builtin):
            return await self._read(request, resource)
        write = self._writers.get((request.method, bool(route.name), bool(route.subresource)))
        # Writes without a namespace would concern all of them; only reads do.
        if write is None or (resource.namespaced and not route.namespace):
            raise _not_allowed(request, resource)
        return await write(request, resource)

    # Reads

    async def _read(self, request: Request, resource: Resource) -> Outcome:
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
        return self._one(request, resource, shape, obj)

    def _check_reached(self, request: Request) -> None:
        """Raises Timeout for a read of a later state than there is, Unclassified for nonsense."""
        wanted = parse_revision(request.query["resourceVersion"])
        current = self._verbs.api.revision(request.route.cluster)
        if wanted > current:
            raise not_yet(wanted, current)

    def _one(
        self,
        request: Request,
        resource: Resource,
        shape: negotiate.Representation,
        obj: Object,
        code: int = 200,
    ) -> Answer:
        include = request.query.get("includeObject", "")
        body = negotiate.one(resource, obj, shape, include, self._clock.now_ms)
        return Answer(body, code, shape.content_type)

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
        include = query.get("includeObject", "")
        body = negotiate.many(resource, page.items, metadata, shape, include, self._clock.now_ms)
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

    # Writes

    async def _create(self, request: Request, resource: Resource) -> Answer:
        shape = negotiate.wanted(resource, request.header(b"accept"))
        request.check_media()
        context, body = request.context("CreateOptions"), await request.decoded(resource.kind)
        context.duplicates, context.repeats = body.duplicates, body.repeats
        created = await self._verbs.create(context, resource, request.route.namespace, body.value)
        return self._one(request, resource, shape, created, 201)

    async def _update(self, request: Request, resource: Resource) -> Answer:
        shape, route = negotiate.wanted(resource, request.header(b"accept")), request.route
        context, body = request.context("UpdateOptions"), await request.decoded(resource.kind)
        context.duplicates, context.repeats = body.duplicates, body.repeats
        is_new = not route.subresource and self._verbs.makes(
            route.cluster, resource, route.namespace, route.name
        )
        updated = await self._verbs.update(
            context, resource, route.namespace, route.name, body.value, subresource=route.subresource
        )
        return self._one(request, resource, shape, updated, 201 if is_new else 200)

    def _is_new(self, request: Request, resource: Resource) -> bool:
        """Whether there is nothing of the name yet."""
        route = request.route
        return self._verbs.api.find(route.cluster, resource.storage.key, route.namespace, route.name) is None

    async def _patch(self, request: Request, resource: Resource) -> Answer:
        media = patching.media_type(resource, request.header(b"content-type"))
        shape, route = negotiate.wanted(resource, request.header(b"accept")), request.route
        body = await request.body()
        context = request.context("PatchOptions", media)
        context.patching = True
        if media == patching.APPLY:
            # Only an apply must name its manager itself.
            context.field_manager = request.query.get("fieldManager", "")
        is_new = self._is_new(request, resource)
        patched = await self._verbs.patch(
            context,
            resource,
            route.namespace,
            route.name,
            body,
            media,
            subresource=route.subresource,
            force=flag(request.query, "force"),
        )
        return self._one(request, resource, shape, patched, 201 if is_new else 200)

    async def _delete(self, request: Request, resource: Resource) -> Answer:
        shape, route = negotiate.wanted(resource, request.header(b"accept")), request.route
        context, options = await self._deletion(request)
        outcome = await self._verbs.delete(context, resource, route.namespace, route.name, options)
        # Who says it in the old way is told when something keeps the object.
        lingers = options.get("orphanDependents") is False and self._is_going(request, resource)
        return self._one(request, resource, shape, outcome, 202 if lingers else 200)

    def _is_going(self, request: Request, resource: Resource) -> bool:
        """Whether the object is still there, being deleted."""
        route = request.route
        found = self._verbs.api.find(route.cluster, resource.storage.key, route.namespace, route.name)
        return found is not None and "deletionTimestamp" in found["metadata"]

    async def _delete_collection(self, request: Request, resource: Resource) -> Answer:
        if "deletecollection" not in resource.verbs:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        context, options = await self._deletion(request)
        outcome = await self._verbs.delete_collection(
            context,
            resource,
            request.route.namespace,
            options,
            label_selector=request.query.get("labelSelector", ""),
            field_selector=request.query.get("fieldSelector", ""),
        )
        return self._one(request, resource, negotiate.PLAIN, outcome)

    async def _deletion(self, request: Request) -> tuple[Context, Object]:
        """The options of a deletion: its body's, else those of the query. Raises BadRequest, Invalid."""
        context = request.context()
        if await _has_body(request):
            found = deleting((await request.decoded("DeleteOptions")).value)
        else:
            found = delete_options(request.query)
        context.dry_run = is_dry_run(found)
        return context, found

    # What is done rather than stored

    async def _review(self, request: Request, resource: Resource, registry: Registry) -> Answer:
        if request.method != "POST" or request.route.name:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        shape = negotiate.wanted(resource, request.header(b"accept"))
        if shape.as_:
            raise NotAcceptable(f"a {resource.kind} is no object that could be shown as a {shape.as_}")
        route, cluster = request.route, request.route.cluster
        if resource.namespaced and not route.namespace:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)

        def refusal(verb: str, key: str, subresource: str) -> str:
            return policy.refusal(cluster, verb, key, subresource)

        body = (await request.decoded()).value
        reviewer = reviews.Reviewer(
            request.identity, cluster, registry, refusal, self._access, self._credentials
        )
        answered = reviewer.review(resource, body, route.namespace)
        return self._one(request, resource, shape, answered, 201)

    async def _act(self, request: Request, resource: Resource) -> Outcome:
        if resource.key == objects.ACCOUNTS:
            return await self._token(request)
        if (resource.key, request.route.subresource) == ("services", "proxy"):
            return await self._to_service(request, resource)
        if resource.key != "pods":
            raise _no_such_subresource(resource, request.route.name)
        match request.route.subresource, request.method:
            case "attach" | "exec" | "portforward", "GET" | "POST":
                raise await self._interactive.refusal(request, resource)
            case "log", "GET":
                access, pod = self._pod_access(), self._pod(request, resource, request.route.name)
                now_ms = self._clock.now_ms()
                return await pods.log(access, request.route.cluster, pod, request.query, now_ms)
            case "proxy", _:
                access = self._pod_access()
                scheme, name, port = proxy.target(request.route.name)
                pod = self._pod(request, resource, name)
                number = proxy.port_of(pod, port)
                options = {"kind": "PodProxyOptions", "apiVersion": "v1", "path": request.route.rest}
                await self._verbs.connect(
                    request.context(), resource, request.route.namespace, name, "proxy", options
                )
                return await proxy.forward(
                    access, request.route.cluster, pod, number, request, secure=scheme == "https"
                )
            case "binding", "POST":
                return await self._bind(request, resource, request.route.name)
            case "eviction", "POST":
                return await self._evict(request, resource)
        raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)

    async def _to_service(self, request: Request, resource: Resource) -> Outcome:
        """What a pod behind a Service answers."""
        access, cluster, namespace = self._pod_access(), request.route.cluster, request.route.namespace
        scheme, name, port = proxy.target(request.route.name)
        service, api = self._pod(request, resource, name), self._verbs.api
        found = api.find(cluster, "endpoints", namespace, name)
        pod, number = proxy.behind(
            service, found, port, lambda each: api.find(cluster, objects.PODS, namespace, each)
        )
        options = {"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": request.route.rest}
        await self._verbs.connect(request.context(), resource, namespace, name, "proxy", options)
        return await proxy.forward(access, cluster, pod, number, request, secure=scheme == "https")

    async def _token(self, request: Request) -> Answer:
        if request.method != "POST":
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        route, context = request.route, request.context("CreateOptions")
        body = (await request.decoded(limit=tokens.BODY_BYTES_MAX)).value
        made = tokens.request(
            self._verbs.api, self._credentials.accounts, context.cluster, route.namespace, route.name, body
        )
        if context.dry_run:
            made["status"] = {}
        return Answer(negotiate.PLAIN.encode(made), 201)

    def _pod_access(self) -> PodAccess:
        if self.pods is None:
            raise ServiceUnavailable("no runtime is connected to this server yet", retry_after_s=1)
        return self.pods

    def _pod(self, request: Request, resource: Resource, name: str) -> Object:
        return self._verbs.get(request.context(), resource, request.route.namespace, name)

    async def _bindings(self, request: Request, registry: Registry) -> Answer:
        """`bindings`, the older way to pods/NAME/binding: the body's name is the pod's."""
        if request.method != "POST" or request.route.name:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        body = (await request.decoded()).value
        name = (body.get("metadata") or {}).get("name")
        if not isinstance(name, str) or not name:
            raise BadRequest("metadata.name: Required value")
        return await self._bind(request, registry[objects.PODS], name, body)

    async def _bind(
        self, request: Request, resource: Resource, name: str, body: Object | None = None
    ) -> Answer:
        route, context = request.route, request.context("CreateOptions")
        body = (await request.decoded()).value if body is None else body
        node, now = pods.target(body, name), rfc3339(self._clock.now_ms())
        annotations = body["metadata"].get("annotations") or {}

        def change(pod: Object) -> None:
            pods.check_unbound(pod)
            pods.bind(pod, node, annotations, now)

        pods.check_unbound(self._pod(request, resource, name))
        if not context.dry_run:
            await self._verbs.api.edit(route.cluster, resource.key, route.namespace, name, change)
        return Answer(negotiate.PLAIN.encode(status.success(201)), 201)

    async def _evict(self, request: Request, resource: Resource) -> Answer:
        route, context = request.route, request.context("CreateOptions")
        body = (await request.decoded()).value
        await self._verbs.evict(context, resource, route.namespace, route.name, body)
        return Answer(negotiate.PLAIN.encode(status.success(201)), 201)


async def _has_body(request: Request) -> bool:
    return request.header(b"content-length") not in ("", "0") or b"transfer-encoding" in request.headers


def _is_served(request: Request, resource: Resource) -> bool:
    """Whether the path of a custom resource is in a namespace, or is not, as its scope has it."""
    listed = request.method in ("GET", "HEAD") and not request.route.name
    return resource.namespaced == bool(request.route.namespace) or (resource.namespaced and listed)


def _not_allowed(request: Request, resource: Resource) -> WalrasError:
    """Of custom resources upstream says it in words of its own."""
    if resource.builtin:
        return MethodNotAllowed(status.METHOD_NOT_ALLOWED)
    if request.method in ("PUT", "PATCH") and not request.route.name:
        return BadRequest("name must be provided")
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "")
    details = {"group": resource.group, "kind": resource.plural}
    said = f'{verb} is not supported on resources of kind "{resource.key}"'
    return MethodNotAllowed(said, details=details)


def _no_such_subresource(resource: Resource, name: str) -> NotFound:
    if not resource.builtin:
        return objects.not_found(resource.key, name)
    return NotFound(status.NOT_SERVED)


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
