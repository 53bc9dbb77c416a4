"""Deletions that clients from outside ask for: of one object, of what a list holds, of a pod by eviction."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from walras.core.errors import BadRequest
from walras.kube import deletion, objects, policy, strategies, versions
from walras.kube.admission.call import Call
from walras.kube.api import API
from walras.kube.context import Context
from walras.kube.eviction import spend
from walras.kube.listing import Lister, Page
from walras.kube.options import check_delete, check_preconditions, grace_s, is_dry_run, propagation
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.staging import Stager
from walras.kube.transaction import Transaction

# So many of a collection go in one transaction: policies may take milliseconds for each.
_TOGETHER: Final = 32


class Deleter:
    """The deletions of `Verbs`."""

    def __init__(self, api: API, stager: Stager, lister: Lister) -> None:
        self._api = api
        self._stager = stager
        self._lister = lister
        self._admission = api.admission

    async def delete(
        self, ctx: Context, resource: Resource, namespace: str, name: str, options: Object
    ) -> Object:
        """The object while something keeps it; else a Status of Success, or for some types the object."""
        policy.check_verb(ctx, "delete", resource, namespace)
        check_delete(options)
        policy.check_delete(resource, name)
        strategies.warn_of_orphans(ctx, resource, propagation(options))
        ctx = _with_dry_run(ctx, options)

        def stage(tx: Transaction) -> tuple[Object, Object | None]:
            current = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
            if current is None:
                raise objects.not_found(resource.key, name)
            check_preconditions(resource, current, options)
            deleted = self._delete(ctx, tx, resource, current, options)
            left = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
            gone = left is None or left["metadata"]["uid"] != current["metadata"]["uid"]
            if gone and resource.storage.key not in strategies.RETURNED:
                return deleted, None
            shown = deleted
            if gone and resource.key == objects.PODS and "deletionTimestamp" not in deleted["metadata"]:
                # Of a pod that nothing keeps upstream shows the mark that it never had.
                shown, now_ms = copied(deleted), self._api.clock.now_ms()
                deletion.begin(resource, shown, now_ms, grace_s(options), propagation(options))
            return deleted, versions.served(resource, shown, ctx.conversions)

        deleted, shown = await self._stager.write(ctx, stage)
        if shown is None:
            return _success(resource, deleted)
        return objects.with_version(shown, deleted)

    async def evict(
        self, ctx: Context, resource: Resource, namespace: str, name: str, eviction: Object
    ) -> None:
        """Deletes a pod if its disruption budget allows it. Raises TooManyRequests."""
        policy.check_verb(ctx, "create", resource, namespace, "eviction")
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
                self._api, tx, ctx, "CREATE", resource, "eviction", namespace, name, eviction, None, options
            )
            self._admission.mutate(asked)
            self._admission.validate(asked)
            spend(self._api, tx, ctx.cluster, pod)
            tx.delete(
                ctx.cluster, resource.key, namespace, name,
                grace_seconds=grace_s(options), propagation=propagation(options),
            )  # fmt: skip

        await self._stager.write(ctx, stage)

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
        policy.check_verb(ctx, "deletecollection", resource, namespace)
        check_delete(options)
        ctx = _with_dry_run(ctx, options)
        selectors = (label_selector, field_selector)

        def look() -> Page:
            page = self._lister.page(
                ctx.cluster, resource, namespace, selectors, limit=0, continue_="", resource_version="",
                match="", conversions=ctx.conversions,
            )  # fmt: skip
            if resource.converter is not None:
                versions.all_served(resource, page.items, ctx.conversions)
            return page

        page = await self._api.converter.known(ctx, look)
        found = page.items
        strategies.warn_of_orphans(ctx, resource, propagation(options))

        deleted: list[Object] = []
        for at in range(0, len(found), _TOGETHER):
            deleted += await self._delete_some(ctx, resource, namespace, found[at : at + _TOGETHER], options)
            # Others have their turn, also where nothing is written.
            await asyncio.sleep(0)
        return {
            "apiVersion": resource.api_version,
            "kind": resource.list_kind,
            "metadata": {
                **({} if resource.builtin else {"continue": ""}),
                # Who watches from here on sees them go.
                "resourceVersion": page.resource_version,
            },
            "items": [_item(ctx, resource, each) for each in deleted],
        }

    async def _delete_some(
        self, ctx: Context, resource: Resource, namespace: str, found: list[Object], options: Object
    ) -> list[Object]:
        """Those of a collection that were still there, in one transaction."""
        # Who is asked about these was not asked about those before.
        ctx = replace(ctx, review=None)

        def stage(tx: Transaction) -> list[Object]:
            deleted = []
            for obj in found:
                policy.check_delete(resource, str(obj["metadata"]["name"]))
                where = (namespace and str(obj["metadata"]["namespace"]), str(obj["metadata"]["name"]))
                if tx.peek(ctx.cluster, resource.storage.key, *where) is not None:
                    self._delete(ctx, tx, resource, obj, options)
                    deleted.append(obj)
            return deleted

        return await self._stager.write(ctx, stage)

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
        old = versions.served(resource, obj, ctx.conversions) if resource.converter else obj
        kind = resource.alone
        asked = Call(self._api, transaction, ctx, "DELETE", kind, "", namespace, name, None, old, options)
        self._admission.mutate(asked)
        self._admission.validate(asked)
        return transaction.delete(
            ctx.cluster,
            resource.storage.key,
            namespace,
            name,
            grace_seconds=grace_s(options),
            propagation=strategies.propagation(resource, obj, _asked(resource, options)),
        )


def _asked(resource: Resource, options: Object) -> str:
    """What is to become of dependents. Who says of a namespace not to leave them waits for them to go."""
    if resource.key == objects.NAMESPACES and options.get("orphanDependents") is False:
        return "Foreground"
    return propagation(options)


def _item(ctx: Context, resource: Resource, obj: Object) -> Object:
    """An object in a list: those of built-in types do not say again what they are."""
    shown = versions.served(resource, obj, ctx.conversions)
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
