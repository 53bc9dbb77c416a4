"""Carries preemption out: victims are told why and deleted; budgets are read from the API."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import BadRequest, NotFound
from walras.kube.api import API
from walras.kube.selectors import from_label_selector
from walras.kube.transaction import Transaction
from walras.tenants.demands import Demand
from walras.tenants.events import Recorder
from walras.tenants.objects import DISRUPTION_TARGET, PODS, Object, deleting, set_condition, status
from walras.tenants.preemption import Budget, Key

BUDGETS: Final = "poddisruptionbudgets.policy"


def budgets_of(api: API, cluster: str) -> list[Budget]:
    """The cluster's disruption budgets as their controller last counted them."""
    return [budget for each in api.list(cluster, BUDGETS) if (budget := _budget(each)) is not None]


def _budget(obj: Object) -> Budget | None:
    namespace = obj["metadata"]["namespace"]
    try:
        selector = from_label_selector((obj.get("spec") or {}).get("selector"))
    except BadRequest:
        return None

    def protects(demand: Demand) -> bool:
        return demand.namespace == namespace and selector.matches(demand.labels)

    return Budget(protects, int(status(obj).get("disruptionsAllowed") or 0))


class Preemptor:
    def __init__(self, clock: Clock, recorder: Recorder, component: str) -> None:
        self._clock = clock
        self._recorder = recorder
        self._component = component

    def stage(self, transaction: Transaction, cluster: str, key: Key, preemptor_uid: str, node: str) -> None:
        """Marks the pod as disrupted and deletes it; nothing where it is gone already."""
        now = rfc3339(self._clock.now_ms())
        message = f"{self._component}: preempting to accommodate a higher priority pod"

        def mark(pod: Object) -> None:
            set_condition(
                pod, DISRUPTION_TARGET, "True", now, reason="PreemptionByScheduler", message=message
            )

        with suppress(NotFound):
            victim = transaction.edit(cluster, PODS, *key, mark)
            if not deleting(victim):
                transaction.delete(cluster, PODS, *key)
            notes = self._recorder.about(transaction, cluster, victim, self._component)
            notes.normal("Preempted", f"Preempted by pod {preemptor_uid} on node {node}")
