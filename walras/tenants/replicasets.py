"""Keeps as many pods as a ReplicaSet asks for; takes in ownerless pods that match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.kube.selectors import from_label_selector
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.objects import (
    PODS,
    REPLICA_SETS,
    Object,
    controller_of,
    deleting,
    labels,
    owner_reference,
    transition_ms,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import deletion_rank, is_active, is_ready, new_pod, takes_pods

COMPONENT: Final = "replicaset-controller"
BURST_MAX: Final = 500


class ReplicaSetController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._dependents = dependents
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(REPLICA_SETS, self._set_changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _set_changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _pod_changed(self, change: Change) -> None:
        pod, namespace = change.object, change.object["metadata"]["namespace"]
        owner = controller_of(pod)
        if owner is not None:
            if owner.get("kind") == "ReplicaSet":
                self._manager.add(self, Key(change.cluster, namespace, str(owner["name"])))
        elif change.type != "DELETED" and labels(pod) and self._api.has_cluster(change.cluster):
            for candidate in self._api.list(change.cluster, REPLICA_SETS, namespace):
                if _selects(candidate, pod):
                    self._manager.add(self, Key(change.cluster, namespace, candidate["metadata"]["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        owner = self._api.find(cluster, REPLICA_SETS, namespace, name)
        if owner is None:
            return None
        transaction = self._api.transaction()
        pods = self._dependents.controlled(cluster, owner, PODS)
        if not deleting(owner):
            pods += self._adopt(transaction, cluster, owner)
        try:
            active = [pod for pod in pods if is_active(pod)]
            if not deleting(owner) and takes_pods(self._api, cluster, namespace):
                active = self._scale(transaction, cluster, owner, active)
            again_ms = self._report(transaction, cluster, owner, pods, active)
            if len(active) < owner["spec"].get("replicas", 1) and not self._room.left(cluster):
                again_ms = min(again_ms or RETRY_MS, RETRY_MS)
        except NotFound:
            # Something of it went away meanwhile, and its deletion brings us back.
            return 1
        await transaction.commit()
        return again_ms

    def _adopt(self, transaction: Transaction, cluster: str, owner: Object) -> list[Object]:
        adopted = []
        for pod in self._dependents.unowned_pods(cluster, owner["metadata"]["namespace"]):
            if is_active(pod) and _selects(owner, pod):

                def take(latest: Object) -> None:
                    if controller_of(latest) is None:
                        references = list(latest["metadata"].get("ownerReferences") or ())
                        latest["metadata"]["ownerReferences"] = [*references, owner_reference(owner)]

                metadata = pod["metadata"]
                adopted.append(transaction.edit(cluster, PODS, metadata["namespace"], metadata["name"], take))
        return adopted

    def _scale(
        self, transaction: Transaction, cluster: str, owner: Object, active: list[Object]
    ) -> list[Object]:
        """Stages what is missing or too many; the pods that are active then."""
        missing = owner["spec"].get("replicas", 1) - len(active)
        if missing > 0:
            made = []
            room = self._room.left(cluster)
            if not room:
                self._note(
                    transaction, cluster, owner, "FailedCreate", self._room.refusal(cluster), "Warning"
                )
            for _ in range(min(missing, BURST_MAX, room)):
                pod = transaction.create(cluster, PODS, new_pod(owner, owner["spec"]["template"]))
                made.append(pod)
                self._note(transaction, cluster, owner, "SuccessfulCreate", f"Created pod: {_name(pod)}")
            return active + made
        extra = sorted(active, key=deletion_rank)[: max(0, -missing)]
        for pod in extra:
            transaction.delete(cluster, PODS, pod["metadata"]["namespace"], _name(pod))
            self._note(transaction, cluster, owner, "SuccessfulDelete", f"Deleted pod: {_name(pod)}")
        going = {_name(pod) for pod in extra}
        return [pod for pod in active if _name(pod) not in going]

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        pods: list[Object],
        active: list[Object],
    ) -> int | None:
        """Stages the status; milliseconds until a ready pod becomes available, if one does by waiting."""
        now_ms, needed_ms = self._clock.now_ms(), owner["spec"].get("minReadySeconds", 0) * 1000
        ready = [pod for pod in active if is_ready(pod)]
        waits = [
            (transition_ms(pod, "Ready") or now_ms) + needed_ms - now_ms if needed_ms else 0 for pod in ready
        ]
        template_labels = owner["spec"]["template"].get("metadata", {}).get("labels") or {}

        def report(latest: Object) -> None:
            reported = {
                "replicas": len(active),
                "fullyLabeledReplicas": sum(template_labels.items() <= labels(pod).items() for pod in active),
                "readyReplicas": len(ready),
                "availableReplicas": sum(wait <= 0 for wait in waits),
                "terminatingReplicas": sum(deleting(pod) for pod in pods),
            }
            status = latest.setdefault("status", {})
            for field, count in reported.items():
                if count or field == "replicas":
                    status[field] = count
                else:
                    status.pop(field, None)
            status["observedGeneration"] = owner["metadata"].get("generation", 1)

        transaction.edit(cluster, REPLICA_SETS, owner["metadata"]["namespace"], _name(owner), report)
        return min((wait for wait in waits if wait > 0), default=None)

    def _note(
        self,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        reason: str,
        message: str,
        type_: str = "Normal",
    ) -> None:
        self._recorder.stage(transaction, cluster, owner, type_, reason, message=message, component=COMPONENT)


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _selects(owner: Object, pod: Object) -> bool:
    selector = from_label_selector(owner["spec"].get("selector"))
    return bool(selector) and selector.matches(labels(pod))
