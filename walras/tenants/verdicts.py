"""Writes down what the scheduler decided: the node of a pod, or why it has none."""

from __future__ import annotations

from walras.core.clock import Clock, rfc3339
from walras.core.errors import NotFound
from walras.kube.api import API
from walras.kube.transaction import Transaction
from walras.tenants.events import Recorder
from walras.tenants.objects import PODS, Object, condition, deleting, set_condition, status, uid
from walras.tenants.preemption import Key


class Verdicts:
    def __init__(self, api: API, clock: Clock, recorder: Recorder, component: str) -> None:
        self._api = api
        self._clock = clock
        self._recorder = recorder
        self._component = component

    def bind(self, transaction: Transaction, cluster: str, key: Key, pod_uid: str, node: str) -> bool:
        """Stages that the pod is on the node; False where it is gone, going, or has one already."""
        now = rfc3339(self._clock.now_ms())
        bound: list[Object] = []

        def bind(pod: Object) -> None:
            if uid(pod) == pod_uid and not pod["spec"].get("nodeName") and not deleting(pod):
                pod["spec"]["nodeName"] = node
                pod.setdefault("status", {}).pop("nominatedNodeName", None)
                set_condition(pod, "PodScheduled", "True", now)
                bound.append(pod)

        try:
            transaction.edit(cluster, PODS, *key, bind)
        except NotFound:
            return False
        if bound:
            self._recorder.stage(
                transaction, cluster, bound[0], "Normal", "Scheduled",
                message=f"Successfully assigned {key[0]}/{key[1]} to {node}", component=self._component,
            )  # fmt: skip
        return bool(bound)

    def refuse(
        self,
        transaction: Transaction,
        cluster: str,
        key: Key,
        pod_uid: str,
        message: str,
        nominated: str,
    ) -> None:
        """Stages why the pod has no node, and the one where room is being made; nothing if it says so."""
        pod = self._api.find(cluster, PODS, *key)
        said = condition(pod, "PodScheduled") if pod is not None else None
        told = said is not None and said.get("status") == "False" and said.get("message") == message
        if told and pod is not None and status(pod).get("nominatedNodeName", "") == nominated:
            return
        now = rfc3339(self._clock.now_ms())
        refused: list[Object] = []

        def refuse(pod: Object) -> None:
            if uid(pod) == pod_uid and not pod["spec"].get("nodeName"):
                set_condition(pod, "PodScheduled", "False", now, reason="Unschedulable", message=message)
                if nominated:
                    pod["status"]["nominatedNodeName"] = nominated
                else:
                    pod["status"].pop("nominatedNodeName", None)
                refused.append(pod)

        try:
            transaction.edit(cluster, PODS, *key, refuse)
        except NotFound:
            return
        if refused:
            self._recorder.stage(
                transaction, cluster, refused[0], "Warning", "FailedScheduling",
                message=message, component=self._component,
            )  # fmt: skip
