"""The verbs that clients from outside use: what they send is not trusted, what they may do is limited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from walras.core.errors import BadRequest, Conflict, MethodNotAllowed, NotFound
from walras.kube import bodies, deletion, objects, patching, policy, scaling, strategies, versions, writing
from walras.kube.admission.call import ROUNDS_MAX, Call, Unanswered
from walras.kube.api import API
from walras.kube.context import Context, Identity
from walras.kube.events import bookmark
from walras.kube.eviction import spend
from walras.kube.hub import View
from walras.kube.listing import Lister, Page, matcher, named, not_yet, parse_revision
from walras.kube.options import check_delete, check_preconditions, grace_s, is_dry_run, propagation
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.transaction import Transaction
from walras.kube.watch import Watch

__all__ = ["OBJECTS_MAX", "Context", "Identity", "Page", "Verbs"]

T = TypeVar("T")

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

    # Reads

    def get(
        self, ctx: Context, resource: Resource, namespace: str, name: str, subresource: str = ""
    ) -> Object:
        """The object in the resource's version, or for "scale" the view of it. NotFound, Forbidden."""
        self._check(ctx, "get", resource, namespace, subresource)
        found = self.api.get(ctx.cluster, resource.storage.key, namespace, name)
        return scaling.view(resource, found) if subresource == "scale" else versions.served(resource, found)

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

        Raises BadRequest, Invalid, Expired for a revision that is gone, Timeout for one still to come.
        """
        self._check(ctx, "list", resource, namespace)
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
        )
        if resource.is_as_stored:
            return page
        return replace(page, converted=[versions.served(resource, item) for item in page.items])

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

        With `send_initial_events`, or without a resourceVersion, it begins with what there is.
        Raises Expired when the resourceVersion is too old, Timeout when initial events are to come from a
        revision that is not reached yet.
        """
        self._check(ctx, "watch", resource, namespace)
        kind = (resource.api_version, resource.kind)
        name, matches = named(field_selector), None
        if label_selector or not name:
            matches = matcher(resource, label_selector, field_selector)
        view = View(ctx.cluster, resource.storage.key, namespace, matches, kind if bookmarks else None, name)
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
        self._check(ctx, "create", resource, namespace, subresource)
        shaped = writing.decoded(ctx, resource, obj)
        if name:
            writing.call(shaped["metadata"], name)
        created = await self._staged(
            ctx, lambda tx: self._writer.create(ctx, tx, resource, namespace, shaped)
        )
        return versions.served(resource, created)

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
        self._check(ctx, "update", resource, namespace, subresource)
        if subresource == "scale":
            scale = writing.decoded(ctx, scaling.SCALE, obj)
            writing.call(scale["metadata"], name)
            return await self._scale(ctx, resource, namespace, name, lambda _: scale)
        shaped = writing.decoded(ctx, resource, obj)
        writing.place(shaped["metadata"], namespace)
        writing.call(shaped["metadata"], name)
        if not subresource and self.makes(ctx.cluster, resource, namespace, name):
            policy.authorise(ctx, "create", resource, namespace)
            writing.without_version(resource, shaped["metadata"], name)
            created = await self._staged(
                ctx, lambda tx: self._writer.create(ctx, tx, resource, namespace, shaped)
            )
            return versions.served(resource, created)
        updated = await self._staged(
            ctx,
            lambda tx: self._writer.update(ctx, tx, resource, namespace, name, subresource, lambda _: shaped),
        )
        return versions.served(resource, updated)

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
        self._check(ctx, "patch", resource, namespace, subresource)
        media = patching.media_type(resource, content_type)
        if media == patching.APPLY:
            document = await bodies.decode(body, "application/yaml")
            ctx.repeats = document.repeats
            if subresource == "scale":
                scale = writing.decoded(ctx, scaling.SCALE, self._applied(scaling.SCALE, document.value))
                return await self._scale(ctx, resource, namespace, name, lambda _: scale)
            applied = self._applied(resource, document.value)
            changed = await self._staged(
                ctx,
                lambda tx: self._writer.apply(
                    ctx, tx, resource, namespace, name, subresource, applied, force=force
                ),
            )
            return versions.served(resource, changed)
        if subresource == "scale":
            patched = patching.patcher(ctx, scaling.SCALE, body, media)
            return await self._scale(ctx, resource, namespace, name, patched)
        patched = patching.patcher(ctx, resource, body, media)
        changed = await self._staged(
            ctx,
            lambda tx: self._writer.update(ctx, tx, resource, namespace, name, subresource, patched),
        )
        return versions.served(resource, changed)

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
            scale = change(scaling.view(resource, old))
            version = (scale.get("metadata") or {}).get("resourceVersion")
            if version not in (None, "", "0", old["metadata"]["resourceVersion"]):
                raise objects.conflict(resource.key, name)
            return scaling.scaled(resource, old, scale)

        scaled = await self._staged(
            ctx, lambda tx: self._writer.update(ctx, tx, resource, namespace, name, "scale", build)
        )
        return scaling.view(resource, scaled)

    async def delete(
        self, ctx: Context, resource: Resource, namespace: str, name: str, options: Object
    ) -> Object:
        """The object while something keeps it; else a Status of Success, or for some types the object."""
        self._check(ctx, "delete", resource, namespace)
        check_delete(options)
        policy.check_delete(resource, name)
        strategies.warn_of_orphans(ctx, resource, propagation(options))
        ctx = _with_dry_run(ctx, options)

        def stage(tx: Transaction) -> tuple[Object, bool]:
            current = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
            if current is None:
                raise objects.not_found(resource.key, name)
            check_preconditions(resource, current, options)
            deleted = self._delete(ctx, tx, resource, current, options)
            left = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
            return deleted, left is None or left["metadata"]["uid"] != current["metadata"]["uid"]

        deleted, gone = await self._staged(ctx, stage)
        if gone and resource.storage.key not in strategies.RETURNED:
            return _success(resource, deleted)
        if gone and resource.key == objects.PODS and "deletionTimestamp" not in deleted["metadata"]:
            # Of a pod that nothing keeps upstream shows the mark that it never had.
            deleted = copied(deleted)
            deletion.begin(resource, deleted, self.api.clock.now_ms(), grace_s(options), propagation(options))
        return versions.served(resource, deleted)

    async def evict(
        self, ctx: Context, resource: Resource, namespace: str, name: str, eviction: Object
    ) -> None:
        """Deletes a pod if its disruption budget allows it. Raises TooManyRequests."""
        self._check(ctx, "create", resource, namespace, "eviction")
        given = (eviction.get("metadata") or {}).get("name")
        if given not in (None, "", name):
            raise BadRequest("name in URL does not match name in Eviction object")
        options = eviction.get("deleteOptions") or {}
        if not isinstance(options, dict):
            raise BadRequest("deleteOptions: Invalid value: must be an object")
        ctx = _with_dry_run(ctx, options)

        def stage(tx: Transaction) -> None:
            pod = tx.peek(ctx.cluster, resource.key, namespace, name)
            if pod is None:
                raise objects.not_found(resource.key, name)
            check_preconditions(resource, pod, options)
            asked = Call(
                self.api, tx, ctx, "CREATE", resource, "eviction", namespace, name, eviction, None, options
            )
            self._admission.mutate(asked)
            self._admission.validate(asked)
            spend(self.api, tx, ctx.cluster, pod)
            tx.delete(
                ctx.cluster, resource.key, namespace, name,
                grace_seconds=grace_s(options), propagation=propagation(options),
            )  # fmt: skip

        await self._staged(ctx, stage)

    async def delete_collection(
        self,
        ctx: Context,
        resource: Resource,
        namespace: str,
        options: Object,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Object:
        """The list of the objects that were deleted, or marked, as they were before."""
        self._check(ctx, "deletecollection", resource, namespace)
        check_delete(options)
        ctx = _with_dry_run(ctx, options)
        selectors = (label_selector, field_selector)
        page = self._lister.page(
            ctx.cluster, resource, namespace, selectors, limit=0, continue_="", resource_version="", match=""
        )
        strategies.warn_of_orphans(ctx, resource, propagation(options))

        def stage(tx: Transaction) -> list[Object]:
            deleted = []
            for obj in page.items:
                policy.check_delete(resource, str(obj["metadata"]["name"]))
                where = (namespace and str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"]))
                if tx.peek(ctx.cluster, resource.storage.key, *where) is not None:
                    self._delete(ctx, tx, resource, obj, options)
                    deleted.append(obj)
            return deleted

        deleted = await self._staged(ctx, stage)
        return {
            "apiVersion": resource.api_version,
            "kind": resource.list_kind,
            "metadata": {
                **({} if resource.builtin else {"continue": ""}),
                "resourceVersion": str(self.api.revision(ctx.cluster)),
            },
            "items": [_item(resource, each) for each in deleted],
        }

    def _delete(
        self,
        ctx: Context,
        transaction: Transaction,
        resource: Resource,
        obj: Object,
        options: Object,
    ) -> Object:
        metadata = obj["metadata"]
        namespace, name = str(metadata.get("namespace") or ""), str(metadata["name"])
        asked = Call(self.api, transaction, ctx, "DELETE", resource, "", namespace, name, None, obj, options)
        self._admission.mutate(asked)
        self._admission.validate(asked)
        deleted = transaction.delete(
            ctx.cluster,
            resource.storage.key,
            namespace,
            name,
            grace_seconds=grace_s(options),
            propagation=strategies.propagation(resource, obj, propagation(options)),
        )
        default = self.api.state.defaults.get(resource.key, {}).get((namespace, name))
        if default and transaction.peek(ctx.cluster, resource.key, namespace, name) is None:
            # What every cluster has comes back as it was at first, and is the cluster's own from then on.
            transaction.create(ctx.cluster, resource.key, default.fresh())
        return deleted

    def _check(
        self, ctx: Context, verb: str, resource: Resource, namespace: str, subresource: str = ""
    ) -> None:
        """Raises Forbidden, MethodNotAllowed, NotFound before anything is looked at."""
        policy.authorise(ctx, verb, resource, namespace, subresource)
        if subresource and subresource not in resource.subresources:
            raise NotFound("the server could not find the requested resource")
        if not subresource and verb not in resource.verbs:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")

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

        await self._staged(ctx, stage)

    async def _staged(self, ctx: Context, stage: Callable[[Transaction], T]) -> T:
        """What `stage` returns, once that is committed, or would be in a dry run.

        Where somebody outside has to be asked first, it is staged anew with the answer: on the state as it is
        then. Raises Conflict when that never comes to rest.
        """
        for _ in range(ROUNDS_MAX):
            # What admission keeps of a cluster is not there while it sleeps.
            self.api.rouse(ctx.cluster)
            if ctx.review is not None:
                ctx.review.rewind()
            transaction = self.api.transaction(ctx.review)
            try:
                result = stage(transaction)
            except Unanswered as unanswered:
                if ctx.review is None:
                    ctx.review = self._admission.review()
                else:
                    ctx.review.answers.append(await self._admission.ask(unanswered))
                continue
            if not ctx.dry_run:
                await transaction.commit()
            return result
        raise Conflict("the object changes faster than its admission webhooks answer; try again")


def _item(resource: Resource, obj: Object) -> Object:
    """An object in a list: those of built-in types do not say again what they are."""
    shown = versions.served(resource, obj)
    if not resource.builtin:
        return shown
    return {name: value for name, value in shown.items() if name not in ("apiVersion", "kind")}


def _with_dry_run(ctx: Context, options: Object) -> Context:
    return replace(ctx, dry_run=ctx.dry_run or is_dry_run(options))


def _success(resource: Resource, obj: Object) -> Object:
    metadata = obj["metadata"]
    group = {"group": resource.group} if resource.group else {}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": metadata["name"], **group, "kind": resource.plural, "uid": metadata["uid"]},
    }
