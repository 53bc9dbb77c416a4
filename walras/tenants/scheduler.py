"""Binds pods to nodes as soon as there is one that fits, and says on the others why there is none.

What it knows of nodes and of the room on them is a cache of the API, kept by changes and by its own bindings
that are on their way to disk. One pass binds many pods of a cluster in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import WalrasError
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.claims.placing import Placing, Plan
from walras.tenants.claims.pod import DEVICE_CLASSES, RESOURCE_CLAIMS, SLICES, NotMade, is_allocated
from walras.tenants.controller import Key, Manager
from walras.tenants.demands import Demand, taken_by
from walras.tenants.events import Recorder
from walras.tenants.fit import Choice, Node, Usage, choose, node_of
from walras.tenants.objects import (
    CLAIMS,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Object,
    deleting,
    finished,
    labels,
    uid,
)
from walras.tenants.preempting import Preemptor, budgets_of
from walras.tenants.preemption import sacrifice
from walras.tenants.relations import Relation, relates
from walras.tenants.verdicts import Verdicts
from walras.tenants.view import ClusterView, PodKey, Waiting, waiting_pod

SCHEDULER_NAME: Final = "default-scheduler"
PASS_MAX: Final = 200
SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class Scheduler:
    """One for all clusters; keys are whole clusters."""

    def __init__(self, api: API, clock: Clock, manager: Manager, recorder: Recorder) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._verdicts = Verdicts(api, clock, recorder, SCHEDULER_NAME)
        self._views: dict[str, ClusterView] = {}

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(NODES, self._node_changed),
            self._api.subscribe(PODS, self._pod_changed),
            self._api.subscribe(CLAIMS, self._claim_changed),
            self._api.subscribe(RESOURCE_CLAIMS, self._devices_changed),
            self._api.subscribe(SLICES, self._devices_changed),
            self._api.subscribe(DEVICE_CLASSES, self._devices_changed),
            self._api.on_sleep(lambda cluster: self._views.pop(cluster, None)),
        ]

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        """Starts one pass; the next need not wait until its commit is on disk."""
        del namespace, name
        view = self._views.get(cluster)
        if view is not None:
            view.paused = False
            self._manager.spawn(self._pass(cluster, view))
        return None

    def _node_changed(self, change: Change) -> None:
        view = self._views.setdefault(change.cluster, ClusterView())
        name = change.object["metadata"]["name"]
        before = view.nodes.pop(name, None)
        if change.type != "DELETED":
            try:
                view.nodes[name] = node_of(change.object)
            except WalrasError:
                # A node that cannot be read takes no pods.
                view.nodes.pop(name, None)
            view.usage.setdefault(name, Usage())
        elif name in view.usage and not view.usage[name].pods:
            del view.usage[name]
        if view.nodes.get(name) != before:
            view.wake()
        self._enqueue_if_due(change.cluster, view)

    def _claim_changed(self, change: Change) -> None:
        view = self._views.get(change.cluster)
        if view is not None and any(waiting.claims for waiting in view.waiting.values()):
            view.wake()
            self._enqueue_if_due(change.cluster, view)

    def _devices_changed(self, change: Change) -> None:
        view = self._views.get(change.cluster)
        if view is not None:
            if change.resource == RESOURCE_CLAIMS and _gave_back(change):
                # Limits may have what it held.
                view.wake()
            elif change.resource == SLICES:
                view.pools = None
            view.wake_claiming()
            self._enqueue_if_due(change.cluster, view)

    def _pod_changed(self, change: Change) -> None:
        view = self._views.setdefault(change.cluster, ClusterView())
        pod = change.object
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        if change.type == "DELETED":
            self._gone(change.cluster, view, key)
            return
        self._take_in(change.cluster, view, key, pod)

    def _take_in(self, cluster: str, view: ClusterView, key: PodKey, pod: Object) -> None:
        if finished(pod) or (deleting(pod) and not pod["spec"].get("nodeName")):
            self._gone(cluster, view, key)
        elif pod["spec"].get("nodeName"):
            view.assumed.pop(key, None)
            view.leave(key)
            placed, node = view.placed.get(key), pod["spec"]["nodeName"]
            if placed is None or placed[::2] != (node, uid(pod)) or not placed[1].is_of(pod):
                view.place(key, node, taken_by(pod, self._priority(cluster, pod)), uid(pod))
        elif view.assumed.get(key) != uid(pod) and _is_ours(pod):
            view.wait(key, waiting_pod(pod, self._priority(cluster, pod)))
        self._enqueue_if_due(cluster, view)

    def _priority(self, cluster: str, pod: Object) -> int:
        """As the pod says, or as its class says."""
        spec = pod["spec"]
        if "priority" in spec or "priorityClassName" not in spec:
            return int(spec.get("priority") or 0)
        name = spec["priorityClassName"]
        found = self._api.find(cluster, PRIORITY_CLASSES, "", name)
        return int(found["value"]) if found is not None else SYSTEM_PRIORITIES.get(name, 0)

    def _gone(self, cluster: str, view: ClusterView, key: PodKey) -> None:
        """The pod takes no room any more, and none is kept for it."""
        view.assumed.pop(key, None)
        view.leave(key)
        if view.displace(key):
            view.wake()
        self._enqueue_if_due(cluster, view)

    def _enqueue_if_due(self, cluster: str, view: ClusterView) -> None:
        if view.to_try and not view.paused:
            self._manager.add(self, Key(cluster, "", ""))
        elif view.empty:
            self._views.pop(cluster, None)

    async def _pass(self, cluster: str, view: ClusterView) -> None:
        transaction = self._api.transaction()
        placing = Placing(self._api, cluster, transaction, view)
        tried: list[PodKey] = []
        while len(tried) < PASS_MAX and not placing.is_spent and (key := view.next()) is not None:
            tried.append(key)
            tried += self._schedule(transaction, cluster, view, key, placing)
        # What is left takes the cluster's next turn.
        self._enqueue_if_due(cluster, view)
        try:
            await transaction.commit()
        except WalrasError as error:
            # Nothing of it happened: what the API says counts again, after a while.
            view.paused = True
            for key in tried:
                self._look_again(cluster, view, key)
            self._manager.retry(self, Key(cluster, "", ""), error)

    def _look_again(self, cluster: str, view: ClusterView, key: PodKey) -> None:
        if view.assumed.pop(key, None) is not None:
            view.displace(key)
        pod = self._api.find(cluster, PODS, *key) if self._api.has_cluster(cluster) else None
        if pod is not None:
            view.leave(key)
            self._take_in(cluster, view, key, pod)

    def _schedule(
        self,
        transaction: Transaction,
        cluster: str,
        view: ClusterView,
        key: PodKey,
        placing: Placing,
    ) -> Sequence[PodKey]:
        """Stages what becomes of the pod; other pods that have to go for it."""
        waiting = view.waiting[key]
        choice, plan = self._choose(cluster, view, key, waiting, placing)
        if choice.node is not None:
            assert waiting.demand is not None
            if self._verdicts.bind(transaction, cluster, key, waiting.uid, choice.node):
                if plan is not None:
                    plan.stage(choice.node)
                view.assumed[key] = waiting.uid
                demand = waiting.demand if plan is None else plan.demand
                view.place(key, choice.node, demand, waiting.uid)
                view.leave(key)
            return ()
        if not choice.message:
            return ()
        gone = self._preempt(transaction, cluster, view, key, waiting)
        self._verdicts.refuse(
            transaction, cluster, key, waiting.uid, choice.message, view.nominated.get(key, "")
        )
        return gone

    def _preempt(
        self, transaction: Transaction, cluster: str, view: ClusterView, key: PodKey, waiting: Waiting
    ) -> Sequence[PodKey]:
        """Has pods of lower priority go, where that makes room; which they are."""
        demand = waiting.demand
        lower = any(priority < waiting.priority for priority in view.priorities)
        if demand is None or waiting.wants_devices or not waiting.preempts or not lower:
            return ()
        on = view.on()
        going = on.get(view.nominated.get(key, ""), ())
        if any(pod.demand.leaving and pod.demand.priority < waiting.priority for pod in going):
            # It was promised room that is being made.
            return ()
        chosen = sacrifice(
            demand,
            view.room(key, waiting.priority),
            on,
            budgets_of(self._api, cluster),
            held=view.held,
            admits=lambda node, gone: self._admits(cluster, view, demand, node, gone),
        )
        if chosen is None:
            view.nominated.pop(key, None)
            return ()
        view.nominated[key] = chosen.node
        preemptor = Preemptor(self._clock, self._recorder, SCHEDULER_NAME)
        for victim in chosen.victims:
            preemptor.stage(transaction, cluster, victim.key, waiting.uid, chosen.node)
            _, _, victim_uid = view.placed[victim.key]
            view.place(victim.key, chosen.node, replace(victim.demand, leaving=True), victim_uid)
        return [victim.key for victim in chosen.victims]

    def _admits(
        self, cluster: str, view: ClusterView, demand: Demand, node: Node, gone: frozenset[PodKey]
    ) -> bool:
        among = self._among(cluster, view, demand, gone)
        return among is None or not among.refusal(node)

    def _among(
        self, cluster: str, view: ClusterView, demand: Demand, gone: frozenset[PodKey] = frozenset()
    ) -> Relation | None:
        """The pod among those on nodes, without some; None where they do not matter to it."""
        if not relates(demand) and not view.repelling:
            return None
        peers = ((other, node) for key, other, node in view.peers() if key not in gone)
        return Relation(demand, list(view.nodes.values()), peers, partial(self._labels_of, cluster))

    def _labels_of(self, cluster: str, namespace: str) -> Mapping[str, str]:
        found = self._api.find(cluster, NAMESPACES, "", namespace)
        return labels(found) if found is not None else {}

    def _choose(
        self, cluster: str, view: ClusterView, key: PodKey, waiting: Waiting, placing: Placing
    ) -> tuple[Choice, Plan | None]:
        if waiting.demand is None:
            return Choice(None, waiting.fault), None
        nodes = view.room(key, waiting.priority)
        fault = self._unmounted(cluster, key, waiting)
        if fault:
            return Choice(None, f"0/{len(nodes)} nodes are available: {fault}."), None
        among = self._among(cluster, view, waiting.demand)
        claiming = waiting.wants_devices or waiting.extended
        # A pod whose bid won a node is like no other pod.
        is_like_others = not (claiming or among is not None or view.nominated or key[1] in view.bids)
        known = view.refused.get(waiting.kind) if is_like_others else None
        if known is not None:
            return Choice(None, known), None
        if waiting.demand.gpu is not None:
            placing.look(nodes)
        if claiming:
            return self._with_claims(cluster, view, key, waiting.demand, placing, nodes, among)
        choice = choose(waiting.demand, nodes, view.held, among)
        if choice.node is None and is_like_others:
            view.refused[waiting.kind] = choice.message
        return choice, None

    def _with_claims(
        self,
        cluster: str,
        view: ClusterView,
        key: PodKey,
        demand: Demand,
        placing: Placing,
        nodes: Sequence[tuple[Node, Usage]],
        among: Relation | None,
    ) -> tuple[Choice, Plan | None]:
        pod = self._api.find(cluster, PODS, *key)
        if pod is None:
            return Choice(None, "the pod is gone"), None
        try:
            plan = placing.plan(pod, demand, among)
        except NotMade:
            # As a gated pod: nothing is said of it before its claims are there.
            return Choice(None), None
        except WalrasError as error:
            return Choice(None, f"0/{len(nodes)} nodes are available: {error.message}."), None
        if plan is None:
            return choose(demand, nodes, view.held, among), None
        return choose(plan.demand, nodes, view.held, plan), plan

    def _unmounted(self, cluster: str, key: PodKey, waiting: Waiting) -> str:
        """Why a volume of the pod is not to be had; "" where all are."""
        for claim in waiting.claims:
            found = self._api.find(cluster, CLAIMS, key[0], claim)
            if found is None or deleting(found):
                fault = "not found" if found is None else "is being deleted"
                return f'persistentvolumeclaim "{claim}" {fault}'
        return ""


def _gave_back(change: Change) -> bool:
    """Whether a claim held devices and does not any more."""
    before = change.object if change.type == "DELETED" else change.old
    return (
        before is not None
        and is_allocated(before)
        and (change.type == "DELETED" or not is_allocated(change.object))
    )


def _is_ours(pod: Object) -> bool:
    spec = pod["spec"]
    return spec.get("schedulerName", SCHEDULER_NAME) == SCHEDULER_NAME and not spec.get("schedulingGates")
