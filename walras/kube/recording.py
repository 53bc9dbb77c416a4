"""Who owns the fields that a write leaves: managedFields, in the words of the version that it is made in."""

from __future__ import annotations

from walras.kube import applying, covering, managed, steps, versions
from walras.kube.context import Context
from walras.kube.managed import Elsewhere
from walras.kube.record import Object
from walras.kube.registry import Registry, Resource


def record(
    ctx: Context, resource: Resource, old: Object | None, new: Object, now: str, subresource: str = "",
    elsewhere: Elsewhere | None = None,
) -> None:  # fmt: skip
    """Writes managedFields into `new`; `now` is the request's time."""
    before = old if old is None else versions.served(resource, old)
    after = versions.served(resource, new)
    who = (ctx.field_manager, subresource, now)
    if elsewhere is None:
        entries = steps.taken(ctx, _entries, resource, before, after, *who)
    else:
        entries = _entries(resource, before, after, *who, elsewhere)
    covering.take(new["metadata"], entries, "managedFields")


def applied(
    ctx: Context, resource: Resource, old: Object | None, config: Object, now: str, subresource: str, *,
    force: bool, elsewhere: Elsewhere | None,
) -> Object:  # fmt: skip
    """What a server-side apply makes of `old`, or of nothing."""
    given = (ctx.field_manager, force, subresource, now)
    if elsewhere is None:
        return steps.taken(ctx, _applied, resource.alone, old, config, *given)
    return _applied(resource.alone, old, config, *given, elsewhere)


def elsewhere(ctx: Context, registry: Registry, resource: Resource) -> Elsewhere | None:
    """How to look at an object in other versions, where a webhook converts."""
    if resource.converter is None:
        return None

    def found(obj: Object, api_version: str) -> tuple[Resource, Object] | None:
        group, _, version = api_version.rpartition("/")
        target = registry.find(group, version, resource.plural)
        if target is None and resource.storage.api_version == api_version:
            target = resource.storage
        if target is None:
            return None
        if obj["apiVersion"] == api_version:
            return target.alone, obj
        return target.alone, versions.served(target, obj, ctx.conversions)

    return found


def _entries(
    resource: Resource, old: Object | None, new: Object, manager: str, subresource: str, now: str,
    elsewhere: Elsewhere | None = None,
) -> Object:  # fmt: skip
    """The metadata of the new state with its managedFields."""
    shown = {**new, "metadata": dict(new["metadata"])}
    managed.record(
        resource, old, shown, manager=manager, subresource=subresource, now=now, elsewhere=elsewhere
    )
    metadata: Object = shown["metadata"]
    return metadata


def _applied(
    resource: Resource, old: Object | None, applied: Object, manager: str, force: bool, subresource: str,
    now: str, elsewhere: Elsewhere | None = None,
) -> Object:  # fmt: skip
    return applying.apply(
        resource, old, applied, manager=manager, force=force, subresource=subresource, now=now,
        elsewhere=elsewhere,
    )  # fmt: skip
