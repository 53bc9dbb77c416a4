"""How a document from outside becomes an object: decoded, defaulted, validated, and kept within its verb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final, TypeVar

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest, Cause, Forbidden, MethodNotAllowed, Unclassified
from walras.kube import (
    advice,
    applying,
    covering,
    defaults,
    fields,
    managed,
    objects,
    policy,
    preparing,
    services,
    steps,
    structs,
    validation,
    versions,
)
from walras.kube.access import escalation, mounting, signing
from walras.kube.access.words import Attributes
from walras.kube.admission.call import Call
from walras.kube.api import API
from walras.kube.context import Context
from walras.kube.options import no_kind, quoted
from walras.kube.patch import json_kind
from walras.kube.record import Key, Object, encode, size
from walras.kube.registry import Resource
from walras.kube.schema import definitions
from walras.kube.transaction import Transaction

T = TypeVar("T")

# What all objects of a cluster may take together: so much for each that its quota allows.
BYTES_AN_OBJECT: Final = 8 << 10
BYTES_MIN: Final = 1 << 20
# Where a writer owns all that it says, though less of it is written.
_SAID_WHOLE: Final = (
    (objects.NAMESPACES, ""), (objects.PODS, "ephemeralcontainers"), (objects.PODS, "resize"),
)  # fmt: skip
_UNMARSHAL: Final = "yaml: unmarshal errors:"


def bytes_of(objects: int) -> int:
    """What a quota of so many objects lets them take together."""
    return max(BYTES_MIN, objects * BYTES_AN_OBJECT)


class Unknown(BadRequest):
    """Fields that the type does not know, where the client wants to be told; `why` names them."""

    def __init__(self, resource: Resource, faults: list[str]) -> None:
        self.faults = faults
        self.why = f"strict decoding error: {', '.join(faults)}"
        kind, version = resource.kind, resource.version
        subject = f'{kind} in version "{version}" cannot be handled as a {kind}: '
        super().__init__(f"{subject}{self.why}")


def decoded(ctx: Context, resource: Resource, obj: Object) -> Object:
    """A new object in stored form. Raises Undecodable; unknown fields are refused, told or dropped."""
    if not resource.builtin and ctx.field_validation == "Warn":
        # What a custom resource gives twice is told whatever it is.
        ctx.warnings += ctx.repeats
    _check_type(resource, obj)
    shaped, unknown = _taken(ctx, fields.decode, resource.schema, obj)
    faults = [f'unknown field "{path}"' for path in unknown]
    faults += [f'duplicate field "{path}"' for path in ctx.duplicates]
    if (faults or ctx.repeats) and ctx.field_validation != "Ignore":
        if ctx.field_validation == "Strict":
            repeats = ["\n  ".join((_UNMARSHAL, *ctx.repeats))] if ctx.repeats else []
            raise Unknown(resource, [*repeats, *faults])
        ctx.warnings += [*ctx.repeats, *faults]
    # First, so that lists can leave them out without looking for them.
    shaped = {"apiVersion": "", "kind": "", **shaped}
    shaped["apiVersion"], shaped["kind"] = resource.api_version, resource.kind
    metadata = shaped.get("metadata")
    shaped["metadata"] = dict(metadata) if isinstance(metadata, dict) else {}
    return shaped


def _taken(ctx: Context | None, step: Callable[..., T], *given: Any) -> T:
    """What a step comes to: here and now, or else where nobody waits for it. Raises Untaken."""
    return step(*given) if ctx is None or ctx.steps is None else ctx.steps.take(step, *given)


@cache
def _registered() -> frozenset[tuple[str, str]]:
    """(apiVersion, kind) of every built-in type."""
    found = set()
    for definition in definitions().values():
        for each in definition.get("x-kubernetes-group-version-kind") or ():
            group = f"{each['group']}/" if each["group"] else ""
            found.add((f"{group}{each['version']}", each["kind"]))
    return frozenset(found)


def _check_type(resource: Resource, obj: Object) -> None:
    """Raises Undecodable or BadRequest, in upstream's words, for an object of another type."""
    # A custom resource must say what it is; for the others the path does.
    api_version = obj.get("apiVersion") or (resource.api_version if resource.builtin else "")
    kind = obj.get("kind") or (resource.kind if resource.builtin else "")
    if not kind:
        what = f"the object provided is unrecognized (must be of type {resource.kind})"
        raise BadRequest(f"{what}: Object 'Kind' is missing")
    if api_version == resource.api_version and kind == resource.kind:
        return
    for field, value in (("apiVersion", api_version), ("kind", kind)):
        if not isinstance(value, str):
            why = f"json: cannot unmarshal {json_kind(value)} into Go struct field .{field} of type string"
            why = f"couldn't get version/kind; json parse error: {why}"
            raise fields.Undecodable(resource.kind, resource.version, why)
    version = str(api_version).rpartition("/")[2]
    if not resource.builtin and api_version != resource.api_version:
        raise _another_version(resource, str(api_version))
    if not resource.builtin:
        message = f"Invalid value: {quoted(kind)}: must be {resource.kind}"
        name = obj["metadata"].get("name") if isinstance(obj.get("metadata"), dict) else ""
        cause = Cause("FieldValueInvalid", message, "kind")
        raise validation.invalid(replace(resource, kind=kind), str(name or ""), [cause])
    if (api_version, kind) not in _registered():
        why = no_kind(str(kind), str(api_version))
        raise fields.Undecodable(str(kind), version, why, resource.kind)
    if kind == resource.kind:
        raise _another_version(resource, str(api_version))
    package = resource.group.partition(".")[0] or "core"
    why = f"converting ({version}.{kind}) to ({package}.{resource.kind}): unknown conversion"
    raise fields.Undecodable(kind, version, why, resource.kind)


