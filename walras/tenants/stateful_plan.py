"""What a stateful set needs next: which ordinals to make, to give up and to replace, and its status. Pure.

Follows Kubernetes' stateful set controller (stateful_set_control.go): one pod an ordinal; in order, each only
when those before it are available, unless podManagementPolicy is Parallel; updates from the highest ordinal
down to the partition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from walras.tenants.objects import Object, deleting, finished, labels, status
from walras.tenants.workloads import available_in_ms, is_ready, share_of

REVISION_LABEL: Final = "controller-revision-hash"
POD_NAME: Final = "statefulset.kubernetes.io/pod-name"
POD_INDEX: Final = "apps.kubernetes.io/pod-index"
_POD: Final = re.compile(r"(.*)-(\d{1,9})")


def ordinal_of(owner_name: str, pod_name: str) -> int | None:
    """The pod's ordinal; None for a name that is not of this set."""
    found = _POD.fullmatch(pod_name)
    return int(found[2]) if found and f"{owner_name}-{int(found[2])}" == pod_name else None


def ordinals(spec: Mapping[str, Any]) -> range:
    """Those that the set wants a pod for."""
    start = int((spec.get("ordinals") or {}).get("start") or 0)
    return range(start, start + int(spec.get("replicas", 1)))


@dataclass(slots=True)
class Plan:
    """`create` maps ordinals to the name of the revision that they get. `status` is as after all of it."""

    status: Object
    create: dict[int, str] = field(default_factory=dict)
    delete: list[Object] = field(default_factory=list)
    # Pods whose claims may be missing or have owners that the retention policy does not want.
    settle: list[Object] = field(default_factory=list)
    again_ms: int | None = None


class _Planner:
    def __init__(
        self, owner: Object, pods: Sequence[Object], current: str, update: str, now_ms: int, stale: set[int]
    ) -> None:
        self.spec: Mapping[str, Any] = owner["spec"]
        self.owner = owner
        self.current, self.update, self.now_ms, self.stale = current, update, now_ms, stale
        name = owner["metadata"]["name"]
        by_ordinal = {ordinal_of(name, pod["metadata"]["name"]): pod for pod in pods}
        self.pods: dict[int, Object] = {at: pod for at, pod in by_ordinal.items() if at is not None}
        self.wanted = ordinals(self.spec)
        self.condemned = sorted((at for at in self.pods if at not in self.wanted), reverse=True)
        self.in_order = self.spec.get("podManagementPolicy") != "Parallel"
        self.plan = Plan({})

    def run(self) -> Plan:
        if not deleting(self.owner) and self._replicas() and self._scale_down():
            self._update()
        self._report()
        return self.plan

    def _available(self, pod: Object) -> bool:
        wait_ms = available_in_ms(pod, self.spec.get("minReadySeconds", 0), self.now_ms)
        if wait_ms:
            again_ms = self.plan.again_ms
            self.plan.again_ms = wait_ms if again_ms is None else min(again_ms, wait_ms)
        return wait_ms == 0 and not deleting(pod)

    def _replicas(self) -> bool:
        """Looks after the ordinals that there shall be; False where those further on have to wait."""
        for at in self.wanted:
            pod = self.pods.get(at)
            if pod is None:
                if at not in self.stale:
                    self.plan.create[at] = self._revision_for(at)
                if self.in_order:
                    return False
                continue
            if finished(pod):
                if not deleting(pod):
                    self.plan.delete.append(pod)
                if self.in_order:
                    return False
                continue
            self.plan.settle.append(pod)
            if not self._available(pod) and self.in_order:
                return False
        return True

    def _revision_for(self, ordinal: int) -> str:
        strategy = self.spec.get("updateStrategy") or {}
        rolling = strategy.get("rollingUpdate")
        kept = 0
        if rolling is not None:
            kept = int(rolling.get("partition") or 0)
        elif strategy.get("type", "RollingUpdate") == "RollingUpdate":
            kept = int(status(self.owner).get("currentReplicas") or 0)
        return self.current if ordinal < self.wanted.start + kept else self.update

    def _scale_down(self) -> bool:
        self.plan.settle += [self.pods[at] for at in self.condemned]
        unhealthy = next((at for at in self._by_health() if not self._available(self.pods[at])), None)
        for at in self.condemned:
            pod = self.pods[at]
            if deleting(pod):
                if self.in_order:
                    return False
                continue
            if self.in_order and at != unhealthy and not self._available(pod):
                return False
            self.plan.delete.append(pod)
            if self.in_order:
                return False
        return True

    def _by_health(self) -> list[int]:
        """In which order the first pod that is not available is looked for."""
        return [*(at for at in self.wanted if at in self.pods), *reversed(self.condemned)]

    def _update(self) -> None:
        strategy = self.spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        rolling = strategy.get("rollingUpdate") or {}
        first = self.wanted.start + int(rolling.get("partition") or 0)
        going = {pod["metadata"]["name"] for pod in self.plan.delete}
        replicas = {at: self.pods[at] for at in self.wanted if at in self.pods}
        if rolling.get("maxUnavailable") is None:
            self._update_one(replicas, first)
            return
        room = max(1, share_of(rolling["maxUnavailable"], len(self.wanted), up=False))
        room -= len(self.wanted) - sum(self._available(pod) for pod in replicas.values())
        for at in sorted((at for at in replicas if at >= first), reverse=True):
            pod = replicas[at]
            if room > 0 and self._is_old(pod) and pod["metadata"]["name"] not in going:
                self.plan.delete.append(pod)
                room -= 1

    def _update_one(self, replicas: Mapping[int, Object], first: int) -> None:
        for at in reversed(self.wanted):
            if at < first:
                return
            pod = replicas.get(at)
            if pod is not None and self._is_old(pod):
                if not finished(pod):
                    self.plan.delete.append(pod)
                return
            if pod is None or not self._available(pod):
                return

    def _is_old(self, pod: Object) -> bool:
        return not deleting(pod) and labels(pod).get(REVISION_LABEL) != self.update

    def _report(self) -> None:
        there = list(self.pods.values())
        kept = [pod for pod in there if not deleting(pod)]
        made = list(self.plan.create.values())
        of = [labels(pod).get(REVISION_LABEL) for pod in kept] + made
        ready = [pod for pod in there if is_ready(pod)]
        counts = {
            "replicas": len(there) + len(made),
            "readyReplicas": len(ready),
            "availableReplicas": sum(
                not available_in_ms(pod, self.spec.get("minReadySeconds", 0), self.now_ms) for pod in ready
            ),
            "currentReplicas": of.count(self.current),
            "updatedReplicas": of.count(self.update),
        }
        current = self.current
        rolls = (self.spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
        if rolls and all(
            counts[name] == len(self.wanted) for name in ("updatedReplicas", "readyReplicas", "replicas")
        ):
            counts["currentReplicas"], current = counts["updatedReplicas"], self.update
        self.plan.status = {
            **{name: n for name, n in counts.items() if n or name in {"replicas", "availableReplicas"}},
            "observedGeneration": self.owner["metadata"].get("generation", 1),
            "currentRevision": current,
            "updateRevision": self.update,
        }


def plan(
    owner: Object,
    pods: Sequence[Object],
    *,
    current: str,
    update: str,
    now_ms: int,
    stale: set[int] | None = None,
) -> Plan:
    """The next step of a set with these pods, all of its own.

    `current` and `update` name its revisions; `stale` are ordinals whose claims still go with an earlier pod.
    """
    return _Planner(owner, pods, current, update, now_ms, stale or set()).run()
