"""HTTP requests for resources, turned into the request verbs and their outcomes into answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from walras.core.clock import Clock
from walras.core.errors import BadRequest, MethodNotAllowed, NotFound, WalrasError
from walras.kube import machines, patching
from walras.kube.context import Context
from walras.kube.options import deleting, is_dry_run
from walras.kube.registry import Registry, Resource
from walras.kube.serve import discovery, negotiate, reviews, status
from walras.kube.serve import machines as machine_acts
from walras.kube.serve.acting import ACTING, Actor, no_such_subresource
from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.interactive import Interactive
from walras.kube.serve.reading import Reader, shown
from walras.kube.serve.requests import Request, delete_options, flag
from walras.kube.serve.watching import Following
from walras.kube.verbs import Verbs

Object = dict[str, Any]
Outcome = Answer | Stream | Following
Writer = Callable[[Request, Resource], Awaitable[Answer]]


class Resources:
    """The resource paths of every cluster."""

    def __init__(self, verbs: Verbs, clock: Clock, actor: Actor, interactive: Interactive) -> None:
        self._verbs = verbs
        self._clock = clock
        self._actor = actor
        self._interactive = interactive
        self._reader = Reader(verbs, clock)
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
            return await self._actor.review(request, resource, registry)
        if resource.key == "bindings":
            return await self._actor.bindings(request, registry)
        if route.subresource in ACTING and route.subresource in resource.subresources:
            return await self._actor.act(request, resource)
        if route.subresource and route.subresource not in resource.subresources:
            raise no_such_subresource(resource, route.name)
        if route.subresource == "finalize" and request.method != "PUT":
            raise MethodNotAllowed(status.METHOD_NOT_ALLOWED)
        if request.method == "GET" or (request.method == "HEAD" and not resource.builtin):
            return await self._reader.read(request, resource)
        write = self._writers.get((request.method, bool(route.name), bool(route.subresource)))
        # Writes without a namespace would concern all of them; only reads do.
        if write is None or (resource.namespaced and not route.namespace):
            raise _not_allowed(request, resource)
        return await write(request, resource)

    # Writes

    async def _create(self, request: Request, resource: Resource) -> Answer:
        shape = negotiate.wanted(resource, request.header(b"accept"))
        request.check_media()
        context, body = request.context("CreateOptions"), await request.decoded(resource.kind)
        context.duplicates, context.repeats = body.duplicates, body.repeats
        created = await self._verbs.create(context, resource, request.route.namespace, body.value)
        return shown(request, resource, shape, created, self._clock.now_ms, 201)

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
        return shown(request, resource, shape, updated, self._clock.now_ms, 201 if is_new else 200)

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
        return shown(request, resource, shape, patched, self._clock.now_ms, 201 if is_new else 200)

    async def _delete(self, request: Request, resource: Resource) -> Answer:
        shape, route = negotiate.wanted(resource, request.header(b"accept")), request.route
        context, options = await self._deletion(request)
        outcome = await self._verbs.delete(context, resource, route.namespace, route.name, options)
        # Who says it in the old way is told when something keeps the object.
        lingers = options.get("orphanDependents") is False and self._is_going(request, resource)
        return shown(request, resource, shape, outcome, self._clock.now_ms, 202 if lingers else 200)

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
        return shown(request, resource, negotiate.PLAIN, outcome, self._clock.now_ms)

    async def _deletion(self, request: Request) -> tuple[Context, Object]:
        """The options of a deletion: its body's, else those of the query. Raises BadRequest, Invalid."""
        context = request.context()
        if await _has_body(request):
            found = deleting((await request.decoded("DeleteOptions")).value)
        else:
            found = delete_options(request.query)
        context.dry_run = is_dry_run(found)
        return context, found


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
