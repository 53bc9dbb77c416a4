"""The row of a pod: what a person calls its status is a digest of phase, conditions and containers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.kube.tables.columns import (
    NONE,
    age,
    condition,
    human_duration,
    moment_ms,
    name,
    spec,
    status,
)

Object = dict[str, Any]


@dataclass(slots=True)
class _Digest:
    """What the containers say, gathered one after the other."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    restarted_at_ms: int = 0

    def count_restarts(self, container: Mapping[str, Any]) -> None:
        self.restarts += container.get("restartCount", 0)
        last = (container.get("lastState") or {}).get("terminated") or {}
        self.restarted_at_ms = max(self.restarted_at_ms, moment_ms(last.get("finishedAt")) or 0)

    def restarts_text(self, now_ms: int) -> str:
        if self.restarts and self.restarted_at_ms:
            return f"{self.restarts} ({human_duration(now_ms - self.restarted_at_ms)} ago)"
        return str(self.restarts)


def _end(terminated: Mapping[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _digest(pod: Mapping[str, Any]) -> _Digest:
    reason = status(pod).get("reason") or status(pod).get("phase") or ""
    if condition(status(pod), "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    digest = _Digest(reason, total=len(spec(pod).get("containers") or ()))
    sidecars = _Digest("")
    initializing = _init_containers(pod, digest, sidecars)
    if not initializing or condition(status(pod), "Initialized").get("status") == "True":
        # Restarts while initialising are forgotten once the pod runs, except those of sidecars.
        digest.restarts, digest.restarted_at_ms = sidecars.restarts, sidecars.restarted_at_ms
        _containers(pod, digest)
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        if status(pod).get("reason") == "NodeLost":
            digest.reason = "Unknown"
        elif status(pod).get("phase") not in ("Succeeded", "Failed"):
            digest.reason = "Terminating"
    return digest


def _init_containers(pod: Mapping[str, Any], digest: _Digest, sidecars: _Digest) -> bool:
    """Whether initialisation still goes on, or has failed."""
    declared = {held.get("name"): held for held in spec(pod).get("initContainers") or ()}
    restartable = {key for key, held in declared.items() if held.get("restartPolicy") == "Always"}
    digest.total += len(restartable)
    for index, container in enumerate(status(pod).get("initContainerStatuses") or ()):
        sidecar = container.get("name") in restartable
        digest.count_restarts(container)
        if sidecar:
            sidecars.count_restarts(container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason", "")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if sidecar and container.get("started"):
            digest.ready += bool(container.get("ready"))
            continue
        if terminated is not None:
            digest.reason = f"Init:{_end(terminated)}"
        elif waiting and waiting != "PodInitializing":
            digest.reason = f"Init:{waiting}"
        else:
            digest.reason = f"Init:{index}/{len(declared)}"
        return True
    return False


def _containers(pod: Mapping[str, Any], digest: _Digest) -> None:
    running, failure = False, ""
    for container in reversed(status(pod).get("containerStatuses") or ()):
        digest.count_restarts(container)
        state = container.get("state") or {}
        terminated = state.get("terminated")
        if (state.get("waiting") or {}).get("reason"):
            digest.reason = state["waiting"]["reason"]
        elif terminated is not None:
            digest.reason = _end(terminated)
            failure = digest.reason if terminated.get("exitCode", 0) else failure
        elif container.get("ready") and state.get("running") is not None:
            running = True
            digest.ready += 1
    if digest.reason == "Completed":
        if running and condition(status(pod), "Ready").get("status") == "True":
            digest.reason = "Running"
        elif failure or running:
            digest.reason = failure or "NotReady"


def _gates(pod: Mapping[str, Any]) -> str:
    gates = spec(pod).get("readinessGates") or ()
    if not gates:
        return NONE
    open_gates = sum(
        condition(status(pod), gate.get("conditionType", "")).get("status") == "True" for gate in gates
    )
    return f"{open_gates}/{len(gates)}"


def cells(pod: Object, now_ms: int) -> list[Any]:
    digest = _digest(pod)
    ips = status(pod).get("podIPs") or [{"ip": status(pod).get("podIP")}]
    return [
        name(pod),
        f"{digest.ready}/{digest.total}",
        digest.reason,
        digest.restarts_text(now_ms),
        age(pod, now_ms),
        ips[0].get("ip") or NONE,
        spec(pod).get("nodeName") or NONE,
        status(pod).get("nominatedNodeName") or NONE,
        _gates(pod),
    ]


_ENDS: Final = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


def conditions(pod: Object) -> list[Object]:
    """A pod that has ended is a completed row, so that a reader can leave it out."""
    phase = status(pod).get("phase", "")
    if phase not in _ENDS:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDS[phase]}]
