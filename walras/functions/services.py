"""Keeps a Service's Configuration and Route, and says of it what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import NotFound
from walras.functions.words import (
    CONFIGURATIONS,
    ROLLOUT_DURATIONS,
    ROUTES,
    SERVICE,
    SERVICE_UID,
    SERVICES,
    VISIBILITY,
    sum_up,
)
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.events import Recorder
from walras.tenants.objects import (
    Object,
    condition,
    controlled_by,
    controller_of,
    deleting,
    labels,
    owner_reference,
    set_condition,
    status,
    uid,
)
from walras.tenants.workloads import takes_pods

COMPONENT: Final = "service-controller"
_CONFIGURATIONS: Final = "ConfigurationsReady"
_ROUTES: Final = "RoutesReady"
_FIELDS: Final = {
    CONFIGURATIONS: ("latestCreatedRevisionName", "latestReadyRevisionName"),
    ROUTES: ("url", "address", "traffic"),
}
_KINDS: Final = {CONFIGURATIONS: "Configuration", ROUTES: "Route"}
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class ServiceController:
    def __init__(self, api: API, clock: Clock, manager: Manager, recorder: Recorder) -> None:
        self._api, self._clock, self._manager, self._recorder = api, clock, manager, recorder

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(SERVICES, self._service_changed),
            self._api.subscribe(CONFIGURATIONS, self._child_changed),
            self._api.subscribe(ROUTES, self._child_changed),
        ]

    def _service_changed(self, change: Change) -> None:
        self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _child_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner.get("kind") == "Service":
            self._manager.add(self, Key(change.cluster, change.namespace, str(owner["name"])))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        service = self._api.find(cluster, SERVICES, namespace, name)
        if service is None or deleting(service) or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        template = {"template": service["spec"]["template"]}
        configuration = self._keep(transaction, cluster, CONFIGURATIONS, service, template)
        route = self._keep(transaction, cluster, ROUTES, service, {"traffic": _targets(service)})
        try:
            self._report(transaction, cluster, service, configuration, route)
        except NotFound:
            return 1
        await transaction.commit()
        return None

    def _keep(
        self, transaction: Transaction, cluster: str, resource: str, service: Object, spec: Object
    ) -> Object | None:
        """The child with this spec, made or changed; None where somebody else's has its name."""
        metadata = service["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        child_labels = {**labels(service), SERVICE: name, SERVICE_UID: uid(service)}
        annotations = dict(metadata.get("annotations") or {})
        annotations.pop(_LAST_APPLIED, None)
        found = transaction.peek(cluster, resource, namespace, name)
        if found is None:
            made: Object = {
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": child_labels,
                    "annotations": annotations,
                    "ownerReferences": [owner_reference(service)],
                },
                "spec": copy(spec),
            }
            notes = self._recorder.about(transaction, cluster, service, COMPONENT)
            notes.normal("Created", f'Created {_KINDS[resource]} "{name}"')
            return transaction.create(cluster, resource, made)
        if not controlled_by(found, service):
            return None

        def change(latest: Object) -> None:
            latest["spec"] = copy(spec)
            had = latest["metadata"].get("labels") or {}
            latest["metadata"]["labels"] = {**had, **child_labels}
            if VISIBILITY not in child_labels:
                # Who sees it is said anew each time, by nothing too.
                latest["metadata"]["labels"].pop(VISIBILITY, None)
            had = latest["metadata"].get("annotations") or {}
            for key in ROLLOUT_DURATIONS:
                if key in had and key not in annotations:
                    del had[key]
            if annotations:
                latest["metadata"]["annotations"] = {
                    **(latest["metadata"].get("annotations") or {}), **annotations
                }  # fmt: skip

        return transaction.edit(cluster, resource, namespace, name, change)

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        service: Object,
        configuration: Object | None,
        route: Object | None,
    ) -> None:
        now, metadata = rfc3339(self._clock.now_ms()), service["metadata"]

        def report(latest: Object) -> None:
            said = latest.setdefault("status", {})
            said["observedGeneration"] = latest["metadata"].get("generation", 1)
            for kind, resource, child in (
                (_CONFIGURATIONS, CONFIGURATIONS, configuration),
                (_ROUTES, ROUTES, route),
            ):
                _propagate(latest, kind, resource, child, now)
            _await_traffic(latest, now)
            sum_up(latest, (_CONFIGURATIONS, _ROUTES), now)

        transaction.edit(cluster, SERVICES, metadata["namespace"], metadata["name"], report)


def _targets(service: Object) -> list[Object]:
    """The Service's traffic as its Route has it."""
    name = service["metadata"]["name"]
    targets = []
    for target in service["spec"].get("traffic") or [{"percent": 100}]:
        kept = {key: value for key, value in target.items() if key not in ("url", "configurationName")}
        if not kept.get("revisionName"):
            kept = {**kept, "configurationName": name, "latestRevision": True}
        targets.append(kept)
    return targets


def _propagate(service: Object, kind: str, resource: str, child: Object | None, now: str) -> None:
    """Says of the Service, in place, what a child says of itself."""
    name, word = service["metadata"]["name"], _KINDS[resource]
    if child is None:
        message = f'There is an existing {word} "{name}" that we do not own.'
        set_condition(service, kind, "False", now, reason="NotOwned", message=message)
        return
    for field in _FIELDS[resource]:
        if field in status(child):
            service["status"][field] = copy(status(child)[field])
        else:
            service["status"].pop(field, None)
    if status(child).get("observedGeneration") != child["metadata"].get("generation", 1):
        message = f"The {word} is still working to reflect the latest desired specification."
        set_condition(service, kind, "Unknown", now, reason="OutOfDate", message=message)
        return
    ready = condition(child, "Ready") or {"status": "Unknown"}
    set_condition(
        service, kind, ready["status"], now, reason=ready.get("reason", ""), message=ready.get("message", "")
    )


def _await_traffic(service: Object, now: str) -> None:
    """The Route is ready for the Service only when it leads to the newest revision that is."""
    said = status(service)
    newest = said.get("latestReadyRevisionName")
    route = condition(service, _ROUTES) or {}
    latest = [each for each in said.get("traffic") or () if each.get("latestRevision")]
    if route.get("status") == "True" and any(each.get("revisionName") != newest for each in latest):
        message = "Traffic is not yet migrated to the latest revision."
        set_condition(service, _ROUTES, "Unknown", now, reason="TrafficNotMigrated", message=message)
