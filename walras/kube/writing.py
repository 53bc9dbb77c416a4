"""How a document from outside becomes an object: decoded, defaulted, validated, and kept within its verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest, Cause, MethodNotAllowed
from walras.kube import (
    defaults,
    fields,
    managed,
    objects,
    policy,
    preparing,
    services,
    strategies,
    structs,
    validation,
    versions,
)
from walras.kube.access import escalation, mounting, signing
from walras.kube.access.words import Attributes
from walras.kube.admission.call import Call
from walras.kube.api import API
from walras.kube.context import Context
from walras.kube.patch import copied
from walras.kube.record import Object, size
from walras.kube.registry import Resource
from walras.kube.transaction import Transaction

# What all objects of a cluster may take together: so much for each that its quota allows.
BYTES_AN_OBJECT: Final = 8 << 10
BYTES_MIN: Final = 1 << 20
# What a client may leave out but not change, and what is not the client's to write at all.
_FIXED: Final = ("name", "namespace", "uid", "creationTimestamp")
_KEPT: Final = ("deletionTimestamp", "deletionGracePeriodSeconds")
_OVERWRITTEN: Final = ("generateName", "generation", "resourceVersion", "selfLink")
# What a write of a built-in type's status may change of its metadata.
_STATUS_METADATA: Final = ("labels", "annotations", "managedFields")


def bytes_of(objects: int) -> int:
    """What a quota of so many objects lets them take together."""
    return max(BYTES_MIN, objects * BYTES_AN_OBJECT)


def decoded(ctx: Context, resource: Resource, obj: Object) -> Object:
    """A new object in stored form. Raises BadRequest; unknown fields are refused, told or dropped."""
    _check_type(resource, obj)
    shaped, unknown = fields.decode(resource.schema, obj)
    if unknown and ctx.field_validation != "Ignore":
        faults = [f'unknown field "{path}"' for path in unknown]
        if ctx.field_validation == "Strict":
            raise BadRequest(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(faults)}"
            )
        ctx.warnings += faults
    shaped["apiVersion"], shaped["kind"] = resource.api_version, resource.kind
    if not isinstance(shaped.get("metadata"), dict):
        shaped["metadata"] = {}
    return shaped


def _check_type(resource: Resource, obj: Object) -> None:
    given_version, given_kind = obj.get("apiVersion"), obj.get("kind")
    if given_version not in (None, "", resource.api_version):
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if given_kind not in (None, "", resource.kind):
        raise BadRequest(
            f'{given_kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"converting ({given_kind}) to ({resource.kind}): unknown conversion"
        )


def check_valid(resource: Resource, obj: Object, old: Object | None, served: Resource | None = None) -> None:
    """Raises Invalid with every cause."""
    causes = validation.validate(resource, obj, old, served)
    if causes:
        raise validation.invalid(resource, str(obj["metadata"].get("name") or ""), causes)


class Writer:
    """Stages one request's write; the caller commits, or does not for a dry run."""

    def __init__(self, api: API, quota: Callable[[str], int]) -> None:
        self._api = api
        self._quota = quota
        self._admission = api.admission

    def _now(self, ctx: Context) -> str:
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
        obj = versions.stored(resource, obj)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            place(metadata, namespace)
        elif metadata.get("namespace"):
            check_valid(resource, obj, None)
        if not metadata.get("name") and not metadata.get("generateName"):
            causes = (Cause("FieldValueRequired", "Required value: name or generateName is required",
                            "metadata.name"),)  # fmt: skip
            raise validation.invalid(resource, "", list(causes))
        name = str(metadata.get("name") or metadata.get("generateName"))
        policy.check_create(resource, obj)
        self._check_definition(ctx, tx, resource)
        if resource.has_status:
            obj.pop("status", None)
        if resource.namespaced:
            self._check_namespace(ctx, tx, resource, namespace, name)
            self._check_account(ctx, tx, resource, namespace, name, obj)
        self._check_quota(ctx, resource, name)

        def finish(fresh: Object) -> None:
            defaults.apply(resource.storage, fresh)
            escalation.check(ctx, resource, fresh, None)
            if record:
                self._record(ctx, resource, None, fresh)
            asked = Call(self._api, tx, ctx, "CREATE", resource, "", namespace, name, fresh, None)
            self._admission.mutate(asked)
            self._finish(ctx, resource, fresh, None)
            self._admission.validate(asked)

        return tx.create(ctx.cluster, resource.storage.key, obj, finish)

    def _allocate(self, ctx: Context, resource: Resource, old: Object | None, new: Object) -> None:
        """Gives a Service its addresses and ports. Raises Invalid where those it names are not to be had."""
        if resource.key != objects.SERVICES:
            return
        faults = validation.Faults()
        if new["spec"].get("type") != "ExternalName":
            validation.service_addresses(faults, new["spec"])
        if faults:
            raise validation.invalid(resource, new["metadata"]["name"], faults)
        name = new["metadata"]["name"]
        others = (
            record.object
            for record in self._api.state.latest_of(ctx.cluster, objects.SERVICES)
            if (record.key.namespace, record.key.name) != (new["metadata"]["namespace"], name)
        )
        causes = services.allocate(new, old, others)
        if causes:
            raise validation.invalid(resource, name, causes)

    def _record(
        self, ctx: Context, resource: Resource, old: Object | None, new: Object, subresource: str = ""
    ) -> None:
        """Writes managedFields into `new`, in the words of the version that the request was made in."""
        before = old if old is None else versions.served(resource, old)
        after = versions.served(resource, new)
        managed.record(
            resource, before, after, manager=ctx.field_manager, subresource=subresource, now=self._now(ctx)
        )
        _take(new["metadata"], after["metadata"], "managedFields")

    def _finish(
        self, ctx: Context, served: Resource, new: Object, old: Object | None, subresource: str = ""
    ) -> None:
        """What comes once the manager's part is known: the server's own, and whether all of it is valid."""
        who, resource = ctx.identity, served.storage
        request = preparing.Request(who.user, who.groups, subresource, self._now(ctx), who.uid, who.extra)
        preparing.prepare(resource, new, old, request)
        # Upstream, too, allocates before it judges what is new, and after it judges what changes.
        if old is None:
            self._allocate(ctx, resource, old, new)
        check_valid(resource, new, old, served)
        signing.check(ctx, resource, new, old, subresource)
        if old is not None and not subresource:
            self._allocate(ctx, resource, old, new)
        if resource.builtin:
            new.update(structs.completed(resource.schema, new))

    def _check_definition(self, ctx: Context, tx: Transaction, resource: Resource) -> None:
        definition = None if resource.builtin else tx.peek(ctx.cluster, objects.CRDS, "", resource.key)
        if definition is not None and "deletionTimestamp" in definition["metadata"]:
            raise MethodNotAllowed("create not allowed while custom resource definition is terminating")

    def _check_namespace(
        self, ctx: Context, tx: Transaction, resource: Resource, namespace: str, name: str
    ) -> None:
        found = tx.peek(ctx.cluster, objects.NAMESPACES, "", namespace)
        if found is None:
            raise objects.not_found(objects.NAMESPACES, namespace)
        if "deletionTimestamp" in found["metadata"]:
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
        used, limit = self._api.state.cluster(ctx.cluster).objects, self._quota(ctx.cluster)
        if used >= limit:
            raise policy.forbidden(
                resource.key,
                name,
                f"exceeded quota: objects, requested: count/objects=1, used: count/objects={used}, "
                f"limited: count/objects={limit}",
            )
        self._check_bytes(ctx, resource, name)

    def _check_bytes(
        self,
        ctx: Context,
        resource: Resource,
        name: str,
        old: Object | None = None,
        new: Object | None = None,
    ) -> None:
        """Objects are in memory, so their sizes count too: beyond them nothing is made, and nothing grows."""
        used = self._api.state.cluster(ctx.cluster).bytes
        limit = bytes_of(self._quota(ctx.cluster))
        if used < limit or (old is not None and new is not None and size(new) <= size(old)):
            return
        raise policy.forbidden(
            resource.key, name, f"exceeded quota: storage, used: {used} bytes, limited: {limit} bytes"
        )

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
        storage = resource.storage

        def whole(old: Object) -> Object:
            given = versions.stored(resource, build(versions.served(resource, old)))
            _check_same(resource, old, given, namespace, name)
            new = within(storage, old, given, subresource)
            defaults.apply(storage, new)
            policy.check_change(ctx, storage, old, new)
            escalation.check(ctx, resource, new, old)
            if record:
                self._record(ctx, resource, old, new, subresource)
            asked = Call(self._api, tx, ctx, "UPDATE", resource, subresource, namespace, name, new, old)
            self._admission.mutate(asked)
            self._finish(ctx, resource, new, old, subresource)
            self._check_bytes(ctx, resource, name, old, new)
            self._admission.validate(asked)
            return new

        return tx.replace(ctx.cluster, storage.key, namespace, name, whole)

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
        options: dict[str, Any] = {"manager": ctx.field_manager, "force": force, "subresource": subresource,
                                   "now": self._now(ctx)}  # fmt: skip
        if live is None:
            if subresource:
                raise objects.not_found(resource.key, name)
            policy.authorise(ctx, "create", resource, namespace)
            if ctx.access is not None:
                asked = Attributes("create", resource.group, resource.plural, "", namespace, name)
                ctx.access.require(ctx.identity, ctx.cluster, asked)
            merged = managed.apply(resource, None, applied, **options)
            return self.create(ctx, tx, resource, namespace, merged, record=False)
        return self.update(
            ctx,
            tx,
            resource,
            namespace,
            name,
            subresource,
            lambda old: managed.apply(resource, old, applied, **options),
            record=False,
        )


