"""Runs VirtualMachineInstances: a launcher pod each, and the status that the pod's comes to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import Conflict, Invalid, NotFound, WalrasError
from walras.core.quantity import parse_quantity
from walras.kube import fields
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.registry_builtin import for_agents
from walras.kube.transaction import Transaction
from walras.kube.writing import check_valid
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.objects import (
    CLAIMS,
    PODS,
    Object,
    condition,
    controller_of,
    deleting,
    drop_finalizer,
    finalizers,
    is_true,
    phase,
    set_condition,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.virtual.instance_status import PAUSED, report
from walras.tenants.virtual.launcher import launcher
from walras.tenants.virtual.words import FINALIZER, INSTANCES, UNPAUSED
from walras.tenants.workloads import REFUSALS, complete, takes_pods

COMPONENT: Final = "virtualmachine-controller"
_KIND: Final = "VirtualMachineInstance"
_NAME: Final = "virt-launcher-00000"


class InstanceController:
    """Keys are instances."""

    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api, self._clock, self._manager = api, clock, manager
        self._recorder, self._dependents = recorder, dependents
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(INSTANCES, self._changed),
            self._api.subscribe(PODS, self._pod_changed),
            self._api.subscribe(CLAIMS, self._claim_changed),
        ]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _pod_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner.get("kind") == _KIND:
            self._manager.add(self, Key(change.cluster, change.namespace, str(owner["name"])))

    def _claim_changed(self, change: Change) -> None:
        """One that an instance waits for may be there now."""
        if change.type == "DELETED":
            # It may have gone with its whole cluster.
            return
        for instance in self._api.list(change.cluster, INSTANCES, change.namespace):
            if phase(instance) in {"", "Pending"}:
                self._manager.add(self, Key(change.cluster, change.namespace, instance["metadata"]["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        instance = self._api.find(cluster, INSTANCES, namespace, name)
        if instance is None:
            return None
        pods = self._dependents.controlled(cluster, instance, PODS)
        pod: Object | None = None
        transaction = self._api.transaction()
        again_ms, failure = None, ""
        try:
            if deleting(instance):
                # Of the instance, which may have been given less since, also while it ends.
                grace_s = instance["spec"].get("terminationGracePeriodSeconds")
                for pod in pods:
                    if not deleting(pod) or _shorter(grace_s, pod):
                        transaction.delete(
                            cluster, PODS, namespace, pod["metadata"]["name"], grace_seconds=grace_s
                        )
            elif not pods and phase(instance) in {"", "Pending", "Scheduling"}:
                failure, again_ms = self._make(transaction, cluster, instance, pods)
            now = rfc3339(self._clock.now_ms())
            if pods and not deleting(pods[0]):
                _gate(transaction, cluster, instance, pods[0], now)
            pod = pods[0] if pods else None

            def change(latest: Object) -> None:
                report(latest, pod, failure, now, retried=again_ms is not None)
                if deleting(latest) and not pods:
                    drop_finalizer(latest, FINALIZER)
                elif not deleting(latest) and FINALIZER not in finalizers(latest):
                    latest["metadata"]["finalizers"] = [*finalizers(latest), FINALIZER]

            transaction.edit(cluster, INSTANCES, namespace, name, change)
        except NotFound:
            # Something of it went away meanwhile, and its deletion brings us back.
            return 1
        with suppress(Conflict):
            await transaction.commit()
        return again_ms

    def _make(
        self, transaction: Transaction, cluster: str, instance: Object, pods: list[Object]
    ) -> tuple[str, int | None]:
        """Stages the launcher, into `pods`: why it cannot be, and when to try again."""
        namespace = instance["metadata"]["namespace"]
        if not takes_pods(self._api, cluster, namespace):
            return "the namespace is going", None
        notes = self._recorder.about(transaction, cluster, instance, COMPONENT)
        failure, again_ms = "", RETRY_MS
        try:
            pod = launcher(instance, lambda claim: self._capacity(cluster, namespace, claim))
        except Invalid as refusal:
            # So it stays until the instance or a claim is another.
            failure, again_ms = refusal.message, 0
        else:
            failure = self._stage(transaction, cluster, pod, pods)
        if failure:
            notes.warning("FailedCreate", f"Error creating pod: {failure}")
            return failure, again_ms or None
        notes.normal("SuccessfulCreate", f"Created virtual machine pod {pods[0]['metadata']['name']}")
        return "", None

    def _stage(self, transaction: Transaction, cluster: str, pod: Object, pods: list[Object]) -> str:
        if not self._room.left(cluster):
            return self._room.refusal(cluster)
        try:
            pods.append(transaction.make(cluster, PODS, checked(pod)))
        except REFUSALS as refusal:
            return refusal.message
        return ""

    def _capacity(self, cluster: str, namespace: str, claim: str) -> int | None:
        found = self._api.find(cluster, CLAIMS, namespace, claim)
        if found is None or phase(found) != "Bound":
            return None
        asked = (found["spec"].get("resources") or {}).get("requests") or {}
        held = (found.get("status") or {}).get("capacity") or asked
        try:
            return int(parse_quantity(str(held.get("storage", "0")))) or None
        except WalrasError:
            return None


def _shorter(grace_s: int | None, pod: Object) -> bool:
    """Whether it is less than what a pod that ends was given."""
    given_s = pod["metadata"].get("deletionGracePeriodSeconds")
    return grace_s is not None and given_s is not None and grace_s < given_s


def _gate(transaction: Transaction, cluster: str, instance: Object, pod: Object, now: str) -> None:
    """The pod is not ready while its machine is held."""
    wanted = "False" if is_true(instance, PAUSED) else "True"
    told = condition(pod, UNPAUSED)
    if told is None or told["status"] != wanted:
        metadata = pod["metadata"]
        transaction.edit(
            cluster, PODS, metadata["namespace"], metadata["name"],
            lambda latest: set_condition(latest, UNPAUSED, wanted, now),
        )  # fmt: skip


def checked(pod: Object) -> Object:
    """The pod as if a client had sent it: with defaults, and refused if it is not valid. Raises Invalid."""
    kind = for_agents()[PODS]
    made, unknown = fields.decode(kind.schema, {"apiVersion": "v1", "kind": "Pod", **copy(pod)})
    if unknown:
        raise Invalid(f"the pod would have fields that there are none of: {', '.join(unknown)}")
    complete(PODS, made)
    named = copy(made)
    named["metadata"]["name"] = _NAME
    check_valid(kind, named, None)
    return made
