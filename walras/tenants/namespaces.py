"""What every namespace has from its first moment, and how it is emptied when it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import AlreadyExists, NotFound
from walras.kube.api import API, Change
from walras.kube.registry import Resource
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.objects import (
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    Object,
    deleting,
    finalizers,
    set_condition,
)

ROOT_CA: Final = "kube-root-ca.crt"
DEFAULT_ACCOUNT: Final = "default"
FINALIZER: Final = "kubernetes"
DELETE_MAX: Final = 500
_FURNITURE: Final = frozenset(((CONFIG_MAPS, ROOT_CA), (SERVICE_ACCOUNTS, DEFAULT_ACCOUNT)))


def account(namespace: str) -> Object:
    return {"metadata": {"name": DEFAULT_ACCOUNT, "namespace": namespace}}


def root_ca(namespace: str, ca_pem: str) -> Object:
    return {
        "metadata": {
            "name": ROOT_CA,
            "namespace": namespace,
            "annotations": {
                "kubernetes.io/description": "Contains a CA bundle that can be used to verify the API server."
            },
        },
        "data": {"ca.crt": ca_pem},
    }


# What is said of a namespace that is emptied while nothing is in the way, by condition: reason and message.
_FINE: Final = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


class NamespaceController:
    """Keeps the default service account and the CA bundle; finalises what is being deleted."""

    def __init__(self, api: API, clock: Clock, manager: Manager, dependents: Dependents, ca_pem: str) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._ca_pem = ca_pem
        dependents.subscribe(self._content_changed)

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(NAMESPACES, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._manager.add(self, Key(change.cluster, "", change.object["metadata"]["name"]))

    def _content_changed(self, change: Change) -> None:
        namespace = change.namespace
        if not namespace:
            return
        found = self._api.find(change.cluster, NAMESPACES, "", namespace)
        ours = (change.resource, change.name) in _FURNITURE
        if found is not None and (ours or deleting(found)):
            self._manager.add(self, Key(change.cluster, "", namespace))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace
        found = self._api.find(cluster, NAMESPACES, "", name)
        if found is None or not self._api.has_cluster(cluster):
            return None
        if deleting(found):
            return await self._empty(cluster, name, found)
        await self._furnish(cluster, name)
        return None

    async def _furnish(self, cluster: str, name: str) -> None:
        transaction = self._api.transaction()
        if self._api.find(cluster, SERVICE_ACCOUNTS, name, DEFAULT_ACCOUNT) is None:
            _create(transaction, cluster, SERVICE_ACCOUNTS, account(name))
        bundle = self._api.find(cluster, CONFIG_MAPS, name, ROOT_CA)
        if bundle is None:
            _create(transaction, cluster, CONFIG_MAPS, root_ca(name, self._ca_pem))
        elif bundle.get("data") != {"ca.crt": self._ca_pem}:
            transaction.edit(
                cluster,
                CONFIG_MAPS,
                name,
                ROOT_CA,
                lambda latest: latest.update(data={"ca.crt": self._ca_pem}),
            )
        await transaction.commit()

    async def _empty(self, cluster: str, name: str, found: Object) -> int | None:
        if FINALIZER not in (found.get("spec") or {}).get("finalizers", ()):
            return None
        transaction = self._api.transaction()
        left: Counter[str] = Counter()
        held: Counter[str] = Counter()
        started = 0
        for resource in self._doomed(cluster, name):
            for obj in self._api.list(cluster, resource.key, name):
                if not deleting(obj) and started < DELETE_MAX:
                    started += 1
                    _delete(transaction, cluster, resource.key, obj)
                elif deleting(obj):
                    left[resource.key if resource.group else f"{resource.plural}."] += 1
                    held.update(finalizers(obj))
        if not started and not left:
            transaction.edit(cluster, NAMESPACES, "", name, _finalise)
        elif left:
            # What still goes by itself is looked at again when it has gone.
            self._report(transaction, cluster, name, left, held)
        await transaction.commit()
        return 0 if started else None

    def _doomed(self, cluster: str, name: str) -> list[Resource]:
        """What is to be deleted now: pods first, so that none runs on without what protects it (KEP-5080)."""
        if self._api.list(cluster, PODS, name):
            return [self._api.registry(cluster)[PODS]]
        return [
            resource
            for resource in self._api.registry(cluster)
            if resource.namespaced and "delete" in resource.verbs
        ]

    def _report(
        self, transaction: Transaction, cluster: str, name: str, left: Counter[str], held: Counter[str]
    ) -> None:
        """Kubernetes' conditions, in its words."""
        now = rfc3339(self._clock.now_ms())
        told = {"NamespaceContentRemaining": ("SomeResourcesRemain", _remaining(left))}
        if held:
            told["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", _finalizing(held))
        if f"{PODS}." in left:
            failed = (
                "Failed to delete all resource types, 1 remaining: unexpected items still remain in "
                f"namespace: {name} for gvr: /v1, Resource=pods"
            )
            told["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", failed)

        def report(namespace: Object) -> None:
            for kind, fine in _FINE.items():
                value = "True" if kind in told else "False"
                reason, message = told.get(kind, fine)
                set_condition(namespace, kind, value, now, reason=reason, message=message)

        transaction.edit(cluster, NAMESPACES, "", name, report)


def _remaining(left: Counter[str]) -> str:
    counts = (f"{resource} has {count} resource instances" for resource, count in sorted(left.items()))
    return "Some resources are remaining: " + ", ".join(counts)


def _finalizing(held: Counter[str]) -> str:
    counts = (f"{finalizer} in {count} resource instances" for finalizer, count in sorted(held.items()))
    return "Some content in the namespace has finalizers remaining: " + ", ".join(counts)


def _finalise(namespace: Object) -> None:
    spec = namespace.setdefault("spec", {})
    spec["finalizers"] = [each for each in spec.get("finalizers", ()) if each != FINALIZER]
    if not spec["finalizers"]:
        del spec["finalizers"]


def _create(transaction: Transaction, cluster: str, resource: str, obj: Object) -> None:
    try:
        transaction.create(cluster, resource, obj)
    except AlreadyExists:
        # On its way to the disk; its arrival brings us back.
        return


def _delete(transaction: Transaction, cluster: str, resource: str, obj: Object) -> None:
    metadata = obj["metadata"]
    try:
        transaction.delete(cluster, resource, metadata["namespace"], metadata["name"])
    except NotFound:
        return
