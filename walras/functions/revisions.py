"""Keeps as many instances of a revision as it asks for and its requests need, and tells how they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, parse_rfc3339, rfc3339
from walras.core.errors import Invalid, NotFound
from walras.core.quantity import parse_duration_ms
from walras.functions.backend import Backend
from walras.functions.backends import Backends
from walras.functions.settings import Scaling, scaling_of
from walras.functions.template import new_instance
from walras.functions.waiting import why_failing, why_waiting
from walras.functions.words import PROGRESS_DEADLINE, REVISIONS, ROUTING_STATE, Where, sum_up
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.objects import (
    DISRUPTION_TARGET,
    PODS,
    Object,
    condition,
    deleting,
    finished,
    is_true,
    labels,
    set_condition,
    uid,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import REFUSALS, takes_pods

COMPONENT: Final = "revision-controller"
AVAILABLE: Final = "ResourcesAvailable"
HEALTHY: Final = "ContainerHealthy"
ACTIVE: Final = "Active"
_DEADLINE_MS: Final = 600_000
_LATE: Final = "ProgressDeadlineExceeded"
# A pod that has failed is replaced no sooner than this after it was made.
_AGAIN_MS: Final = 5_000


class RevisionController:
    def __init__(
        self,
        api: API,
        clock: Clock,
        manager: Manager,
        recorder: Recorder,
        dependents: Dependents,
        backends: Backends,
    ) -> None:
        self._api, self._clock, self._manager = api, clock, manager
        self._recorder, self._dependents, self._backends = recorder, dependents, backends
        self._room = Room(api)
        backends.changed = self._look

    def watch(self) -> list[Callable[[], None]]:
        # Backends tell of pods.
        return [self._api.subscribe(REVISIONS, self._revision_changed)]

    def _look(self, where: Where) -> None:
        self._manager.add(self, Key(*where))

    def _revision_changed(self, change: Change) -> None:
        self._look(Where(change.cluster, change.namespace, change.name))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        revision = self._api.find(cluster, REVISIONS, namespace, name)
        if revision is None or deleting(revision) or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        pods = self._dependents.controlled(cluster, revision, PODS)
        backend = self._backends.get(Where(cluster, namespace, name))
        try:
            scaling = scaling_of(revision)
            wanted = _wanted(revision, scaling, backend)
            failure, again_ms = self._scale(transaction, cluster, revision, backend, pods, wanted)
        except Invalid as error:
            scaling, wanted, failure, again_ms = Scaling(), 0, error.message, None
        try:
            late_ms = self._report(transaction, cluster, revision, backend, pods, scaling, wanted, failure)
        except NotFound:
            return 1
        await transaction.commit()
        waits = [each for each in (again_ms, late_ms, RETRY_MS if failure else None) if each is not None]
        return min(waits, default=None)

    # Instances

    def _scale(
        self,
        transaction: Transaction,
        cluster: str,
        revision: Object,
        backend: Backend | None,
        pods: list[Object],
        wanted: int,
    ) -> tuple[str, int | None]:
        """Stages pods that are missing and the end of those that are too many; why some cannot be made, and
        milliseconds after which failed ones are replaced."""
        now_ms = self._clock.now_ms()
        left_ms = []
        for pod in (each for each in pods if finished(each) and not deleting(each)):
            age_ms = now_ms - parse_rfc3339(pod["metadata"]["creationTimestamp"])
            if age_ms < _AGAIN_MS:
                left_ms.append(_AGAIN_MS - age_ms)
            else:
                self._delete(transaction, cluster, pod)
        active = sum(_is_active(pod, backend) for pod in pods)
        missing = wanted - active - len(left_ms)
        if missing > 0 and backend is not None:
            missing = backend.more(missing)
        if backend is not None:
            for instance in backend.fewer(active - wanted):
                if not deleting(instance.pod):
                    self._delete(transaction, cluster, instance.pod)
        failure = self._grow(transaction, cluster, revision, missing) if missing > 0 else ""
        return failure, min(left_ms, default=None)

    def _delete(self, transaction: Transaction, cluster: str, pod: Object) -> None:
        metadata = pod["metadata"]
        if transaction.peek(cluster, PODS, metadata["namespace"], metadata["name"]) is not None:
            transaction.delete(cluster, PODS, metadata["namespace"], metadata["name"])

    def _grow(self, transaction: Transaction, cluster: str, revision: Object, missing: int) -> str:
        notes = self._recorder.about(transaction, cluster, revision, COMPONENT)
        room = self._room.left(cluster)
        try:
            wanted = new_instance(revision)
            for _ in range(min(missing, room)):
                pod = transaction.make(cluster, PODS, wanted)
                notes.normal("SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        except REFUSALS as refusal:
            failure = f"Error creating: {refusal.message}"
            notes.warning("FailedCreate", failure)
            return failure
        return self._room.refusal(cluster) if room < missing else ""

    # Status

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        revision: Object,
        backend: Backend | None,
        pods: list[Object],
        scaling: Scaling,
        wanted: int,
        failure: str,
    ) -> int | None:
        """Stages the status; milliseconds until the deadline of a revision that is not there yet."""
        now_ms, ready = self._clock.now_ms(), backend.ready if backend is not None else 0
        was_available = is_true(revision, AVAILABLE)
        left_ms = _deadline_ms(revision) - now_ms
        metadata = revision["metadata"]

        def report(latest: Object) -> None:
            now = rfc3339(now_ms)
            status = latest.setdefault("status", {})
            status["observedGeneration"] = latest["metadata"].get("generation", 1)
            status["actualReplicas"], status["desiredReplicas"] = ready, wanted
            if not was_available and not _is_late(latest):
                self._progress(latest, cluster, pods, now, ready=ready, scaling=scaling, failure=failure)
                if left_ms <= 0 and not is_true(latest, AVAILABLE):
                    _give_up(latest, now)
            if ready:
                set_condition(latest, ACTIVE, "True", now)
            elif wanted:
                set_condition(latest, ACTIVE, "Unknown", now, reason="Queued", message=_QUEUED)
            else:
                set_condition(latest, ACTIVE, "False", now, reason="NoTraffic", message=_NO_TRAFFIC)
            for each in status["conditions"]:
                if each["type"] == ACTIVE:
                    # An idle revision is no fault.
                    each["severity"] = "Info"
            sum_up(latest, (AVAILABLE, HEALTHY), now)

        edited = transaction.edit(cluster, REVISIONS, metadata["namespace"], metadata["name"], report)
        is_available = is_true(edited, AVAILABLE)
        if is_available and not was_available and backend is not None:
            backend.begin(ready)
        return None if is_available or _is_late(edited) else max(1, left_ms)

    def _progress(
        self,
        revision: Object,
        cluster: str,
        pods: list[Object],
        now: str,
        *,
        ready: int,
        scaling: Scaling,
        failure: str,
    ) -> None:
        """Sets in place how far a revision is that has not had its first instances."""
        if ready >= max(scaling.initial, scaling.minimum) and not failure:
            set_condition(revision, AVAILABLE, "True", now)
            set_condition(revision, HEALTHY, "True", now)
            return
        reason, message = why_waiting(self._api, cluster, pods) or ("Deploying", "")
        if failure:
            said = condition(revision, AVAILABLE) or {}
            # The first one stays: the next names another pod, and to write it would bring us back at once.
            message = said["message"] if said.get("reason") == "FailedCreate" else failure
            set_condition(revision, AVAILABLE, "False", now, reason="FailedCreate", message=message)
        else:
            set_condition(revision, AVAILABLE, "Unknown", now, reason=reason, message=message)
        failing = why_failing(pods)
        if failing is not None:
            set_condition(revision, HEALTHY, "False", now, reason=failing[0], message=failing[1])
        else:
            set_condition(revision, HEALTHY, "Unknown", now, reason="Deploying")


_QUEUED: Final = "Requests to the target are being buffered as resources are provisioned."
_NO_TRAFFIC: Final = "The target is not receiving traffic."


def _wanted(revision: Object, scaling: Scaling, backend: Backend | None) -> int:
    """How many instances there shall be."""
    if _is_late(revision):
        return 0
    asked = backend.wanted if backend is not None else 0
    if not is_true(revision, AVAILABLE):
        asked = max(asked, scaling.minimum, scaling.initial)
    elif labels(revision).get(ROUTING_STATE) == "active":
        asked = max(asked, scaling.minimum)
    return min(asked, scaling.maximum)


def _is_active(pod: Object, backend: Backend | None) -> bool:
    """Whether the pod answers requests or will, and is not on its way out."""
    instance = backend.instances.get(uid(pod)) if backend is not None else None
    is_closing = instance is not None and instance.closing
    return not (finished(pod) or deleting(pod) or is_true(pod, DISRUPTION_TARGET) or is_closing)


def _is_late(revision: Object) -> bool:
    found = condition(revision, AVAILABLE)
    return found is not None and found.get("reason") == _LATE


def _give_up(revision: Object, now: str) -> None:
    waited = condition(revision, AVAILABLE) or {}
    why = f": {waited['reason']}: {waited.get('message', '')}" if waited.get("message") else ""
    message = f"Initial scale was never achieved{why}"
    set_condition(revision, AVAILABLE, "False", now, reason=_LATE, message=message)


def _deadline_ms(revision: Object) -> int:
    """By when the first instances have to be ready."""
    metadata = revision["metadata"]
    said = (metadata.get("annotations") or {}).get(PROGRESS_DEADLINE)
    try:
        span_ms = parse_duration_ms(said) if said else _DEADLINE_MS
    except Invalid:
        span_ms = _DEADLINE_MS
    return parse_rfc3339(metadata["creationTimestamp"]) + span_ms
