"""Keeps the status of PodDisruptionBudgets: how many of their pods are healthy, and how many may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from walras.core.clock import Clock, parse_rfc3339, rfc3339
from walras.kube import scaling
from walras.kube.api import API, Change
from walras.kube.eviction import BUDGETS, conditions, covers, is_ready
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import PODS, Object, controller_of, deleting, finished, uid

# How long a pod that was let go may take before it counts again.
GONE_MS: Final = 2 * 60_000
_SCALED: Final = {
    ("apps", "ReplicaSet"): "replicasets.apps",
    ("apps", "Deployment"): "deployments.apps",
    ("apps", "StatefulSet"): "statefulsets.apps",
    ("", "ReplicationController"): "replicationcontrollers",
}


class DisruptionController:
    """As kubernetes/pkg/controller/disruption: a status for each budget, after every change of its pods."""

    def __init__(self, api: API, clock: Clock, manager: Manager) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        scaled = [self._api.subscribe(resource, self._scaled) for resource in _SCALED.values()]
        return [
            self._api.subscribe(BUDGETS, self._changed),
            self._api.subscribe(PODS, self._pod_changed),
            *scaled,
        ]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._add(change.cluster, change.object)

    def _add(self, cluster: str, budget: Object) -> None:
        self._manager.add(self, Key(cluster, budget["metadata"]["namespace"], budget["metadata"]["name"]))

    def _pod_changed(self, change: Change) -> None:
        for budget in self._budgets(change):
            if covers(budget, change.object) or (change.old is not None and covers(budget, change.old)):
                self._add(change.cluster, budget)

    def _scaled(self, change: Change) -> None:
        for budget in self._budgets(change):
            self._add(change.cluster, budget)

    def _budgets(self, change: Change) -> Iterable[Object]:
        if not self._api.has_cluster(change.cluster):
            return ()
        return self._api.list(change.cluster, BUDGETS, change.object["metadata"]["namespace"])

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        budget = self._api.find(cluster, BUDGETS, namespace, name) if self._api.has_cluster(cluster) else None
        if budget is None or deleting(budget):
            return None
        now_ms = self._clock.now_ms()
        pods = [
            pod
            for pod in self._api.list(cluster, PODS, namespace)
            if covers(budget, pod) and not finished(pod)
        ]
        failure = ""
        try:
            expected, desired = self._wanted(cluster, budget, pods)
        except _Uncountable as error:
            expected, desired, failure = 0, 0, str(error)
        disrupted, wait_ms = _still_going(budget, pods, now_ms)
        healthy = sum(
            is_ready(pod) and not deleting(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
        )
        status = {
            "observedGeneration": int(budget["metadata"].get("generation", 0)),
            "disruptionsAllowed": max(0, healthy - desired) if expected > 0 and not failure else 0,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
        }
        if failure:
            kept = budget.get("status") or {}
            status = {**{each: kept.get(each, 0) for each in status}, "disruptionsAllowed": 0}
            status["observedGeneration"] = int(budget["metadata"].get("generation", 0))
        await self._write(cluster, namespace, name, status, disrupted, failure)
        return wait_ms

    async def _write(
        self, cluster: str, namespace: str, name: str, status: Object, disrupted: Object, failure: str
    ) -> None:
        now = rfc3339(self._clock.now_ms())

        def write(latest: Object) -> None:
            before = latest.get("status") or {}
            latest["status"] = {**status, "conditions": before.get("conditions") or []}
            if disrupted:
                latest["status"]["disruptedPods"] = disrupted
            latest["status"]["conditions"] = conditions(latest, now, failure)

        await self._api.edit(cluster, BUDGETS, namespace, name, write)

    def _wanted(self, cluster: str, budget: Object, pods: list[Object]) -> tuple[int, int]:
        """(pods that there should be, healthy ones that there must be)."""
        spec = budget.get("spec") or {}
        if spec.get("maxUnavailable") is not None:
            expected = self._scale(cluster, pods)
            return expected, max(0, expected - _share(spec["maxUnavailable"], expected))
        least = spec.get("minAvailable")
        if isinstance(least, str):
            expected = self._scale(cluster, pods)
            return expected, _share(least, expected)
        return len(pods), 1 if least is None else int(least)

    def _scale(self, cluster: str, pods: list[Object]) -> int:
        """What the controllers of the pods ask for, all together."""
        scales: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is None:
                name = pod["metadata"]["name"]
                raise _Uncountable(f'found no controller ref for pod "{name}"')
            scale = self._replicas(cluster, pod["metadata"]["namespace"], owner)
            scales.update(scale)
        return sum(scales.values())

    def _replicas(self, cluster: str, namespace: str, reference: object) -> dict[str, int]:
        assert isinstance(reference, dict)
        group = str(reference.get("apiVersion", "")).rpartition("/")[0]
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        resource = _SCALED.get((group, kind))
        if resource is None:
            resource = self._custom(cluster, str(reference.get("apiVersion", "")), kind)
        owner = self._api.find(cluster, resource, namespace, name) if resource else None
        if resource is None:
            raise _Uncountable(f"{kind}.{group} does not implement the scale subresource")
        if owner is None or uid(owner) != reference.get("uid"):
            return {}
        above = controller_of(owner) if kind == "ReplicaSet" else None
        if above is not None:
            return self._replicas(cluster, namespace, above)
        view = scaling.view(self._api.registry(cluster)[resource], owner)
        return {uid(owner): int(view["spec"]["replicas"])}

    def _custom(self, cluster: str, api_version: str, kind: str) -> str | None:
        group, _, version = api_version.rpartition("/")
        found = self._api.registry(cluster).by_kind(group, version, kind)
        return found.storage.key if found is not None and "scale" in found.subresources else None


class _Uncountable(Exception):
    """Pods whose number nobody says."""


def _share(amount: int | str, whole: int) -> int:
    """A number, or a part in percent of the whole, rounded up."""
    if isinstance(amount, int):
        return amount
    return -(-whole * int(amount.rstrip("%")) // 100)


def _still_going(budget: Object, pods: list[Object], now_ms: int) -> tuple[Object, int | None]:
    """The pods that were let go and are still there, and how long until one of them counts again."""
    there = {pod["metadata"]["name"] for pod in pods if not deleting(pod)}
    disrupted = ((budget.get("status") or {}).get("disruptedPods")) or {}
    kept: Object = {}
    waits = []
    for name, since in disrupted.items():
        left_ms = parse_rfc3339(since) + GONE_MS - now_ms
        if name in there and left_ms > 0:
            kept[name] = since
            waits.append(left_ms)
    return kept, min(waits, default=None)
