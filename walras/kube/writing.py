"""Writes from outside: defaulted, admitted, validated, and kept within their verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import Unclassified
from walras.kube import (
    advice,
    applying,
    covering,
    decoding,
    defaults,
    fields,
    managed,
    objects,
    policy,
    preparing,
    recording,
    services,
    steps,
    structs,
    validation,
    versions,
)
from walras.kube.access import escalation, signing
from walras.kube.access.words import Attributes
from walras.kube.admission.call import Call
from walras.kube.api import API
from walras.kube.bounds import Bounds
from walras.kube.context import Context
from walras.kube.record import Key, Object, encode
from walras.kube.registry import Resource
from walras.kube.transaction import Transaction

# Where a writer owns all that it says, though less of it is written.
_SAID_WHOLE: Final = (
    (objects.NAMESPACES, ""), (objects.PODS, "ephemeralcontainers"), (objects.PODS, "resize"),
)  # fmt: skip


def check_valid(
    resource: Resource,
    obj: Object,
    old: Object | None,
    served: Resource | None = None,
    subresource: str = "",
    ctx: Context | None = None,
) -> None:
    """Raises Invalid with every cause."""
    if served is not None and not served.builtin:
        # A custom resource is judged by the version in which somebody writes it.
        obj, old = versions.served(served, obj), old if old is None else versions.served(served, old)
        resource = served
    # Expressions of custom resources may run for a time, which would go on while a thread waits.
    thread = ctx if resource.builtin else None
    causes = steps.taken(thread, validation.validate, resource, obj, old, served, subresource)
    if causes:
        raise validation.invalid(resource, str(obj["metadata"].get("name") or ""), causes)


class Writer:
    """Stages one request's write; the caller commits, or does not for a dry run."""

    def __init__(self, api: API, quota: Callable[[str], int]) -> None:
        self._api = api
        self._bounds = Bounds(api, quota)
        self._admission = api.admission

    def now(self, ctx: Context) -> str:
        """The request's time, the same however often it is staged."""
        return rfc3339((ctx.review or self._api.clock).now_ms())

    def create(
        self,
        ctx: Context,
        tx: Transaction,
        resource: Resource,
        namespace: str,
        obj: Object,
        *,
        record: bool = True,
    ) -> Object:
        """Stages a new object, given in the resource's version; returns it as it is stored.

        `record` says whether to write managedFields.
        """
        asked_of, resource = resource, resource.alone
        obj = versions.stored(resource, obj)
        metadata = obj["metadata"]
        version = str(metadata.get("resourceVersion") or "0")
        drop_repeated_owners(ctx, metadata)
        covering.place(metadata, namespace if resource.namespaced else "")
        name = str(metadata.get("name") or metadata.get("generateName") or "")
        policy.check_create(resource, obj)
        if resource.has_status and resource.key != policy.NODES:
            # Nodes tell what they have as they come.
            obj.pop("status", None)
        self._bounds.check_place(ctx, tx, resource, namespace, name, obj)
        self._bounds.check_room(ctx, resource, name)

        unnamed = resource.key == objects.NAMESPACES and not metadata.get("name")

        def begin(fresh: Object) -> None:
            if asked_of.converter is not None:
                fresh["apiVersion"] = resource.api_version
            # A label that says a name is in what the client wrote only where the name is.
            generated = fresh["metadata"].pop("name", None) if unnamed else None
            defaults.apply(resource.storage, fresh)
            escalation.check(ctx, resource, fresh, None)
            if record:
                recording.record(ctx, resource, None, fresh, self.now(ctx))
            if generated is not None:
                fresh["metadata"]["name"] = generated
                defaults.apply(resource.storage, fresh)

        def finish(fresh: Object) -> None:
            asked = Call(self._api, tx, ctx, "CREATE", resource, "", namespace, name, fresh, None)
            self._admission.mutate(asked)
            self._finish(ctx, resource, fresh, None)
            self._admission.validate(asked)
            if version.isdigit() and int(version[:20]) and not ctx.dry_run:
                raise Unclassified("resourceVersion should not be set on objects to be created")
            if asked_of.converter is not None and asked_of.stored is not None:
                laid = versions.stored(asked_of, fresh, ctx.conversions)
                fresh.clear()
                fresh.update(laid)

        return tx.create(ctx.cluster, resource.storage.key, obj, finish, begin)

    def _allocate(self, ctx: Context, resource: Resource, old: Object | None, new: Object) -> None:
        """Gives a Service its addresses and ports. Raises Invalid where those it names are not to be had."""
        if resource.key != objects.SERVICES:
            return
        faults = validation.Faults()
        if new["spec"].get("type") != "ExternalName":
            validation.service_addresses(faults, new["spec"])
        if faults:
            raise validation.invalid(resource, str(new["metadata"].get("name") or ""), faults)
        name = str(new["metadata"].get("name") or "")
        others = (
            record.object
            for record in self._api.state.latest_of(ctx.cluster, objects.SERVICES)
            if (record.key.namespace, record.key.name) != (new["metadata"]["namespace"], name)
        )
        causes = services.allocate(new, old, others)
        if causes:
            raise validation.invalid(resource, name, causes)

    def _elsewhere(self, ctx: Context, resource: Resource) -> managed.Elsewhere | None:
        return recording.elsewhere(ctx, self._api.registry(ctx.cluster), resource)

    def _finish(
        self, ctx: Context, served: Resource, new: Object, old: Object | None, subresource: str = ""
    ) -> None:
        """What comes once the manager's part is known: the server's own, and whether all of it is valid."""
        who, resource = ctx.identity, served.storage
        request = preparing.Request(who.user, who.groups, subresource, self.now(ctx), who.uid, who.extra)
        preparing.prepare(resource, new, old, request)
        # Upstream, too, allocates before it judges what is new, and after it judges what changes.
        if old is None:
            self._allocate(ctx, resource, old, new)
        check_valid(resource, new, old, served, subresource, ctx)
        ctx.warnings += advice.warnings(resource, new, old, subresource)
        if not resource.builtin and served is not resource:
            shaped = versions.pruned(served, new)
            new.clear()
            new.update(shaped)
        signing.check(ctx, resource, new, old, subresource)
        if old is not None and not subresource:
            self._allocate(ctx, resource, old, new)
        if resource.builtin:
            new.update(structs.completed(resource.schema, new))
        _warn_of_finalizers(ctx, resource, new["metadata"], old["metadata"] if old else {})

    def update(
        self,
        ctx: Context,
        tx: Transaction,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        build: Callable[[Object], Object],
        *,
        record: bool = True,
    ) -> Object:
        """Stages what `build` makes of the latest state, as far as the verb covers it.

        `build` takes and gives the resource's version; the result is as it is stored.
        """
        asked_of, resource = resource, resource.alone
        storage = resource.storage
        live = self._api.state.latest(Key(ctx.cluster, storage.key, namespace, name))
        if ctx.steps is None and live is not None and len(live.raw) >= steps.BYTES_MIN:
            ctx.steps = steps.Steps()

        def whole(stored: Object) -> Object:
            old = versions.served(asked_of, stored, ctx.conversions) if asked_of.converter else stored
            given = versions.stored(resource, build(versions.served(resource, old)))
            # As it would be stored today.
            old = versions.served(storage, old)
            drop_repeated_owners(ctx, given["metadata"])
            covering.check_same(ctx, resource, old, given, namespace, name)
            new = covering.within(storage, old, given, subresource)
            defaults.apply(storage, new)
            policy.check_change(ctx, storage, old, new)
            escalation.check(ctx, resource, new, old)
            if record:
                said_whole = (resource.key, subresource) in _SAID_WHOLE
                told = covering.said(storage, new, given) if said_whole else new
                elsewhere = self._elsewhere(ctx, asked_of)
                recording.record(ctx, resource, old, told, self.now(ctx), subresource, elsewhere)
                covering.take(new["metadata"], told["metadata"], "managedFields")
            asked = Call(self._api, tx, ctx, "UPDATE", resource, subresource, namespace, name, new, old)
            self._admission.mutate(asked)
            self._finish(ctx, resource, new, old, subresource)
            self._bounds.check_growth(ctx, resource, name, old, new)
            self._admission.validate(asked)
            if asked_of.converter is None and subresource != "status":
                return new
            objects.preserve(storage, old, new)
            if subresource == "status" and "generation" in old["metadata"]:
                # No status counts.
                new["metadata"]["generation"] = old["metadata"]["generation"]
            if asked_of.converter is None:
                return new
            laid = versions.stored(asked_of, new, ctx.conversions)
            self._bounds.check_growth(ctx, resource, name, stored, laid)
            return laid

        preserved = asked_of.converter is not None or subresource == "status"
        return tx.replace(ctx.cluster, storage.key, namespace, name, whole, preserved=preserved)

    def apply(
        self, ctx: Context, tx: Transaction, resource: Resource, namespace: str, name: str, subresource: str,
        applied: Object, *, force: bool,
    ) -> Object:  # fmt: skip
        """Stages a server-side apply, in the resource's version, creating what is not there."""
        live = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
        now, elsewhere = self.now(ctx), self._elsewhere(ctx, resource)

        def merged(old: Object | None) -> Object:
            result = recording.applied(
                ctx, resource, old, applied, now, subresource, force=force, elsewhere=elsewhere
            )
            try:
                shaped, _ = steps.taken(ctx, fields.decode, resource.schema, result, True)
            except fields.Undecodable as error:
                raise Unclassified(applying.unconverted(resource, applied, error.why)) from None
            decoding.tell_repeats(ctx)
            return {**shaped, "metadata": dict(shaped.get("metadata") or {})}

        if live is None:
            if subresource:
                raise objects.not_found(resource.key, name)
            policy.authorise(ctx, "create", resource, namespace)
            if ctx.access is not None:
                asked = Attributes("create", resource.group, resource.plural, "", namespace, name)
                ctx.access.require(ctx.identity, ctx.cluster, asked)
            made = merged(None)
            covering.place(made["metadata"], namespace if resource.namespaced else "")
            covering.call(made["metadata"], name)
            covering.without_version(resource, made["metadata"], name, applied=True)
            return self.create(ctx, tx, resource, namespace, made, record=False)
        return self.update(ctx, tx, resource, namespace, name, subresource, merged, record=False)


def _warn_of_finalizers(ctx: Context, resource: Resource, metadata: Object, before: Object) -> None:
    """Warns of new finalizers of a custom resource that anybody might use; of others' they are refused."""
    known = {*objects.FINALIZERS, *(before.get("finalizers") or ())}
    for name in () if resource.builtin else metadata.get("finalizers") or ():
        if name not in known and "/" not in name:
            ctx.warnings.append(
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name to avoid '
                "accidental conflicts with other finalizer writers"
            )


def drop_repeated_owners(ctx: Context, metadata: Object) -> None:
    """Takes out owner references that are there already, with a warning."""
    kept: dict[bytes, Any] = {}
    repeated: list[str] = []
    for owner in metadata.get("ownerReferences") or ():
        if kept.setdefault(encode(sorted(owner.items())), owner) is not owner:
            repeated.append(str(owner.get("uid", "")))
    if repeated:
        metadata["ownerReferences"] = list(kept.values())
        when = " after mutating admission happens" if ctx.patching else ""
        ctx.warnings.append(
            f".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references "
            "in 1.20+, and may reject such requests as early as 1.24; please fix your requests; "
            f"duplicate UID(s) observed: {', '.join(repeated)}"
        )
