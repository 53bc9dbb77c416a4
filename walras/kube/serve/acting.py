"""Requests by which something is done, not stored: reviews, bindings, evictions, logs, proxies, tokens."""

from __future__ import annotations

from typing import Any, Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import BadRequest, MethodNotAllowed, NotAcceptable, NotFound
from walras.kube import fields, objects, policy
from walras.kube.access.authoriser import Authoriser
from walras.kube.registry import Registry, Resource
from walras.kube.schema import Schema
from walras.kube.serve import negotiate, pods, proxy, reviews, status, tokens
from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.credentials import Credentials
from walras.kube.serve.interactive import Interactive
from walras.kube.serve.reading import shown
from walras.kube.serve.requests import Request
from walras.kube.verbs import Verbs

Object = dict[str, Any]

_BINDING: Final = "io.k8s.api.core.v1.Binding"
_EVICTION: Final = "io.k8s.api.policy.v1.Eviction"
# Of what is done by one of them: what it says is read where everybody waits.
_BODY_BYTES_MAX: Final = 512 << 10
# The subresources of this kind.
ACTING: Final = ("attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "token")


class Actor:
    """What is done in every cluster."""

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
        self._interactive = interactive

    async def review(self, request: Request, resource: Resource, registry: Registry) -> Answer:
        """What is asked of access control. Raises MethodNotAllowed, NotAcceptable."""
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
        return shown(request, resource, shape, answered, self._clock.now_ms, 201)

    async def act(self, request: Request, resource: Resource) -> Answer | Stream:
        """What comes of a subresource by which something is done."""
        if resource.key == objects.ACCOUNTS:
            return await self._token(request)
        if request.route.subresource == "proxy" and resource.key in (objects.PODS, objects.SERVICES):
            return await self._proxy(request, resource)
        if resource.key != objects.PODS:
            raise no_such_subresource(resource, request.route.name)
        match request.route.subresource, request.method:
            case "attach" | "exec" | "portforward", "GET" | "POST":
                raise await self._interactive.refusal(request, resource)
            case "log", "GET":
                access, pod = self._interactive.access(), self._named(request, resource, request.route.name)
                now_ms = self._clock.now_ms()
                return await pods.log(access, request.route.cluster, pod, request.query, now_ms)
            case "binding", "POST":
                return await self._bind(request, resource, request.route.name)
            case "eviction", "POST":
                return await self._evict(request, resource)
        raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)

    async def _proxy(self, request: Request, resource: Resource) -> Answer | Stream:
        """What a pod answers, or one behind a Service."""
        access, api = self._interactive.access(), self._verbs.api
        cluster, namespace = request.route.cluster, request.route.namespace
        scheme, name, port = proxy.target(request.route.name)
        found = self._named(request, resource, name)
        if resource.key == objects.PODS:
            pod, number = found, proxy.port_of(found, port)
        else:
            endpoints = api.find(cluster, "endpoints", namespace, name)
            pod, number = proxy.behind(
                found, endpoints, port, lambda each: api.find(cluster, objects.PODS, namespace, each)
            )
        options = {"kind": f"{resource.kind}ProxyOptions", "apiVersion": "v1", "path": request.route.rest}
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

    def _named(self, request: Request, resource: Resource, name: str) -> Object:
        return self._verbs.get(request.context(), resource, request.route.namespace, name)

    async def bindings(self, request: Request, registry: Registry) -> Answer:
        """`bindings`, the older way to pods/NAME/binding: the body's name is the pod's."""
        if request.method != "POST" or request.route.name:
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        body = await _small(request, _BINDING)
        name = body.get("metadata", {}).get("name")
        if not name:
            raise BadRequest("metadata.name: Required value")
        return await self._bind(request, registry[objects.PODS], name, body)

    async def _bind(
        self, request: Request, resource: Resource, name: str, body: Object | None = None
    ) -> Answer:
        route, context = request.route, request.context("CreateOptions")
        body = await _small(request, _BINDING) if body is None else body
        node, now = pods.target(body, name), rfc3339(self._clock.now_ms())
        annotations = body["metadata"].get("annotations") or {}

        def change(pod: Object) -> None:
            pods.check_unbound(pod)
            pods.bind(pod, node, annotations, now)

        pods.check_unbound(self._named(request, resource, name))
        if not context.dry_run:
            await self._verbs.api.edit(route.cluster, resource.key, route.namespace, name, change)
        return Answer(negotiate.PLAIN.encode(status.success(201)), 201)

    async def _evict(self, request: Request, resource: Resource) -> Answer:
        route, context = request.route, request.context("CreateOptions")
        body = await _small(request, _EVICTION)
        await self._verbs.evict(context, resource, route.namespace, route.name, body)
        return Answer(negotiate.PLAIN.encode(status.success(201)), 201)


async def _small(request: Request, kind: str) -> Object:
    """The body as what it is to be, without what that does not know. Raises BadRequest."""
    return fields.prune(Schema.named(kind), (await request.decoded(limit=_BODY_BYTES_MAX)).value)


def no_such_subresource(resource: Resource, name: str) -> NotFound:
    if not resource.builtin:
        return objects.not_found(resource.key, name)
    return NotFound(status.NOT_SERVED)
