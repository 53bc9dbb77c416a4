"""Keeps as many pods as a ReplicaSet or a ReplicationController asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from walras.core.clock import Clock, rfc3339
from walras.core.errors import NotFound
from walras.kube.api import API
from walras.kube.transaction import Transaction
from walras.tenants.controller import Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder, Staged
from walras.tenants.membership import Members
from walras.tenants.objects import (
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    Object,
    deleting,
    is_true,
    labels,
    set_condition,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import (
    REFUSALS,
    available_in_ms,
    deletion_rank,
    is_active,
    is_ready,
    new_pod,
    takes_pods,
)

BURST_MAX: Final = 500
_FAILURE: Final = "ReplicaFailure"


class Kind(NamedTuple):
    resource: str
    kind: str
    component: str
    # Whether its status tells of pods that are on their way out.
    tells_terminating: bool = True


REPLICA_SET: Final = Kind(REPLICA_SETS, "ReplicaSet", "replicaset-controller")
REPLICATION_CONTROLLER: Final = Kind(
    REPLICATION_CONTROLLERS, "ReplicationController", "replication-controller", tells_terminating=False
)


class ReplicaSetController:
    def __init__(
        self,
        api: API,
        clock: Clock,
        manager: Manager,
        recorder: Recorder,
        dependents: Dependents,
        kind: Kind = REPLICA_SET,
    ) -> None:
        self._api = api
        self._clock = clock
        self._recorder = recorder
        self._kind = kind
        self._members = Members(api, manager, dependents, kind.resource, kind.kind)
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return self._members.watch(self)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        owner = self._api.find(cluster, self._kind.resource, namespace, name)
        if owner is None:
            return None
        transaction = self._api.transaction()
        try:
            pods = self._members.claim(transaction, cluster, owner)
            active, failure = [pod for pod in pods if is_active(pod)], ""
            if not deleting(owner) and takes_pods(self._api, cluster, namespace):
                active, failure = self._scale(transaction, cluster, owner, active)
            again_ms = self._report(transaction, cluster, owner, pods, active, failure)
        except NotFound:
            # Something of it went away meanwhile, and its deletion brings us back.
            return 1
        await transaction.commit()
        return min(again_ms or RETRY_MS, RETRY_MS) if failure else again_ms

    def _scale(
        self, transaction: Transaction, cluster: str, owner: Object, active: list[Object]
    ) -> tuple[list[Object], str]:
        """Stages what is missing or too many; the pods that are active then, and why not enough of them."""
        notes = self._recorder.about(transaction, cluster, owner, self._kind.component)
        missing = owner["spec"].get("replicas", 1) - len(active)
        if missing > 0:
            return self._grow(transaction, cluster, owner, active, missing, notes)
        extra = sorted(active, key=deletion_rank)[: max(0, -missing)]
        for pod in extra:
            transaction.delete(cluster, PODS, pod["metadata"]["namespace"], _name(pod))
            notes.normal("SuccessfulDelete", f"Deleted pod: {_name(pod)}")
        going = {_name(pod) for pod in extra}
        return [pod for pod in active if _name(pod) not in going], ""

    def _grow(
        self,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        active: list[Object],
        missing: int,
        notes: Staged,
    ) -> tuple[list[Object], str]:
        room = self._room.left(cluster)
        made: list[Object] = []
        for _ in range(min(missing, BURST_MAX, room)):
            try:
                pod = transaction.make(cluster, PODS, new_pod(owner, owner["spec"]["template"]))
            except REFUSALS as refusal:
                failure = f"Error creating: {refusal.message}"
                notes.warning("FailedCreate", failure)
                return active + made, failure
            made.append(pod)
            notes.normal("SuccessfulCreate", f"Created pod: {_name(pod)}")
        if room >= missing:
            return active + made, ""
        failure = self._room.refusal(cluster)
        if not room:
            notes.warning("FailedCreate", failure)
        return active + made, failure

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        pods: list[Object],
        active: list[Object],
        failure: str,
    ) -> int | None:
        """Stages the status; milliseconds until a ready pod becomes available, if one does by waiting."""
        now_ms, needed_s = self._clock.now_ms(), owner["spec"].get("minReadySeconds", 0)
        waits = [wait for pod in active if (wait := available_in_ms(pod, needed_s, now_ms)) is not None]
        template_labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        counts = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(template_labels.items() <= labels(pod).items() for pod in active),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(wait == 0 for wait in waits),
        }
        if self._kind.tells_terminating:
            counts["terminatingReplicas"] = sum(deleting(pod) for pod in pods)

        def report(latest: Object) -> None:
            status = latest.setdefault("status", {})
            for field, count in counts.items():
                if count or field == "replicas":
                    status[field] = count
                else:
                    status.pop(field, None)
            status["observedGeneration"] = owner["metadata"].get("generation", 1)
            _tell_failure(latest, failure, rfc3339(now_ms))

        transaction.edit(cluster, self._kind.resource, owner["metadata"]["namespace"], _name(owner), report)
        return min((wait for wait in waits if wait > 0), default=None)


def _tell_failure(owner: Object, failure: str, now: str) -> None:
    """The condition that pods cannot be made, there only while it is so."""
    if failure:
        # The first one stays: the next names another pod, and to write it would bring us back at once.
        if not is_true(owner, _FAILURE):
            set_condition(owner, _FAILURE, "True", now, reason="FailedCreate", message=failure)
        return
    left = [each for each in owner["status"].get("conditions") or () if each.get("type") != _FAILURE]
    if left:
        owner["status"]["conditions"] = left
    else:
        owner["status"].pop("conditions", None)


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
