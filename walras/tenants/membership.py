"""Which pods are a workload's: those that it controls and that match it, and ownerless ones that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walras.kube.api import API, Change
from walras.kube.selectors import LabelSelector, from_label_selector
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager, Reconciler
from walras.tenants.dependents import Dependents
from walras.tenants.objects import (
    PODS,
    Object,
    controller_of,
    deleting,
    drop_finalizer,
    finalizers,
    finished,
    labels,
    owner_reference,
    owners,
    uid,
)


class Members:
    """The pods of the workloads of one resource, as Kubernetes' PodControllerRefManager claims them.

    `selector` reads a workload's selector, None where it selects nothing; `accepts` says whether a pod that
    matches may be one of its own; `finalizer` is one that its pods have.
    """

    def __init__(
        self,
        api: API,
        manager: Manager,
        dependents: Dependents,
        resource: str,
        kind: str,
        *,
        accepts: Callable[[Object, Object], bool] = lambda _owner, _pod: True,
        finalizer: str = "",
    ) -> None:
        self._api = api
        self._manager = manager
        self._dependents = dependents
        self._resource = resource
        self._kind = kind
        self._accepts = accepts
        self._finalizer = finalizer

    def watch(self, controller: Reconciler) -> list[Callable[[], None]]:
        """Has the controller look at a workload when it changes, or a pod of it or for it."""

        def owner_changed(change: Change) -> None:
            metadata = change.object["metadata"]
            self._manager.add(controller, Key(change.cluster, metadata["namespace"], metadata["name"]))

        def pod_changed(change: Change) -> None:
            for name in self._concerned(change):
                key = Key(change.cluster, change.object["metadata"]["namespace"], name)
                self._manager.add(controller, key)

        return [
            self._api.subscribe(self._resource, owner_changed),
            self._api.subscribe(PODS, pod_changed),
        ]

    def _concerned(self, change: Change) -> set[str]:
        pods = (change.object,) if change.old is None else (change.object, change.old)
        controllers = [controller_of(pod) for pod in pods]
        names = {str(each["name"]) for each in controllers if each and each.get("kind") == self._kind}
        pod = change.object
        if controllers[0] is None and change.type != "DELETED" and labels(pod):
            names |= self._candidates(change.cluster, pod)
        return names

    def _candidates(self, cluster: str, pod: Object) -> set[str]:
        """The workloads that an ownerless pod matches."""
        if not self._api.has_cluster(cluster):
            return set()
        found = self._api.list(cluster, self._resource, pod["metadata"]["namespace"])
        return {owner["metadata"]["name"] for owner in found if self.selects(owner, pod)}

    def selects(self, owner: Object, pod: Object) -> bool:
        selector = selector_of(owner)
        return selector is not None and selector.matches(labels(pod)) and self._accepts(owner, pod)

    def claim(self, transaction: Transaction, cluster: str, owner: Object) -> list[Object]:
        """The workload's pods; stages what takes pods in and what lets them go. Raises NotFound."""
        own = self._dependents.controlled(cluster, owner, PODS)
        if deleting(owner):
            return own
        kept = []
        for pod in own:
            if self.selects(owner, pod):
                kept.append(pod)
            elif not deleting(pod):
                self._edit(transaction, cluster, pod, self._releasing(owner))
        for pod in self._dependents.unowned_pods(cluster, owner["metadata"]["namespace"]):
            if not deleting(pod) and not finished(pod) and self.selects(owner, pod):
                kept.append(self._edit(transaction, cluster, pod, adopting(owner, self._finalizer)))
        return kept

    def _edit(
        self, transaction: Transaction, cluster: str, pod: Object, change: Callable[[Object], None]
    ) -> Object:
        metadata = pod["metadata"]
        return transaction.edit(cluster, PODS, metadata["namespace"], metadata["name"], change)

    def _releasing(self, owner: Object) -> Callable[[Object], None]:
        def release(latest: Object) -> None:
            left = [each for each in owners(latest) if each.get("uid") != uid(owner)]
            if left:
                latest["metadata"]["ownerReferences"] = left
            else:
                latest["metadata"].pop("ownerReferences", None)
            if self._finalizer:
                drop_finalizer(latest, self._finalizer)

        return release


def selector_of(owner: Object) -> LabelSelector | None:
    """The workload's selector, which is a map in older types; None where it selects nothing."""
    declared: Any = owner["spec"].get("selector")
    if not declared:
        return None
    if owner["kind"] == "ReplicationController":
        declared = {"matchLabels": declared}
    return from_label_selector(declared) or None


def adopting(owner: Object, finalizer: str = "") -> Callable[[Object], None]:
    """Makes `owner` the controller of an object that has none, in place; with a finalizer, gives it that."""

    def adopt(latest: Object) -> None:
        if controller_of(latest) is not None or deleting(latest):
            return
        metadata = latest["metadata"]
        metadata["ownerReferences"] = [*owners(latest), owner_reference(owner)]
        if finalizer and finalizer not in finalizers(latest):
            metadata["finalizers"] = [*finalizers(latest), finalizer]

    return adopt
