"""Keeps stateful sets: a pod an ordinal with claims of its own, updated from the last one down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import AlreadyExists, NotFound
from walras.kube.api import API
from walras.kube.transaction import Transaction
from walras.tenants import stateful_claims
from walras.tenants.controller import Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder, Staged
from walras.tenants.membership import Members
from walras.tenants.objects import (
    CLAIMS,
    PODS,
    STATEFUL_SETS,
    Object,
    deleting,
    labels,
    phase,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.revisions import History, Revised, template_in
from walras.tenants.stateful_plan import (
    POD_INDEX,
    POD_NAME,
    REVISION_LABEL,
    Plan,
    ordinal_of,
    ordinals,
    plan,
)
from walras.tenants.workloads import REFUSALS, complete, new_pod, takes_pods

COMPONENT: Final = "statefulset-controller"
HASH_LABEL: Final = "controller.kubernetes.io/hash"


class StatefulSetController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._recorder = recorder
        self._history = History(api, dependents, HASH_LABEL)
        self._room = Room(api)
        self._members = Members(
            api, manager, dependents, STATEFUL_SETS, "StatefulSet",
            accepts=lambda owner, pod: _ordinal(owner, pod) is not None,
        )  # fmt: skip

    def watch(self) -> list[Callable[[], None]]:
        return self._members.watch(self)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        owner = self._api.find(cluster, STATEFUL_SETS, namespace, name)
        if owner is None or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        try:
            pods = self._members.claim(transaction, cluster, owner)
            if deleting(owner):
                return None
            revised = self._history.revise(transaction, cluster, owner)
            current = revised.named((owner.get("status") or {}).get("currentRevision", "")) or revised.newest
            planned = plan(
                owner,
                pods,
                current=current["metadata"]["name"],
                update=revised.newest["metadata"]["name"],
                now_ms=self._clock.now_ms(),
                stale=self._stale(cluster, owner, pods),
            )
            blocked = self._stage(transaction, cluster, owner, planned, revised)
            live = {labels(pod).get(REVISION_LABEL, "") for pod in pods}
            self._history.trim(
                transaction, cluster, owner, revised, live | {planned.status["currentRevision"]}
            )
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        return min(planned.again_ms or RETRY_MS, RETRY_MS) if blocked else planned.again_ms

    def _stale(self, cluster: str, owner: Object, pods: list[Object]) -> set[int]:
        """Ordinals without a pod whose claims still go with one that is gone."""
        present = {_ordinal(owner, pod) for pod in pods}
        policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        if policy.get("whenScaled") != "Delete":
            return set()
        metadata = owner["metadata"]
        return {
            at
            for at in ordinals(owner["spec"])
            if at not in present
            for claim in stateful_claims.claims_of(owner, at)
            if (found := self._api.find(cluster, CLAIMS, metadata["namespace"], claim["metadata"]["name"]))
            and stateful_claims.is_stale(found, f"{metadata['name']}-{at}", "")
        }

    def _stage(
        self, transaction: Transaction, cluster: str, owner: Object, planned: Plan, revised: Revised
    ) -> bool:
        """Stages the step; True where it has to be tried again, because something is in its way."""
        metadata, notes = owner["metadata"], self._notes(transaction, cluster, owner)
        blocked = False
        for at, revision in planned.create.items():
            template = template_in(revised.named(revision) or revised.newest)
            if not self._create(transaction, cluster, owner, _pod(owner, template, at, revision)):
                blocked = True
                self._uncount(planned, revision)
        for pod in planned.delete:
            transaction.delete(cluster, PODS, metadata["namespace"], pod["metadata"]["name"])
            notes.normal("SuccessfulDelete", f"{_about('Delete', owner, pod)} successful")
        for pod in planned.settle:
            self._settle(transaction, cluster, owner, pod)

        def report(latest: Object) -> None:
            before = latest.get("status") or {}
            latest["status"] = {**planned.status, "collisionCount": revised.collisions}
            if before.get("conditions"):
                latest["status"]["conditions"] = before["conditions"]

        transaction.edit(cluster, STATEFUL_SETS, metadata["namespace"], metadata["name"], report)
        return blocked

    def _uncount(self, planned: Plan, revision: str) -> None:
        planned.status["replicas"] -= 1
        for field, name in (("currentReplicas", "currentRevision"), ("updatedReplicas", "updateRevision")):
            if planned.status[name] == revision and planned.status.get(field):
                planned.status[field] -= 1

    def _create(self, transaction: Transaction, cluster: str, owner: Object, pod: Object) -> bool:
        """Stages the pod with its claims; False, with an Event, where it cannot be."""
        metadata, name = owner["metadata"], pod["metadata"]["name"]
        notes = self._notes(transaction, cluster, owner)
        at = ordinal_of(metadata["name"], name)
        assert at is not None, "the pod was named after its ordinal"
        refusal = ""
        if self._api.find(cluster, PODS, metadata["namespace"], name) is not None:
            refusal = f'pods "{name}" already exists'
        elif self._room.left(cluster) < 1 + len(owner["spec"].get("volumeClaimTemplates") or ()):
            refusal = self._room.refusal(cluster)
        else:
            refusal = self._claim(transaction, cluster, owner, pod, at)
        if not refusal:
            try:
                transaction.make(cluster, PODS, pod)
            except REFUSALS as error:
                refusal = error.message
        if refusal:
            notes.warning("FailedCreate", f"{_about('Create', owner, pod)} failed error: {refusal}")
            return False
        notes.normal("SuccessfulCreate", f"{_about('Create', owner, pod)} successful")
        return True

    def _claim(self, transaction: Transaction, cluster: str, owner: Object, pod: Object, at: int) -> str:
        """Stages the pod's claims that are not there; says what is in the way, if something is."""
        for claim in stateful_claims.claims_of(owner, at):
            metadata = claim["metadata"]
            found = transaction.peek(cluster, CLAIMS, metadata["namespace"], metadata["name"])
            if found is not None:
                if deleting(found):
                    return f"pvc {metadata['name']} is being deleted"
                continue
            transaction.create(cluster, CLAIMS, claim, partial(complete, CLAIMS))
            about = _about(f"Create Claim {metadata['name']}", owner, pod)
            self._notes(transaction, cluster, owner).normal("SuccessfulCreate", f"{about} success")
        return ""

    def _settle(self, transaction: Transaction, cluster: str, owner: Object, pod: Object) -> None:
        """Makes what is missing of a pod's identity and claims, and their owners as the policy wants them."""
        at = _ordinal(owner, pod)
        assert at is not None, "only pods of an ordinal are members"
        namespace, name = owner["metadata"]["namespace"], pod["metadata"]["name"]
        if not deleting(pod) and phase(pod) == "Pending":
            self._claim(transaction, cluster, owner, pod, at)
        if labels(pod).get(POD_NAME) != name and not deleting(pod):
            transaction.edit(cluster, PODS, namespace, name, lambda latest: _identify(latest, at))
        in_range = at in ordinals(owner["spec"])
        for claim in stateful_claims.claims_of(owner, at):
            found = transaction.peek(cluster, CLAIMS, namespace, claim["metadata"]["name"])
            wanted = (
                stateful_claims.owned(found, owner, pod, in_range=in_range) if found is not None else None
            )
            if wanted is not None:
                transaction.edit(cluster, CLAIMS, namespace, claim["metadata"]["name"], _owning(wanted))

    def _notes(self, transaction: Transaction, cluster: str, owner: Object) -> Staged:
        return self._recorder.about(transaction, cluster, owner, COMPONENT)


