"""Garbage collection by owner references, as Kubernetes does it: background, foreground and orphan.

A key is the uid of an object: of one that has owners, or of one whose deletion waits for its dependents.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.kube.deletion import FOREGROUND, ORPHAN
from walras.kube.registry import Resource
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import OWNERS, Dependents, Ref
from walras.tenants.objects import Object, deleting, drop_finalizer, finalizers, owners, uid


class Owner(Enum):
    SOLID = "there, and keeps its dependents"
    WAITING = "being deleted, after its dependents"
    ABSENT = "gone"


class GarbageCollector:
    def __init__(self, api: API, manager: Manager, dependents: Dependents) -> None:
        self._api = api
        self._manager = manager
        self._dependents = dependents
        # By cluster and uid; only of objects that have owners or wait for dependents.
        self._where: dict[str, dict[str, Ref]] = {}
        dependents.subscribe(self._changed)
        api.on_sleep(lambda cluster: self._where.pop(cluster, None))

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and not change.mentions(OWNERS, b'"deletionTimestamp"'):
            return
        obj, cluster = change.object, change.cluster
        if change.type == "DELETED":
            self._forget(cluster, uid(obj))
            self._look_at_children(cluster, obj)
            for owner in owners(obj):
                self._look_at(cluster, str(owner.get("uid")))
            return
        waits = deleting(obj) and bool({FOREGROUND, ORPHAN} & set(finalizers(obj)))
        if not waits and not owners(obj):
            self._forget(cluster, uid(obj))
            return
        metadata = obj["metadata"]
        self._where.setdefault(cluster, {})[uid(obj)] = Ref(
            change.resource, metadata.get("namespace", ""), metadata["name"]
        )
        before = change.old
        if waits or before is None or owners(before) != owners(obj):
            self._look_at(cluster, uid(obj))
        if before is not None and owners(before) != owners(obj):
            for owner in owners(before):
                self._look_at(cluster, str(owner.get("uid")))

    def _forget(self, cluster: str, object_uid: str) -> None:
        known = self._where.get(cluster, {})
        known.pop(object_uid, None)
        if not known:
            self._where.pop(cluster, None)

    def _look_at(self, cluster: str, object_uid: str) -> None:
        if object_uid in self._where.get(cluster, ()):
            self._manager.add(self, Key(cluster, "", object_uid))

    def _look_at_children(self, cluster: str, owner: Object) -> None:
        for _, child in self._dependents.children(cluster, uid(owner)):
            self._look_at(cluster, uid(child))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace
        ref = self._where.get(cluster, {}).get(name)
        obj = self._api.find(cluster, *ref) if ref is not None else None
        if ref is None or obj is None or uid(obj) != name:
            return None
        try:
            if not deleting(obj):
                await self._tend(cluster, ref, obj)
            elif ORPHAN in finalizers(obj):
                await self._orphan(cluster, ref, obj)
            elif FOREGROUND in finalizers(obj):
                await self._foreground(cluster, ref, obj)
        except NotFound:
            # It went away by itself.
            return None
        return None

    async def _tend(self, cluster: str, ref: Ref, obj: Object) -> None:
        """Deletes an object whose owners are all gone or going; else drops the references to those."""
        found = {str(owner.get("uid")): self._look_up(cluster, ref.namespace, owner) for owner in owners(obj)}
        if not found or set(found.values()) == {Owner.SOLID}:
            return
        if Owner.SOLID in found.values():
            gone = {owner for owner, state in found.items() if state is not Owner.SOLID}
            await self._api.edit(cluster, *ref, lambda latest: _drop_owners(latest, gone))
            return
        propagation, transaction = "Background", self._api.transaction()
        if Owner.WAITING in found.values() and self._blocking(cluster, obj):
            propagation = "Foreground"
            if self._is_circular(cluster, obj):
                transaction.edit(cluster, *ref, _unblock)
        elif ORPHAN in finalizers(obj):
            propagation = "Orphan"
        elif FOREGROUND in finalizers(obj):
            propagation = "Foreground"
        transaction.delete(cluster, *ref, propagation=propagation)
        await transaction.commit()

    def _is_circular(self, cluster: str, obj: Object) -> bool:
        """Whether a dependent waits for its own dependents, as owners in a circle do for each other."""
        return any(
            deleting(child) and FOREGROUND in finalizers(child)
            for _, child in self._dependents.children(cluster, uid(obj))
        )

    async def _orphan(self, cluster: str, ref: Ref, owner: Object) -> None:
        transaction = self._api.transaction()
        for child_ref, _ in self._dependents.children(cluster, uid(owner)):
            transaction.edit(cluster, *child_ref, lambda latest: _drop_owners(latest, {uid(owner)}))
        transaction.edit(cluster, *ref, lambda latest: drop_finalizer(latest, ORPHAN))
        await transaction.commit()

    async def _foreground(self, cluster: str, ref: Ref, owner: Object) -> None:
        if self._blocking(cluster, owner):
            self._look_at_children(cluster, owner)
            return
        await self._api.edit(cluster, *ref, lambda latest: drop_finalizer(latest, FOREGROUND))

    def _blocking(self, cluster: str, owner: Object) -> bool:
        """Whether a dependent is still there that its owner's deletion has to wait for."""
        return any(
            reference.get("blockOwnerDeletion") and reference.get("uid") == uid(owner)
            for _, child in self._dependents.children(cluster, uid(owner))
            for reference in owners(child)
        )

    def _look_up(self, cluster: str, namespace: str, reference: Mapping[str, Any]) -> Owner:
        resource = self._resource(cluster, reference)
        if resource is None:
            # A kind that is not served, perhaps not yet: nothing can be known of it.
            return Owner.SOLID
        owner = self._api.find(
            cluster, resource.key, namespace if resource.namespaced else "", str(reference.get("name"))
        )
        if owner is None or uid(owner) != reference.get("uid"):
            return Owner.ABSENT
        return Owner.WAITING if deleting(owner) and FOREGROUND in finalizers(owner) else Owner.SOLID

    def _resource(self, cluster: str, reference: Mapping[str, Any]) -> Resource | None:
        group, _, version = str(reference.get("apiVersion")).rpartition("/")
        registry = self._api.registry(cluster)
        exact = registry.by_kind(group, version, str(reference.get("kind")))
        if exact is not None:
            return exact
        return next(
            (each for each in registry if (each.group, each.kind) == (group, reference.get("kind"))), None
        )


def _drop_owners(obj: Object, gone: set[str]) -> None:
    left = [owner for owner in owners(obj) if owner.get("uid") not in gone]
    if left:
        obj["metadata"]["ownerReferences"] = left
    else:
        obj["metadata"].pop("ownerReferences", None)


def _unblock(obj: Object) -> None:
    """Lets its owners go before it."""
    obj["metadata"]["ownerReferences"] = [
        {**owner, "blockOwnerDeletion": False} if owner.get("blockOwnerDeletion") else dict(owner)
        for owner in owners(obj)
    ]
