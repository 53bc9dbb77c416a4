"""Runs Jobs to completion: carries out what `job_plan` says, counts and finalizers in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.job_indexes import INDEX, NONE
from walras.tenants.job_plan import TRACKING, Plan, plan
from walras.tenants.membership import Members
from walras.tenants.objects import (
    JOBS,
    PODS,
    Object,
    controller_of,
    deleting,
    drop_finalizer,
    finalizers,
    uid,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import REFUSALS, new_pod, takes_pods

COMPONENT: Final = "job-controller"
# The only value of `spec.managedBy` that means this controller.
MANAGER: Final = "kubernetes.io/job-controller"


class JobController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._dependents = dependents
        self._strays = StrayPods(api)
        self._members = Members(api, manager, dependents, JOBS, "Job", finalizer=TRACKING)
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            *self._members.watch(self),
            self._api.subscribe(JOBS, self._job_changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _job_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            for ref, _ in self._dependents.children(change.cluster, uid(change.object), PODS):
                self._manager.add(self._strays, Key(change.cluster, ref.namespace, ref.name))

    def _pod_changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if TRACKING in finalizers(change.object):
            self._manager.add(self._strays, Key(change.cluster, metadata["namespace"], metadata["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        job = self._api.find(cluster, JOBS, namespace, name)
        if job is None or job["spec"].get("managedBy") not in (None, MANAGER):
            return None
        if deleting(job):
            await self._let_go(cluster, self._dependents.controlled(cluster, job, PODS))
            return None
        transaction = self._api.transaction()
        try:
            pods = self._members.claim(transaction, cluster, job)
        except NotFound:
            # Something of it went away meanwhile, and its deletion brings us back.
            return 1
        planned = plan(job, pods, self._clock.now_ms())
        if planned.expired:
            await self._api.delete(cluster, JOBS, namespace, name, propagation="Foreground")
            return None
        if not takes_pods(self._api, cluster, namespace):
            planned.create.clear()
        room = self._room.left(cluster)
        if len(planned.create) > room:
            del planned.create[room:]
            self._note(transaction, cluster, job, "Warning", "FailedCreate", self._room.refusal(cluster))
            planned.again_ms = min(planned.again_ms or RETRY_MS, RETRY_MS)
        try:
            self._stage(transaction, cluster, job, planned)
        except NotFound:
            # Something of it went away meanwhile, and its deletion brings us back.
            return 1
        await transaction.commit()
        return planned.again_ms

    def _stage(self, transaction: Transaction, cluster: str, job: Object, planned: Plan) -> None:
        namespace = job["metadata"]["namespace"]
        for pod in planned.counted:
            transaction.edit(cluster, PODS, namespace, pod["metadata"]["name"], _untrack)
        for pod in planned.give_up:
            transaction.edit(cluster, PODS, namespace, pod["metadata"]["name"], _untrack)
        for pod in (*planned.give_up, *planned.kill):
            transaction.delete(cluster, PODS, namespace, pod["metadata"]["name"])
            self._note(transaction, cluster, job, "Normal", "SuccessfulDelete",
                       f"Deleted pod: {pod['metadata']['name']}")  # fmt: skip
        for number, index in enumerate(planned.create):
            pod = _pod_of(job, index)
            if index is not None and job["spec"].get("backoffLimitPerIndex") is not None:
                pod["metadata"]["annotations"].update(planned.failures.get(index, NONE).annotations())
            try:
                pod = transaction.make(cluster, PODS, pod)
            except REFUSALS as refusal:
                why = f"Error creating: {refusal.message}"
                self._note(transaction, cluster, job, "Warning", "FailedCreate", why)
                del planned.create[number:]
                planned.again_ms = min(planned.again_ms or RETRY_MS, RETRY_MS)
                break
            self._note(transaction, cluster, job, "Normal", "SuccessfulCreate",
                       f"Created pod: {pod['metadata']['name']}")  # fmt: skip
        for note in planned.notes:
            self._note(transaction, cluster, job, note.type, note.reason, note.message)

        def report(latest: Object) -> None:
            latest["status"] = planned.status
            # What this very transaction changes is in the counts when it is.
            active = planned.status.get("active", 0) + len(planned.create)
            active -= len(planned.give_up) + len(planned.kill)
            if active > 0:
                latest["status"]["active"] = active
            else:
                latest["status"].pop("active", None)

        transaction.edit(cluster, JOBS, namespace, job["metadata"]["name"], report)

    def _note(
        self, transaction: Transaction, cluster: str, job: Object, type_: str, reason: str, message: str
    ) -> None:
        self._recorder.stage(transaction, cluster, job, type_, reason, message=message, component=COMPONENT)

    async def _let_go(self, cluster: str, pods: list[Object]) -> None:
        """The job is going: its pods are no longer counted, so nothing keeps them."""
        transaction = self._api.transaction()
        for pod in pods:
            metadata = pod["metadata"]
            transaction.edit(cluster, PODS, metadata["namespace"], metadata["name"], _untrack)
        await transaction.commit()


class StrayPods:
    """Frees pods of jobs that are gone: nobody counts them any more."""

    def __init__(self, api: API) -> None:
        self._api = api

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        pod = self._api.find(cluster, PODS, namespace, name)
        if pod is None or TRACKING not in finalizers(pod):
            return None

        def free(latest: Object) -> None:
            # Of the latest state: a job may be taking it in.
            if not self._is_counted(cluster, latest):
                _untrack(latest)

        with suppress(NotFound):
            await self._api.edit(cluster, PODS, namespace, name, free)
        return None

    def _is_counted(self, cluster: str, pod: Object) -> bool:
        owner = controller_of(pod)
        if owner is None or owner.get("kind") != "Job":
            return False
        job = self._api.find(cluster, JOBS, pod["metadata"]["namespace"], str(owner["name"]))
        return job is not None and uid(job) == owner.get("uid")


def _untrack(pod: Object) -> None:
    drop_finalizer(pod, TRACKING)


def _pod_of(job: Object, index: int | None) -> Object:
    name, job_uid = job["metadata"]["name"], uid(job)
    pod = new_pod(job, job["spec"]["template"])
    metadata = pod["metadata"]
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), TRACKING]
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        "batch.kubernetes.io/controller-uid": job_uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": job_uid,
        "job-name": name,
    }
    if index is not None:
        _index(pod, name, index)
    return pod


def _index(pod: Object, job_name: str, index: int) -> None:
    """Tells the pod of an Indexed job which part is its own."""
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["generateName"] = f"{job_name}-{index}-"
    metadata["labels"][INDEX] = str(index)
    metadata["annotations"] = {**(metadata.get("annotations") or {}), INDEX: str(index)}
    spec.setdefault("hostname", f"{job_name}-{index}")
    variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        known = {each["name"] for each in container.get("env") or ()}
        if variable["name"] not in known:
            container["env"] = [*(container.get("env") or ()), variable]