def place(metadata: Object, namespace: str) -> None:
    """Puts the namespace of the request into the metadata. Raises BadRequest when they disagree."""
    given = metadata.get("namespace")
    if given and given != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if not namespace:
        raise BadRequest("an empty namespace may not be set during creation")
    metadata["namespace"] = namespace


def call(metadata: Object, name: str) -> None:
    """Puts the name of the request into the metadata. Raises BadRequest when they disagree."""
    if metadata.get("name") not in (None, "", name):
        raise BadRequest(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    metadata["name"] = name


def _check_same(resource: Resource, old: Object, new: Object, namespace: str, name: str) -> None:
    """Raises where the new state is of another object, or of another version than there is."""
    metadata, present = new["metadata"], old["metadata"]
    call(metadata, name)
    if metadata.get("namespace") not in (None, "", namespace):
        raise BadRequest(
            f"the namespace of the object ({metadata['namespace']}) does not match the namespace on the "
            f"request ({namespace})"
        )
    if metadata.get("uid") not in (None, "", present["uid"]):
        raise objects.conflict(
            resource.key,
            name,
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {present['uid']}",
        )
    version = metadata.get("resourceVersion")
    if version in (None, "", "0"):
        if not resource.builtin or resource.storage.key in strategies.CONDITIONAL:
            cause = Cause("FieldValueInvalid", "Invalid value: 0: must be specified for an update",
                          "metadata.resourceVersion")  # fmt: skip
            raise validation.invalid(resource, name, [cause])
    elif version != present["resourceVersion"]:
        raise objects.conflict(resource.key, name)


def within(resource: Resource, old: Object, given: Object, subresource: str) -> Object:
    """The new object: of `given` what the verb writes, the rest of `old`. Shares parts with both."""
    match subresource:
        case "status" | "approval":
            new = {**old, "metadata": _status_metadata(resource, old["metadata"], given["metadata"])}
            _take(new, given, "status")
        case "finalize":
            spec = {
                **(old.get("spec") or {}),
                "finalizers": (given.get("spec") or {}).get("finalizers") or [],
            }
            new = {**old, "metadata": dict(old["metadata"]), "spec": spec}
        case "ephemeralcontainers" | "resize":
            new = {**old, "metadata": dict(old["metadata"]), "spec": _partly(old, given, subresource)}
        case _:
            new = {**given, "metadata": dict(given["metadata"])}
            if resource.has_status:
                _take(new, old, "status")
            if resource.key == objects.NAMESPACES:
                new["spec"] = old.get("spec") or {}
    metadata: Object = new["metadata"]
    before: Object = old["metadata"]
    for name in _FIXED:
        if not metadata.get(name):
            _take(metadata, before, name)
    for name in _KEPT:
        if name in before:
            metadata[name] = before[name]
    for name in _OVERWRITTEN:
        _take(metadata, before, name)
    return copied(new)  # type: ignore[no-any-return]


def _partly(old: Object, given: Object, subresource: str) -> Object:
    """A pod's spec with the ephemeral containers, or the containers' resources, of another."""
    spec, wanted = dict(old.get("spec") or {}), given.get("spec") or {}
    if subresource == "ephemeralcontainers":
        _take(spec, wanted, "ephemeralContainers")
        return spec
    for field in ("containers", "initContainers"):
        resources = {each.get("name"): each.get("resources") for each in wanted.get(field) or ()}
        if field in spec:
            spec[field] = [
                {**each, "resources": resources.get(each["name"]) or each.get("resources") or {}}
                for each in spec[field]
            ]
    return spec


def _take(target: Object, source: Mapping[str, Any], name: str) -> None:
    if name in source:
        target[name] = source[name]
    else:
        target.pop(name, None)


def _status_metadata(resource: Resource, old: Object, given: Object) -> Object:
    taken = _STATUS_METADATA if resource.builtin else ("managedFields",)
    metadata = dict(old)
    for name in taken:
        _take(metadata, given, name)
    return metadata