def _another_version(resource: Resource, given: str) -> BadRequest:
    return BadRequest(
        f"the API version in the data ({given}) does not match the expected API version "
        f"({resource.api_version})"
    )


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
    causes = _taken(thread, validation.validate, resource, obj, old, served, subresource)
    if causes:
        raise validation.invalid(resource, str(obj["metadata"].get("name") or ""), causes)


class Writer:
    """Stages one request's write; the caller commits, or does not for a dry run."""

    def __init__(self, api: API, quota: Callable[[str], int]) -> None:
        self._api = api
        self._quota = quota
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
        self._check_definition(ctx, tx, resource)
        if resource.has_status and resource.key != policy.NODES:
            # Nodes tell what they have as they come.
            obj.pop("status", None)
        if resource.namespaced:
            self._check_namespace(ctx, tx, resource, namespace, name)
            self._check_account(ctx, tx, resource, namespace, name, obj)
        self._check_quota(ctx, resource, name)

        unnamed = resource.key == objects.NAMESPACES and not metadata.get("name")

        def begin(fresh: Object) -> None:
            if asked_of.converter is not None:
                fresh["apiVersion"] = resource.api_version
            # A label that says a name is in what the client wrote only where the name is.
            generated = fresh["metadata"].pop("name", None) if unnamed else None
            defaults.apply(resource.storage, fresh)
            escalation.check(ctx, resource, fresh, None)
            if record:
                self._record(ctx, resource, None, fresh)
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

    def _record(
        self, ctx: Context, resource: Resource, old: Object | None, new: Object, subresource: str = "",
        elsewhere: managed.Elsewhere | None = None,
    ) -> None:  # fmt: skip
        """Writes managedFields into `new`, in the words of the version that the request was made in."""
        before = old if old is None else versions.served(resource, old)
        after = versions.served(resource, new)
        who = (ctx.field_manager, subresource, self.now(ctx))
        if elsewhere is None:
            entries = _taken(ctx, _entries, resource, before, after, *who)
        else:
            entries = _entries(resource, before, after, *who, elsewhere)
        covering.take(new["metadata"], entries, "managedFields")

    def _elsewhere(self, ctx: Context, resource: Resource) -> managed.Elsewhere | None:
        """How to look at an object in other versions, where a webhook converts."""
        if resource.converter is None:
            return None
        registry = self._api.registry(ctx.cluster)

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

    def _check_definition(self, ctx: Context, tx: Transaction, resource: Resource) -> None:
        definition = None if resource.builtin else tx.peek(ctx.cluster, objects.CRDS, "", resource.key)
        if definition is not None and "deletionTimestamp" in definition["metadata"]:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")

    def _check_namespace(
        self, ctx: Context, tx: Transaction, resource: Resource, namespace: str, name: str
    ) -> None:
        going = tx.is_going(ctx.cluster, objects.NAMESPACES, "", namespace)
        if going is None:
            raise objects.not_found(objects.NAMESPACES, namespace)
        if going:
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated",
                          "metadata.namespace")  # fmt: skip
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise policy.forbidden(resource.key, name, why, (cause,))

    def _check_account(
        self, ctx: Context, tx: Transaction, resource: Resource, namespace: str, name: str, obj: Object
    ) -> None:
        """Raises Forbidden for a pod of an account that is not there; the default one always is."""
        if resource.key != objects.PODS:
            return
        spec = obj.get("spec") or {}
        account = str(spec.get("serviceAccountName") or spec.get("serviceAccount") or mounting.DEFAULT)
        if account == mounting.DEFAULT or tx.peek(ctx.cluster, objects.ACCOUNTS, namespace, account):
            return
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise policy.forbidden(resource.key, name, why)

    def _check_quota(self, ctx: Context, resource: Resource, name: str) -> None:
        cluster, limit = self._api.state.cluster(ctx.cluster), self._quota(ctx.cluster)
        used = cluster.objects
        if used >= limit:
            raise policy.forbidden(
                resource.key,
                name,
                f"exceeded quota: objects, requested: count/objects=1, used: count/objects={used}, "
                f"limited: count/objects={limit}",
            )
        if cluster.bytes >= bytes_of(limit):
            raise _too_many_bytes(resource, name, cluster.bytes, bytes_of(limit))

    def _check_bytes(self, ctx: Context, resource: Resource, name: str, old: Object, new: Object) -> None:
        """Objects are in memory, so their sizes count too: beyond them nothing is made, and nothing grows."""
        used, limit = self._api.state.cluster(ctx.cluster).bytes, bytes_of(self._quota(ctx.cluster))
        if used >= limit and size(new) > size(old):
            raise _too_many_bytes(resource, name, used, limit)

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
                self._record(ctx, resource, old, told, subresource, self._elsewhere(ctx, asked_of))
                covering.take(new["metadata"], told["metadata"], "managedFields")
            asked = Call(self._api, tx, ctx, "UPDATE", resource, subresource, namespace, name, new, old)
            self._admission.mutate(asked)
            self._finish(ctx, resource, new, old, subresource)
            self._check_bytes(ctx, resource, name, old, new)
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
            self._check_bytes(ctx, resource, name, stored, laid)
            return laid

        preserved = asked_of.converter is not None or subresource == "status"
        return tx.replace(ctx.cluster, storage.key, namespace, name, whole, preserved=preserved)

    def apply(
        self,
        ctx: Context,
        tx: Transaction,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        applied: Object,
        *,
        force: bool,
    ) -> Object:
        """Stages a server-side apply, in the resource's version, creating what is not there."""
        live = tx.peek(ctx.cluster, resource.storage.key, namespace, name)
        given = (ctx.field_manager, force, subresource, self.now(ctx))
        elsewhere = self._elsewhere(ctx, resource)

        def merged(old: Object | None) -> Object:
            if elsewhere is None:
                result = _taken(ctx, _applied, resource.alone, old, applied, *given)
            else:
                result = _applied(resource.alone, old, applied, *given, elsewhere)
            try:
                shaped, _ = _taken(ctx, fields.decode, resource.schema, result)
            except fields.Undecodable as error:
                raise Unclassified(applying.unconverted(resource, applied, error.why)) from None
            _tell_repeats(ctx)
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
        return self.update(
            ctx,
            tx,
            resource,
            namespace,
            name,
            subresource,
            merged,
            record=False,
        )


def _entries(
    resource: Resource, old: Object | None, new: Object, manager: str, subresource: str, now: str,
    elsewhere: managed.Elsewhere | None = None,
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
    now: str, elsewhere: managed.Elsewhere | None = None,
) -> Object:  # fmt: skip
    return applying.apply(
        resource, old, applied, manager=manager, force=force, subresource=subresource, now=now,
        elsewhere=elsewhere,
    )  # fmt: skip


def _too_many_bytes(resource: Resource, name: str, used: int, limit: int) -> Forbidden:
    why = f"exceeded quota: storage, used: {used} bytes, limited: {limit} bytes"
    return policy.forbidden(resource.key, name, why)


def _tell_repeats(ctx: Context) -> None:
    """Refuses or tells, as the request's fieldValidation says, what a configuration gives twice."""
    if not ctx.repeats or ctx.field_validation == "Ignore":
        return
    if ctx.field_validation == "Strict":
        why = "\n  ".join((_UNMARSHAL, *ctx.repeats))
        raise BadRequest(f"error strict decoding YAML: error converting YAML to JSON: {why}")
    ctx.warnings += [each for each in ctx.repeats if each not in ctx.warnings]


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
