"""What a daemon set needs next: on which nodes to make a pod, which pods to delete, and its status. Pure.

Follows Kubernetes' daemon set controller (daemon_controller.go, update.go). A node of a lease counts only
where the template asks for a GPU: no other pod may take of what a bid has won.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from walras.core.errors import WalrasError
from walras.tenants.demands import Demand, demand_of
from walras.tenants.fit import Node, selected, tolerated
from walras.tenants.objects import Object, deleting, labels, phase
from walras.tenants.workloads import available_in_ms, is_ready, share_of

HASH_LABEL: Final = "controller-revision-hash"
_TOLERATED: Final = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_OF_HOST_NETWORK: Final = ("node.kubernetes.io/network-unavailable", "NoSchedule")


class Place(NamedTuple):
    """Whether a node is to have a pod, and whether one that it has may stay."""

    runs: bool
    stays: bool


@dataclass(slots=True)
class Plan:
    status: Object
    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    # Among the deleted: pods that ended by themselves, by node.
    failed: dict[str, Object] = field(default_factory=dict)
    succeeded: list[Object] = field(default_factory=list)
    again_ms: int | None = None


def tolerations(spec: Mapping[str, Any]) -> list[Object]:
    """What a daemon's pods tolerate beside what their template says."""
    wanted = [*_TOLERATED, *((_OF_HOST_NETWORK,) if spec.get("hostNetwork") else ())]
    made: list[Object] = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in wanted]
    # With or without an end: the daemon's have none.
    said = [
        dict(each)
        for each in spec.get("tolerations") or ()
        if {name: value for name, value in each.items() if name != "tolerationSeconds"} not in made
    ]
    return [*said, *made]


def pinned(spec: Mapping[str, Any], node: str) -> Object:
    """The affinity of the template with the node by name instead of its required node affinity."""
    affinity: Object = dict(spec.get("affinity") or {})
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    return affinity


