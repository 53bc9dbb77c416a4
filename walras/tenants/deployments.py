"""Rolls a Deployment's template out over ReplicaSets, one for each revision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import AlreadyExists, NotFound
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.membership import adopting, selector_of
from walras.tenants.objects import (
    DEPLOYMENTS,
    PODS,
    REPLICA_SETS,
    Object,
    controller_of,
    deleting,
    finished,
    labels,
    owner_reference,
    status,
)
from walras.tenants.progress import counts_of, set_available, set_progress
from walras.tenants.rollout import (
    HASH_LABEL,
    REVISION,
    limits,
    proportional,
    replicas_annotations,
    same_template,
    scale,
    template_hash,
)
from walras.tenants.workloads import takes_pods

COMPONENT: Final = "deployment-controller"


class DeploymentController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._dependents = dependents

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(DEPLOYMENTS, self._deployment_changed),
            self._api.subscribe(REPLICA_SETS, self._set_changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _deployment_changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _set_changed(self, change: Change) -> None:
        owner, namespace = controller_of(change.object), change.object["metadata"]["namespace"]
        if owner is not None and owner.get("kind") == "Deployment":
            self._manager.add(self, Key(change.cluster, namespace, str(owner["name"])))
        elif owner is None and change.type != "DELETED" and self._api.has_cluster(change.cluster):
            for each in self._api.list(change.cluster, DEPLOYMENTS, namespace):
                if _selects(each, change.object):
                    self._manager.add(self, Key(change.cluster, namespace, each["metadata"]["name"]))

    def _pod_changed(self, change: Change) -> None:
        """Recreate waits for the last pod of the old revision to be gone."""
        owner = controller_of(change.object)
        if owner is None or owner.get("kind") != "ReplicaSet":
            return
        if change.type == "DELETED" or finished(change.object):
            namespace = change.object["metadata"]["namespace"]
            found = self._api.find(change.cluster, REPLICA_SETS, namespace, str(owner["name"]))
            if found is not None:
                self._set_changed(Change(change.cluster, "MODIFIED", found, None, REPLICA_SETS))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        deployment = self._api.find(cluster, DEPLOYMENTS, namespace, name)
        if deployment is None or deleting(deployment) or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        try:
            sets = self._sets(transaction, cluster, deployment)
        except NotFound:
            # One of them went away meanwhile, and its deletion brings us back.
            return 1
        template = deployment["spec"]["template"]
        new = next(
            (each for each in reversed(sets) if same_template(each["spec"]["template"], template)), None
        )
        old = [each for each in sets if each is not new]
        try:
            if deployment["spec"].get("paused"):
                self._scale_paused(transaction, cluster, deployment, new, old)
            else:
                new = self._newest(transaction, cluster, deployment, new, old)
                self._roll(transaction, cluster, deployment, new, old)
                self._clean_up(transaction, cluster, deployment, old)
            again_ms = self._report(transaction, cluster, deployment, new, old)
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        return again_ms

    def _sets(self, transaction: Transaction, cluster: str, deployment: Object) -> list[Object]:
        """The deployment's sets by revision, with those that nobody controls and that match it taken in."""
        sets = [
            each
            for each in self._dependents.controlled(cluster, deployment, REPLICA_SETS)
            if not deleting(each)
        ]
        namespace = deployment["metadata"]["namespace"]
        for each in self._api.list(cluster, REPLICA_SETS, namespace):
            if controller_of(each) is None and not deleting(each) and _selects(deployment, each):
                sets.append(
                    transaction.edit(
                        cluster, REPLICA_SETS, namespace, each["metadata"]["name"], adopting(deployment)
                    )
                )
        return sorted(sets, key=_revision)

    def _newest(
        self,
        transaction: Transaction,
        cluster: str,
        deployment: Object,
        new: Object | None,
        old: list[Object],
    ) -> Object:
        """The set of the template as it is now, made or raised to the highest revision."""
        revision = max((_revision(each) for each in old), default=0) + 1
        if new is None:
            return transaction.create(cluster, REPLICA_SETS, self._new_set(cluster, deployment, revision))
        if _revision(new) < revision:
            found = new["metadata"]

            def raise_revision(latest: Object) -> None:
                latest["metadata"].setdefault("annotations", {})[REVISION] = str(revision)

            new = transaction.edit(cluster, REPLICA_SETS, found["namespace"], found["name"], raise_revision)
        return new

    def _new_set(self, cluster: str, deployment: Object, revision: int) -> Object:
        metadata, spec = deployment["metadata"], deployment["spec"]
        collisions = 0
        while True:
            digest = template_hash(spec["template"], collisions)
            name = f"{metadata['name']}-{digest}"
            if self._api.find(cluster, REPLICA_SETS, metadata["namespace"], name) is None:
                break
            collisions += 1
        template = copy(spec["template"])
        described = template.setdefault("metadata", {})
        described["labels"] = {**(described.get("labels") or {}), HASH_LABEL: digest}
        selector = copy(spec["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
        annotations = dict(metadata.get("annotations") or {})
        annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        return {
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": dict(described["labels"]),
                "annotations": {**annotations, REVISION: str(revision)},
                "ownerReferences": [owner_reference(deployment)],
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": spec.get("minReadySeconds", 0),
                "selector": selector,
                "template": template,
            },
            "status": {"replicas": 0},
        }

    def _roll(
        self, transaction: Transaction, cluster: str, deployment: Object, new: Object, old: list[Object]
    ) -> None:
        gone = not any(
            each["spec"].get("replicas")
            or status(each).get("replicas")
            or not all(finished(pod) for pod in self._dependents.controlled(cluster, each, PODS))
            for each in old
        )
        spec = deployment["spec"]
        recreates = (spec.get("strategy") or {}).get("type") == "Recreate"
        wanted = None if recreates else proportional(spec, new, old)
        if wanted is None:
            wanted = scale(spec, new, old, gone=gone)
        for each, replicas in zip((new, *old), wanted, strict=True):
            self._resize(transaction, cluster, deployment, each, replicas)

    def _scale_paused(
        self,
        transaction: Transaction,
        cluster: str,
        deployment: Object,
        new: Object | None,
        old: list[Object],
    ) -> None:
        """A paused deployment rolls nothing out, but its size still follows its spec."""
        live = [each for each in (*old, *((new,) if new else ())) if each["spec"].get("replicas", 0)]
        if len(live) == 1:
            self._resize(transaction, cluster, deployment, live[0], deployment["spec"].get("replicas", 1))

    def _resize(
        self, transaction: Transaction, cluster: str, deployment: Object, replica_set: Object, replicas: int
    ) -> None:
        before, metadata = replica_set["spec"].get("replicas", 0), replica_set["metadata"]

        def resize(latest: Object) -> None:
            latest["spec"]["replicas"] = replicas
            if replicas:
                remembered = replicas_annotations(deployment["spec"])
                annotations = latest["metadata"].get("annotations") or {}
                latest["metadata"]["annotations"] = {**annotations, **remembered}

        transaction.edit(cluster, REPLICA_SETS, metadata["namespace"], metadata["name"], resize)
        if before == replicas:
            return
        direction = "up" if replicas > before else "down"
        self._recorder.stage(
            transaction, cluster, deployment, "Normal", "ScalingReplicaSet", component=COMPONENT,
            message=f"Scaled {direction} replica set {metadata['name']} from {before} to {replicas}",
        )  # fmt: skip

    def _clean_up(
        self, transaction: Transaction, cluster: str, deployment: Object, old: list[Object]
    ) -> None:
        """Forgets the oldest revisions beyond revisionHistoryLimit that have no pods."""
        idle = [each for each in old if not each["spec"].get("replicas") and not status(each).get("replicas")]
        for each in idle[: max(0, len(idle) - deployment["spec"].get("revisionHistoryLimit", 10))]:
            transaction.delete(cluster, REPLICA_SETS, each["metadata"]["namespace"], each["metadata"]["name"])

    def _report(
        self,
        transaction: Transaction,
        cluster: str,
        deployment: Object,
        new: Object | None,
        old: list[Object],
    ) -> int | None:
        """Stages the status; milliseconds until the progress deadline of a rollout under way."""
        now_ms = self._clock.now_ms()
        metadata, spec = deployment["metadata"], deployment["spec"]
        again: list[int] = []

        def report(latest: Object) -> None:
            counts = counts_of(deployment, new, old)
            before = latest.get("status") or {}
            moved = any(
                before.get(field) != counts.get(field) for field in ("updatedReplicas", "availableReplicas")
            )
            latest["status"] = {**counts, "conditions": list(before.get("conditions") or ())}
            latest["status"]["observedGeneration"] = metadata.get("generation", 1)
            if new is not None:
                annotations = latest["metadata"].setdefault("annotations", {})
                annotations[REVISION] = str(_revision(new))
            _, unavailable = limits(spec)
            set_available(latest, rfc3339(now_ms), spec.get("replicas", 1) - unavailable)
            left_ms = set_progress(latest, new, now_ms, moved=moved)
            if left_ms is not None:
                again.append(left_ms)

        transaction.edit(cluster, DEPLOYMENTS, metadata["namespace"], metadata["name"], report)
        return again[0] if again else None


def _selects(deployment: Object, replica_set: Object) -> bool:
    selector = selector_of(deployment)
    return selector is not None and selector.matches(labels(replica_set))


def _revision(replica_set: Object) -> int:
    text = (replica_set["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0
