"""Keeps daemon sets: one pod on every node of the cluster that takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import AlreadyExists, NotFound, WalrasError
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants import daemon_plan
from walras.tenants.controller import Key, Manager
from walras.tenants.daemon_plan import HASH_LABEL, Plan, plan
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder
from walras.tenants.fit import Node, node_of
from walras.tenants.membership import Members
from walras.tenants.objects import DAEMON_SETS, NODES, PODS, Object, deleting, labels, uid
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.revisions import History, Revised, template_in
from walras.tenants.workloads import REFUSALS, new_pod, takes_pods

COMPONENT: Final = "daemonset-controller"
BACKOFF_MS_MIN: Final = 1_000
BACKOFF_MS_MAX: Final = 15 * 60_000
_BURST_MAX: Final = 250
_REMEMBERED_MAX: Final = 10_000


class _Failures:
    """When pods failed lately, so that each next one on a node is replaced later than the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # (delay, when): of the last failure of a set on a node.
        self._last: dict[tuple[str, str], tuple[int, int]] = {}

    def waits_ms(self, owner: Object) -> dict[str, int]:
        now_ms, mine = self._clock.now_ms(), uid(owner)
        return {
            node: at_ms + delay_ms - now_ms
            for (each, node), (delay_ms, at_ms) in self._last.items()
            if each == mine
        }

    def note(self, owner: Object, node: str) -> None:
        now_ms, key = self._clock.now_ms(), (uid(owner), node)
        delay_ms, at_ms = self._last.pop(key, (0, now_ms))
        if now_ms - at_ms > 2 * BACKOFF_MS_MAX:
            delay_ms = 0
        self._last[key] = (min(max(BACKOFF_MS_MIN, 2 * delay_ms), BACKOFF_MS_MAX), now_ms)
        while len(self._last) > _REMEMBERED_MAX:
            del self._last[next(iter(self._last))]


class DaemonSetController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._history = History(api, dependents, HASH_LABEL)
        self._members = Members(api, manager, dependents, DAEMON_SETS, "DaemonSet")
        self._room = Room(api)
        self._failures = _Failures(clock)

    def watch(self) -> list[Callable[[], None]]:
        return [*self._members.watch(self), self._api.subscribe(NODES, self._node_changed)]

    def _node_changed(self, change: Change) -> None:
        if not self._api.has_cluster(change.cluster) or _alike(change.object, change.old):
            return
        for owner in self._api.list(change.cluster, DAEMON_SETS):
            metadata = owner["metadata"]
            self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _nodes(self, cluster: str) -> list[Node]:
        nodes = []
        for each in self._api.list(cluster, NODES):
            try:
                nodes.append(node_of(each))
            except WalrasError:
                # A node that cannot be read takes no pods.
                continue
        return nodes

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        owner = self._api.find(cluster, DAEMON_SETS, namespace, name)
        if owner is None or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        try:
            pods = self._members.claim(transaction, cluster, owner)
            if deleting(owner):
                return None
            revised = self._history.revise(transaction, cluster, owner)
            planned = plan(
                owner,
                pods,
                self._nodes(cluster),
                digest=labels(revised.newest)[HASH_LABEL],
                now_ms=self._clock.now_ms(),
                waits_ms=self._failures.waits_ms(owner),
            )
            self._limit(cluster, planned)
            self._stage(transaction, cluster, owner, planned, revised)
            hashes = {labels(pod).get(HASH_LABEL) for pod in pods}
            live = {
                each["metadata"]["name"]
                for each in revised.revisions
                if labels(each).get(HASH_LABEL) in hashes
            }
            self._history.trim(transaction, cluster, owner, revised, live)
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        for node in planned.failed:
            self._failures.note(owner, node)
        return planned.again_ms

    def _limit(self, cluster: str, planned: Plan) -> None:
        room = min(_BURST_MAX, self._room.left(cluster))
        if len(planned.create) > room:
            del planned.create[room:]
            planned.again_ms = min(planned.again_ms or RETRY_MS, RETRY_MS)

    def _stage(
        self, transaction: Transaction, cluster: str, owner: Object, planned: Plan, revised: Revised
    ) -> None:
        namespace = owner["metadata"]["namespace"]
        notes = self._recorder.about(transaction, cluster, owner, COMPONENT)
        for node, pod in planned.failed.items():
            where = f"{namespace}/{_name(pod)} on node {node}"
            notes.warning("FailedDaemonPod", f"Found failed daemon pod {where}, will try to kill it")
        for pod in planned.succeeded:
            where = f"{namespace}/{_name(pod)} on node {pod['spec'].get('nodeName', '')}"
            notes.normal("SucceededDaemonPod", f"Found succeeded daemon pod {where}, will try to delete it")
        for pod in planned.delete:
            transaction.delete(cluster, PODS, namespace, _name(pod))
            notes.normal("SuccessfulDelete", f"Deleted pod: {_name(pod)}")
        for node in planned.create:
            try:
                pod = transaction.make(cluster, PODS, _pod(owner, revised, node))
            except REFUSALS as refusal:
                notes.warning("FailedCreate", f"Error creating: {refusal.message}")
                planned.again_ms = min(planned.again_ms or RETRY_MS, RETRY_MS)
                break
            notes.normal("SuccessfulCreate", f"Created pod: {_name(pod)}")

        def report(latest: Object) -> None:
            conditions = (latest.get("status") or {}).get("conditions")
            latest["status"] = dict(planned.status)
            if conditions:
                latest["status"]["conditions"] = conditions
            if revised.collisions:
                latest["status"]["collisionCount"] = revised.collisions

        transaction.edit(cluster, DAEMON_SETS, namespace, _name(owner), report)


def _pod(owner: Object, revised: Revised, node: str) -> Object:
    pod = new_pod(owner, template_in(revised.newest))
    metadata, spec = pod["metadata"], pod["spec"]
    digest = labels(revised.newest)[HASH_LABEL]
    metadata["labels"] = {**(metadata.get("labels") or {}), HASH_LABEL: digest}
    spec["tolerations"] = daemon_plan.tolerations(spec)
    spec["affinity"] = daemon_plan.pinned(spec, node)
    return pod


def _alike(node: Object, before: Object | None) -> bool:
    """Whether a change of a node cannot matter to where daemons run."""
    if before is None:
        return False
    return node.get("spec") == before.get("spec") and node["metadata"].get("labels") == before[
        "metadata"
    ].get("labels")


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
