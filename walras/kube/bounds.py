"""Where a new object may be, and how much a cluster may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.errors import Cause, Forbidden, MethodNotAllowed
from walras.kube import objects, policy
from walras.kube.access import mounting
from walras.kube.api import API
from walras.kube.context import Context
from walras.kube.record import Object, size
from walras.kube.registry import Resource
from walras.kube.transaction import Transaction

# What all objects of a cluster may take together: so much for each that its quota allows.
BYTES_AN_OBJECT: Final = 8 << 10
BYTES_MIN: Final = 1 << 20


def bytes_of(objects: int) -> int:
    """What a quota of so many objects lets them take together."""
    return max(BYTES_MIN, objects * BYTES_AN_OBJECT)


class Bounds:
    """What every write is kept within. `quota` gives how many objects a cluster may hold."""

    def __init__(self, api: API, quota: Callable[[str], int]) -> None:
        self._api = api
        self._quota = quota

    def check_place(
        self, ctx: Context, tx: Transaction, resource: Resource, namespace: str, name: str, obj: Object
    ) -> None:
        """Raises MethodNotAllowed, NotFound, Forbidden where nothing new may be made."""
        self._check_definition(ctx, tx, resource)
        if resource.namespaced:
            self._check_namespace(ctx, tx, resource, namespace, name)
            self._check_account(ctx, tx, resource, namespace, name, obj)

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

    def check_room(self, ctx: Context, resource: Resource, name: str) -> None:
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

    def check_growth(self, ctx: Context, resource: Resource, name: str, old: Object, new: Object) -> None:
        """Objects are in memory, so their sizes count too: beyond them nothing is made, and nothing grows."""
        used, limit = self._api.state.cluster(ctx.cluster).bytes, bytes_of(self._quota(ctx.cluster))
        if used >= limit and size(new) > size(old):
            raise _too_many_bytes(resource, name, used, limit)


def _too_many_bytes(resource: Resource, name: str, used: int, limit: int) -> Forbidden:
    why = f"exceeded quota: storage, used: {used} bytes, limited: {limit} bytes"
    return policy.forbidden(resource.key, name, why)