def node_of_pod(pod: Mapping[str, Any]) -> str:
    """The node that a daemon's pod is on or made for; empty where it says none."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for each in term.get("matchFields") or ():
            if each.get("key") == "metadata.name" and len(each.get("values") or ()) == 1:
                return str(each["values"][0])
    return ""


def place(owner: Object, node: Node) -> Place:
    """By node name, node affinity and selector, taints; a template that makes no sense runs nowhere."""
    spec = owner["spec"]["template"].get("spec") or {}
    pod = {"metadata": {"name": ""}, "spec": {**spec, "tolerations": tolerations(spec)}}
    try:
        demand: Demand = demand_of(pod)
    except WalrasError:
        return Place(False, False)
    if spec.get("nodeName") not in {None, "", node.name} or not selected(demand, node):
        return Place(False, False)
    if node.is_lease and demand.gpu is None:
        return Place(False, False)
    refused = {taint.get("effect") for taint in node.taints if not tolerated(taint, demand.tolerations)} & {
        "NoSchedule",
        "NoExecute",
    }
    return Place(not refused, "NoExecute" not in refused)


class _Planner:
    def __init__(
        self,
        owner: Object,
        pods: Sequence[Object],
        nodes: Sequence[Node],
        digest: str,
        now_ms: int,
        waits_ms: Mapping[str, int],
    ) -> None:
        self.owner, self.digest, self.now_ms, self.waits_ms = owner, digest, now_ms, waits_ms
        self.spec: Mapping[str, Any] = owner["spec"]
        self.places = {node.name: place(owner, node) for node in nodes}
        self.on: dict[str, list[Object]] = {}
        for pod in sorted(pods, key=_age):
            self.on.setdefault(node_of_pod(pod), []).append(pod)
        self.plan = Plan({})
        strategy = self.spec.get("updateStrategy") or {}
        self.rolls = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        rolling = (strategy.get("rollingUpdate") or {}) if self.rolls else {}
        wanted = sum(each.runs for each in self.places.values())
        self.surge = share_of(rolling.get("maxSurge") or 0, wanted, up=True)
        self.unavailable = share_of(rolling.get("maxUnavailable", 1), wanted, up=True)
        if not self.surge and not self.unavailable:
            self.unavailable = 1

    def run(self) -> Plan:
        for node, at in self.places.items():
            self._manage(node, at, self.on.get(node, []))
        for node, pods in self.on.items():
            if node not in self.places:
                self._delete(pod for pod in pods if not pod["spec"].get("nodeName"))
        if self.rolls and not self.plan.create and not self.plan.delete:
            if self.surge:
                self._roll_with_surge()
            else:
                self._roll()
        self._report()
        return self.plan

    def _delete(self, pods: Any) -> None:
        self.plan.delete += [pod for pod in pods if not deleting(pod)]

    def _again(self, after_ms: int) -> None:
        again_ms = self.plan.again_ms
        self.plan.again_ms = after_ms if again_ms is None else min(again_ms, after_ms)

    def _available(self, pod: Object) -> bool:
        wait_ms = available_in_ms(pod, self.spec.get("minReadySeconds", 0), self.now_ms)
        if wait_ms:
            self._again(wait_ms)
        return wait_ms == 0

    def _manage(self, node: str, at: Place, pods: list[Object]) -> None:
        """One pod where there is to be one, none where there is not."""
        if at.runs and not pods:
            self.plan.create.append(node)
        elif not at.stays:
            self._delete(pods)
        else:
            self._keep_one(node, at, [pod for pod in pods if not deleting(pod)])

    def _keep_one(self, node: str, at: Place, pods: list[Object]) -> None:
        running = []
        for pod in pods:
            if phase(pod) == "Failed":
                self._replace_failed(node, pod)
            elif phase(pod) == "Succeeded":
                self.plan.succeeded.append(pod)
                self._delete([pod])
            else:
                running.append(pod)
        if not self.surge:
            self._delete(running[1:])
            return
        if not running and at.runs and not any(pod in self.plan.delete for pod in pods):
            self.plan.create.append(node)
        new = [pod for pod in running if self._is_new(pod)]
        old = [pod for pod in running if not self._is_new(pod)]
        self._delete([*new[1:], *old[1:]])
        if new and old and (not is_ready(old[0]) or self._available(new[0])):
            self._delete(old[:1])

    def _replace_failed(self, node: str, pod: Object) -> None:
        wait_ms = self.waits_ms.get(node, 0)
        if wait_ms > 0:
            self._again(wait_ms)
        else:
            self.plan.failed[node] = pod
            self._delete([pod])

    def _is_new(self, pod: Object) -> bool:
        return labels(pod).get(HASH_LABEL) == self.digest

    def _pair(self, pods: Sequence[Object]) -> tuple[Object | None, Object | None]:
        """The pod of the newest revision and the one of an older, of those that stay."""
        kept = [pod for pod in pods if not deleting(pod)]
        new = next((pod for pod in kept if self._is_new(pod)), None)
        return new, next((pod for pod in kept if not self._is_new(pod)), None)

    def _nodes(self) -> list[str]:
        return [*self.places, *(node for node in self.on if node not in self.places)]

    def _roll(self) -> None:
        """Deletes old pods, at most maxUnavailable of them while they still serve."""
        unavailable, serving = 0, []
        for node in self._nodes():
            if node in self.places and not self.places[node].runs and node not in self.on:
                continue
            new, old = self._pair(self.on.get(node, []))
            if old is None or new is not None:
                unavailable += old is not None or new is None or not self._available(new)
            elif not self._available(old):
                self._delete([old])
                unavailable += 1
            else:
                serving.append(old)
        self._delete(serving[: max(0, self.unavailable - unavailable)])

    def _roll_with_surge(self) -> None:
        """Makes new pods beside old ones, at most maxSurge of them beside one that still serves."""
        surging, candidates = 0, []
        for node in self._nodes():
            new, old = self._pair(self.on.get(node, []))
            runs = node in self.places and self.places[node].runs
            if old is None:
                continue
            if new is not None:
                if self._available(new):
                    self._delete([old])
                else:
                    surging += 1
            elif not self._available(old):
                if runs:
                    self.plan.create.append(node)
                else:
                    self._delete([old])
            elif runs:
                candidates.append(node)
        self.plan.create += candidates[: max(0, self.surge - surging)]

    def _report(self) -> None:
        going = {pod["metadata"]["name"] for pod in self.plan.delete}
        counts = dict.fromkeys(
            ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady",
             "updatedNumberScheduled", "numberAvailable"), 0,
        )  # fmt: skip
        for node, at in self.places.items():
            pods = self.on.get(node, [])
            if not at.runs:
                counts["numberMisscheduled"] += bool(pods)
                continue
            counts["desiredNumberScheduled"] += 1
            counts["currentNumberScheduled"] += bool(pods) or node in self.plan.create
            if not pods:
                counts["updatedNumberScheduled"] += node in self.plan.create
                continue
            counts["numberReady"] += is_ready(pods[0])
            counts["numberAvailable"] += self._available(pods[0])
            counts["updatedNumberScheduled"] += (
                self._is_new(pods[0]) and pods[0]["metadata"]["name"] not in going
            )
        counts["numberUnavailable"] = counts["desiredNumberScheduled"] - counts["numberAvailable"]
        always = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
        self.plan.status = {
            **{name: count for name, count in counts.items() if count or name in always},
            "observedGeneration": self.owner["metadata"].get("generation", 1),
        }


def _age(pod: Object) -> tuple[Any, ...]:
    """Pods on a node before others, then the oldest."""
    metadata = pod["metadata"]
    return (not pod["spec"].get("nodeName"), metadata["creationTimestamp"], metadata["name"])


def plan(
    owner: Object,
    pods: Sequence[Object],
    nodes: Sequence[Node],
    *,
    digest: str,
    now_ms: int,
    waits_ms: Mapping[str, int],
) -> Plan:
    """The next step of a set with these pods, all of its own, on these nodes.

    `digest` tells pods of the newest revision; `waits_ms` until a pod that failed on a node is replaced.
    """
    return _Planner(owner, pods, nodes, digest, now_ms, waits_ms).run()
