"""The verbs that clients from outside use: what they send is not trusted, what they may do is limited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from walras.core.errors import BadRequest, Invalid
from walras.kube import (
    applying_scale,
    bodies,
    covering,
    decoding,
    objects,
    patching,
    policy,
    scaling,
    strategies,
    versions,
    writing,
)
from walras.kube.admission.call import Call
from walras.kube.api import API
from walras.kube.context import Context, Identity
from walras.kube.deleting import Deleter
from walras.kube.events import bookmark
from walras.kube.hub import View
from walras.kube.listing import Lister, Page, matcher, named, not_yet, parse_revision
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.staging import Stager
from walras.kube.steps import Untaken
from walras.kube.transaction import Transaction
from walras.kube.watch import Watch

__all__ = ["OBJECTS_MAX", "Context", "Identity", "Page", "Verbs"]

OBJECTS_MAX: Final = 10_000


def default_quota(cluster: str) -> int:
    """How many objects a cluster may hold unless somebody says otherwise."""
    return 1_000_000 if cluster == policy.FLEET else OBJECTS_MAX


class Verbs:
    """Requests against the clusters of an API. `quota` gives how many objects a cluster may hold.

    Reads and writes raise what Kubernetes would answer; a dry run does everything but the commit.
    """

    def __init__(self, api: API, quota: Callable[[str], int] = default_quota) -> None:
        self.api = api
        self._lister = Lister(api)
        self._admission = api.admission
        self._writer = writing.Writer(api, quota)
        self._stager = Stager(api)
        self.aside = self._stager.aside
        self._deleter = Deleter(api, self._stager, self._lister)
        self.delete = self._deleter.delete
        self.delete_collection = self._deleter.delete_collection
        self.evict = self._deleter.evict

    # Reads

    def get(
        self, ctx: Context, resource: Resource, namespace: str, name: str, subresource: str = ""
    ) -> Object:
        """The object in the resource's version, or for "scale" the view of it. NotFound, Forbidden.

        Raises Unconverted where a webhook has to be asked first: see `Converter.known`.
        """
        policy.check_verb(ctx, "get", resource, namespace, subresource)
        found = self.api.get(ctx.cluster, resource.storage.key, namespace, name)
        shown = versions.served(resource, found, ctx.conversions)
        return scaling.view(resource, shown, strict=True) if subresource == "scale" else shown

    def list(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        send_initial_events: bool = False,
    ) -> Page:
        """Objects by (namespace, name); namespace "" is all of them.

        Raises BadRequest, Invalid, Expired for a revision that is gone, Timeout for one still to come;
        Unconverted as `get`.
        """
        policy.check_verb(ctx, "list", resource, namespace)
        page = self._lister.page(
            ctx.cluster,
            resource,
            namespace,
            (label_selector, field_selector),
            limit=limit,
            continue_=continue_,
            resource_version=resource_version,
            match=resource_version_match,
            initial_events=send_initial_events,
            conversions=ctx.conversions,
        )
        if resource.is_as_stored:
            return page
        return replace(page, converted=versions.all_served(resource, page.items, ctx.conversions))

    def watch(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        send_initial_events: bool = False,
        bookmarks: bool = False,
    ) -> Watch:
        """A stream of (type, object as it is stored, which `versions.served` translates); to be closed.

        Where a webhook converts, whoever translates has to select as well.
        With `send_initial_events`, or without a resourceVersion, it begins with what there is.
        Raises Expired when the resourceVersion is too old, Timeout when initial events are to come from a
        revision that is not reached yet.
        """
        policy.check_verb(ctx, "watch", resource, namespace)
        kind = (resource.api_version, resource.kind)
        name, matches = named(field_selector), None
        if label_selector or not name:
            matches = matcher(resource, label_selector, field_selector)
        whole = resource.converter is not None
        if whole:
            matches = None
        told = kind if bookmarks else None
        view = View(ctx.cluster, resource.storage.key, namespace, matches, told, name, whole)
        wanted, current = parse_revision(resource_version), self.api.revision(ctx.cluster)
        if send_initial_events:
            if wanted > current:
                raise not_yet(wanted, current)
            watch = self.api.watch(view, initial=True)
            if bookmarks:
                watch.append(bookmark(*kind, current, initial_end=True))
            return watch
        if wanted == 0:
            return self.api.watch(view, initial=True)
        return self.api.watch(view, wanted)

    # Writes

    async def create(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        obj: Object,
        *,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """The new object. `name` is that of the URL, for subresources that are created."""
        policy.check_verb(ctx, "create", resource, namespace, subresource)
        shaped = await self._decoded(ctx, resource, obj)
        if name:
            covering.call(shaped["metadata"], name)
        return await self._written(
            ctx, resource, lambda tx: self._writer.create(ctx, tx, resource, namespace, shaped)
        )

    async def update(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Object,
        *,
        subresource: str = "",
    ) -> Object:
        """The object after a PUT of `obj`. Raises Conflict when `obj` was made from an older version."""
        policy.check_verb(ctx, "update", resource, namespace, subresource)
        if subresource == "scale":
            scale = await self._decoded(ctx, scaling.SCALE, obj)
            covering.place(scale["metadata"], namespace)
            covering.call(scale["metadata"], name)
            return await self._scale(ctx, resource, namespace, name, lambda _: scale)
        try:
            shaped = await self._decoded(ctx, resource, obj)
        except Invalid:
            # Of which kind it is matters where there is something.
            self.api.get(ctx.cluster, resource.storage.key, namespace, name)
            raise
        covering.place(shaped["metadata"], namespace)
        covering.call(shaped["metadata"], name)
        # Before anybody looks whether there is something to update, as upstream.
        writing.drop_repeated_owners(ctx, shaped["metadata"])
        if not subresource and self.makes(ctx.cluster, resource, namespace, name):
            policy.authorise(ctx, "create", resource, namespace)
            covering.without_version(resource, shaped["metadata"], name)
            return await self._written(
                ctx, resource, lambda tx: self._writer.create(ctx, tx, resource, namespace, shaped)
            )
        return await self._written(
            ctx,
            resource,
            lambda tx: self._writer.update(ctx, tx, resource, namespace, name, subresource, lambda _: shaped),
        )

    async def _decoded(self, ctx: Context, resource: Resource, obj: Object) -> Object:
        while True:
            try:
                return decoding.decoded(ctx, resource, obj)
            except Untaken as untaken:
                await self.aside.learn(ctx, untaken)

    def makes(self, cluster: str, resource: Resource, namespace: str, name: str) -> bool:
        """Whether a PUT would make the object: it is not there, and of a type that is made so."""
        key = resource.storage.key
        if not resource.builtin or key not in strategies.MADE_BY_UPDATE:
            return False
        return self.api.transaction().peek(cluster, key, namespace, name) is None

    async def patch(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        name: str,
        body: bytes,
        content_type: str,
        *,
        subresource: str = "",
        force: bool = False,
    ) -> Object:
        """The object after a patch; a server-side apply also creates what is not there."""
        policy.check_verb(ctx, "patch", resource, namespace, subresource)
        media = patching.media_type(resource, content_type)
        if media == patching.APPLY:
            take = partial(self.aside.take, ctx)
            document = await bodies.decode(body, "application/yaml", take=take)
            ctx.repeats = document.repeats
            if subresource:
                # There must be something before anybody looks at what is said of a part of it.
                self.api.get(ctx.cluster, resource.storage.key, namespace, name)
            if subresource == "scale":
                scale = self._applied(scaling.SCALE, document.value)
                return await self._apply_scale(ctx, resource, namespace, name, scale, force=force)
            applied = self._applied(resource, document.value)
            return await self._written(
                ctx,
                resource,
                lambda tx: self._writer.apply(
                    ctx, tx, resource, namespace, name, subresource, applied, force=force
                ),
            )
        if subresource == "scale":
            patched = patching.patcher(ctx, scaling.SCALE, body, media, of=resource)
            return await self._scale(ctx, resource, namespace, name, patched)
        patched = patching.patcher(ctx, resource, body, media, status=subresource == "status")
        return await self._written(
            ctx,
            resource,
            lambda tx: self._writer.update(ctx, tx, resource, namespace, name, subresource, patched),
        )

    def _applied(self, resource: Resource, obj: Object) -> Object:
        """A configuration that is of the type. Raises BadRequest."""
        version, kind = str(obj.get("apiVersion") or ""), str(obj.get("kind") or "")
        if (version, kind) != (resource.api_version, resource.kind):
            prefix = version if "/" in version else f"/{version}"
            raise BadRequest(f"invalid object type: {prefix}, Kind={kind}")
        return obj

    async def _scale(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
    ) -> Object:
        def build(old: Object) -> Object:
            scale = change(applying_scale.owned(resource, old, scaling.changing(resource, old)))
            covering.place(scale["metadata"], namespace)
            covering.call(scale["metadata"], name)
            scaling.check_same(resource, old, scale)
            return scaling.scaled(resource, old, scale)

        scaled = await self._written(
            ctx, resource, lambda tx: self._writer.update(ctx, tx, resource, namespace, name, "scale", build)
        )
        return scaling.view(resource, scaled)

    async def connect(
        self, ctx: Context, resource: Resource, namespace: str, name: str, subresource: str, options: Object
    ) -> None:
        """Returns once a connection to the object may be made, such as an exec. Raises what forbids it."""
        found = self.api.get(ctx.cluster, resource.storage.key, namespace, name)

        def stage(tx: Transaction) -> None:
            asked = Call(
                self.api, tx, ctx, "CONNECT", resource, subresource, namespace, name, options, found, options
            )
            self._admission.mutate(asked)
            self._admission.validate(asked)

        await self._stager.write(ctx, stage)

    async def _apply_scale(
        self, ctx: Context, resource: Resource, namespace: str, name: str, scale: Object, *, force: bool
    ) -> Object:
        def stage(tx: Transaction) -> Object:
            now = self._writer.now(ctx)

            def build(old: Object) -> Object:
                return applying_scale.apply(
                    resource.alone, old, scale, manager=ctx.field_manager, force=force, now=now
                )

            return self._writer.update(ctx, tx, resource, namespace, name, "scale", build, record=False)

        return scaling.view(resource, await self._written(ctx, resource, stage))

    async def _written(
        self, ctx: Context, resource: Resource, stage: Callable[[Transaction], Object]
    ) -> Object:
        """The object that `stage` leaves, in the resource's version."""

        def whole(tx: Transaction) -> tuple[Object, Object | None]:
            stored = stage(tx)
            if objects.is_done(resource.storage, stored):
                # Who takes the last finalizer off is shown the version before the object went.
                stored = copied(stored)
            # Who converts is asked before anything is written.
            shown = versions.served(resource, stored, ctx.conversions) if resource.converter else None
            return stored, shown

        stored, shown = await self._stager.write(ctx, whole)
        if shown is None:
            return versions.served(resource, stored)
        return objects.with_version(shown, stored)