def _about(what: str, owner: Object, pod: Object) -> str:
    return f"{what} Pod {pod['metadata']['name']} in StatefulSet {owner['metadata']['name']}"


def _ordinal(owner: Object, pod: Object) -> int | None:
    return ordinal_of(owner["metadata"]["name"], pod["metadata"]["name"])


def _owning(references: list[Object]) -> Callable[[Object], None]:
    def own(claim: Object) -> None:
        if references:
            claim["metadata"]["ownerReferences"] = references
        else:
            claim["metadata"].pop("ownerReferences", None)

    return own


def _identify(pod: Object, at: int) -> None:
    metadata = pod["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), POD_NAME: metadata["name"], POD_INDEX: str(at)}


def _pod(owner: Object, template: Object, at: int, revision: str) -> Object:
    pod = new_pod(owner, template)
    metadata, spec = pod["metadata"], pod["spec"]
    del metadata["generateName"]
    metadata["name"] = f"{owner['metadata']['name']}-{at}"
    _identify(pod, at)
    metadata["labels"][REVISION_LABEL] = revision
    spec["hostname"] = metadata["name"]
    if owner["spec"].get("serviceName"):
        spec["subdomain"] = owner["spec"]["serviceName"]
    stateful_claims.mount(owner, pod, at)
    return pod
