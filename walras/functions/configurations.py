"""Makes a Revision of each template that a Configuration has, and forgets old ones that no route leads to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, parse_rfc3339, rfc3339
from walras.core.errors import AlreadyExists, NotFound
from walras.functions.words import (
    CONFIGURATION,
    CONFIGURATION_UID,
    CONFIGURATIONS,
    GENERATION,
    NO_GC,
    READY,
    REVISIONS,
    ROUTING_STATE,
    ROUTING_STATE_MODIFIED,
    SERVICE,
    SERVICE_UID,
)
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.objects import (
    Object,
    condition,
    controlled_by,
    controller_of,
    deleting,
    is_true,
    labels,
    owner_reference,
    set_condition,
    status,
    uid,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import takes_pods

COMPONENT: Final = "configuration-controller"
# Revisions that are kept though no route leads to them, and more while they are young or were asked lately:
# Knative's min-non-active-revisions, max-non-active-revisions, retain-since-create-time and
# retain-since-last-active-time.
KEPT: Final = 20
KEPT_MAX: Final = 1000
YOUNG_MS: Final = 48 * 3_600_000
LATELY_MS: Final = 15 * 3_600_000
# Annotations that are no part of a template.
_OURS: Final = (ROUTING_STATE_MODIFIED,)


class ConfigurationController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api, self._clock, self._manager, self._dependents = api, clock, manager, dependents
        self._recorder = recorder
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(CONFIGURATIONS, self._configuration_changed),
            self._api.subscribe(REVISIONS, self._revision_changed),
        ]

    def _configuration_changed(self, change: Change) -> None:
        self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _revision_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner.get("kind") == "Configuration":
            self._manager.add(self, Key(change.cluster, change.namespace, str(owner["name"])))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        configuration = self._api.find(cluster, CONFIGURATIONS, namespace, name)
        if configuration is None or deleting(configuration):
            return None
        if not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        own = self._dependents.controlled(cluster, configuration, REVISIONS)
        revisions = sorted((each for each in own if not deleting(each)), key=generation)
        try:
            created, failure = self._newest(transaction, cluster, configuration, revisions)
            latest = self._report(transaction, cluster, configuration, revisions, created, failure)
            stale_ms = self._clean_up(transaction, cluster, latest, revisions)
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        return RETRY_MS if failure and not self._room.left(cluster) else stale_ms

    def _newest(
        self, transaction: Transaction, cluster: str, configuration: Object, revisions: list[Object]
    ) -> tuple[Object | None, str]:
        """The revision of the template as it is now, made where there is none; or why there cannot be one."""
        number = configuration["metadata"].get("generation", 1)
        found = next((each for each in revisions if generation(each) == number), None)
        if found is not None:
            return found, ""
        wanted = _revision(configuration)
        metadata = wanted["metadata"]
        taken = transaction.peek(cluster, REVISIONS, metadata["namespace"], metadata["name"])
        if taken is None and not self._room.left(cluster):
            return None, self._room.refusal(cluster)
        if taken is None:
            notes = self._recorder.about(transaction, cluster, configuration, COMPONENT)
            notes.normal("Created", f'Created Revision "{metadata["name"]}"')
            return transaction.create(cluster, REVISIONS, wanted), ""
        if controlled_by(taken, configuration) and _is_same(taken, wanted):
            # Back at a template that was named before: its revision is the newest again.
            def renumber(latest: Object) -> None:
                latest["metadata"]["labels"] = {**labels(latest), GENERATION: str(number)}

            name, namespace = metadata["name"], metadata["namespace"]
            return transaction.edit(cluster, REVISIONS, namespace, name, renumber), ""
        return None, f'revisions.serving.knative.dev "{metadata["name"]}" already exists'

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        configuration: Object,
        revisions: list[Object],
        created: Object | None,
        failure: str,
    ) -> Object:
        now, metadata = rfc3339(self._clock.now_ms()), configuration["metadata"]
        known = revisions if created is None or created in revisions else [*revisions, created]
        ready = [each for each in sorted(known, key=generation) if is_true(each, READY)]

        def report(latest: Object) -> None:
            said = latest.setdefault("status", {})
            said["observedGeneration"] = latest["metadata"].get("generation", 1)
            if created is not None:
                said["latestCreatedRevisionName"] = created["metadata"]["name"]
            if ready:
                said["latestReadyRevisionName"] = ready[-1]["metadata"]["name"]
            else:
                said.pop("latestReadyRevisionName", None)
            _set_ready(latest, created, failure, now)

        return transaction.edit(cluster, CONFIGURATIONS, metadata["namespace"], metadata["name"], report)

    def _clean_up(
        self, transaction: Transaction, cluster: str, configuration: Object, revisions: list[Object]
    ) -> int | None:
        """Stages the end of old revisions; milliseconds until the next is old enough."""
        said = status(configuration)
        named = (said.get("latestCreatedRevisionName"), said.get("latestReadyRevisionName"))
        idle = [each for each in revisions if _is_idle(each) and each["metadata"]["name"] not in named]
        now_ms, is_full = self._clock.now_ms(), not self._room.left(cluster)
        idle.sort(key=lambda each: stale_at_ms(each, now_ms))
        spare = idle[: max(0, len(idle) - KEPT)]
        waits_ms = []
        for number, each in enumerate(spare):
            metadata, left_ms = each["metadata"], stale_at_ms(each, now_ms) - now_ms
            if left_ms <= 0 or is_full or len(idle) - number > KEPT_MAX:
                transaction.delete(cluster, REVISIONS, metadata["namespace"], metadata["name"])
            else:
                waits_ms.append(left_ms)
        return min(waits_ms, default=None)


def generation(revision: Object) -> int:
    """Which of its Configuration's generations it is of; 0 where it does not say."""
    text = labels(revision).get(GENERATION, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def stale_at_ms(revision: Object, now_ms: int) -> int:
    """From when on nobody is expected to want it back."""
    metadata = revision["metadata"]
    created_ms = parse_rfc3339(metadata["creationTimestamp"])
    try:
        active_ms = parse_rfc3339(str((metadata.get("annotations") or {}).get(ROUTING_STATE_MODIFIED, "")))
    except ValueError:
        active_ms = created_ms
    return max(created_ms + YOUNG_MS, min(active_ms, now_ms) + LATELY_MS)


def _revision(configuration: Object) -> Object:
    """The Revision of a Configuration's template."""
    metadata, template = configuration["metadata"], configuration["spec"]["template"]
    described = template.get("metadata") or {}
    number = metadata.get("generation", 1)
    service = {key: value for key, value in labels(configuration).items() if key in (SERVICE, SERVICE_UID)}
    return {
        "metadata": {
            "name": described.get("name") or f"{metadata['name']}-{number:05d}",
            "namespace": metadata["namespace"],
            "labels": {
                **(described.get("labels") or {}),
                **service,
                CONFIGURATION: metadata["name"],
                CONFIGURATION_UID: uid(configuration),
                GENERATION: str(number),
                ROUTING_STATE: "pending",
            },
            "annotations": dict(described.get("annotations") or {}),
            "ownerReferences": [owner_reference(configuration)],
        },
        "spec": copy(template["spec"]),
    }


def _is_same(revision: Object, wanted: Object) -> bool:
    """Whether a revision is of the same template."""
    theirs, ours = (
        {key: value for key, value in (each["metadata"].get("annotations") or {}).items() if key not in _OURS}
        for each in (revision, wanted)
    )
    return bool(revision["spec"] == wanted["spec"] and theirs == ours)


def _is_idle(revision: Object) -> bool:
    annotations = revision["metadata"].get("annotations") or {}
    return labels(revision).get(ROUTING_STATE) == "reserve" and annotations.get(NO_GC) != "true"


def _set_ready(configuration: Object, created: Object | None, failure: str, now: str) -> None:
    if created is None:
        message = f"Revision creation failed with message: {failure}."
        set_condition(configuration, READY, "False", now, reason="RevisionFailed", message=message)
        return
    ready = condition(created, READY) or {"status": "Unknown"}
    reason, message = ready.get("reason", ""), ready.get("message", "")
    if ready["status"] == "False":
        name = created["metadata"]["name"]
        reason, message = "RevisionFailed", f'Revision "{name}" failed with message: {message or reason}.'
    set_condition(configuration, READY, ready["status"], now, reason=reason, message=message)
