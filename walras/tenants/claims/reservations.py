"""Keeps reservations of ResourceClaims: who is done loses theirs, what nobody uses is given back or goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.tenants.claims.pod import (
    FINALIZER,
    RESOURCE_CLAIMS,
    claim_names,
)
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import (
    PODS,
    Object,
    controller_of,
    deleting,
    drop_finalizer,
    finalizers,
    finished,
    status,
    uid,
)


class ReservationController:
    """Keys are claims. As kube-controller-manager's resourceclaim controller (syncClaim)."""

    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(RESOURCE_CLAIMS, self._claim_changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _claim_changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _pod_changed(self, change: Change) -> None:
        pod = change.object
        if change.type == "DELETED" or _is_done(pod):
            for _, claim in claim_names(pod):
                if claim is not None:
                    self._manager.add(self, Key(change.cluster, change.namespace, claim))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        claim = self._api.find(cluster, RESOURCE_CLAIMS, namespace, name)
        if claim is None:
            return None
        transaction = self._api.transaction()
        try:
            latest = transaction.edit(
                cluster, RESOURCE_CLAIMS, namespace, name, lambda latest: self._settle(cluster, latest)
            )
            if not status(latest).get("reservedFor") and self._is_orphan(cluster, latest):
                transaction.delete(cluster, RESOURCE_CLAIMS, namespace, name)
        except NotFound:
            return None
        await transaction.commit()
        return None

    def _settle(self, cluster: str, claim: Object) -> None:
        namespace = claim["metadata"]["namespace"]
        before = list(status(claim).get("reservedFor") or ())
        left = [each for each in before if self._uses(cluster, namespace, each)]
        if len(left) < len(before):
            _set(claim, left)
            if not left:
                _give_back(claim)
        elif deleting(claim) and not left:
            _give_back(claim)

    def _uses(self, cluster: str, namespace: str, entry: Object) -> bool:
        """Whether who holds a reservation may still use it; of others than pods nothing is known."""
        if entry.get("apiGroup") or entry.get("resource") != "pods":
            return True
        pod = self._api.find(cluster, PODS, namespace, entry["name"])
        return pod is not None and uid(pod) == entry["uid"] and not _is_done(pod)

    def _is_orphan(self, cluster: str, claim: Object) -> bool:
        """Whether it was made for a pod that will not run; that of a pod that is gone goes as garbage."""
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != "Pod" or deleting(claim):
            return False
        pod = self._api.find(cluster, PODS, claim["metadata"]["namespace"], owner["name"])
        return pod is not None and (uid(pod) != owner.get("uid") or _is_done(pod))


def _is_done(pod: Object) -> bool:
    """Whether it does not need its claims any more."""
    return finished(pod) or (deleting(pod) and not pod["spec"].get("nodeName"))


def _set(claim: Object, reserved: list[Any]) -> None:
    if reserved:
        claim["status"]["reservedFor"] = reserved
    else:
        claim["status"].pop("reservedFor", None)


def _give_back(claim: Object) -> None:
    """Nobody uses it: its devices are free, and nothing keeps it any more."""
    if FINALIZER in finalizers(claim):
        status_ = claim.setdefault("status", {})
        for field in ("allocation", "devices"):
            status_.pop(field, None)
        drop_finalizer(claim, FINALIZER)
