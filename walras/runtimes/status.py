"""Pod status as kubelet writes it. Pure: what is known of the containers in, `status` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import WalrasError
from walras.core.quantity import parse_milli
from walras.runtimes.environment import HOST_IP
from walras.runtimes.records import Record

Object = dict[str, Any]
DISRUPTION: Final = "DisruptionTarget"
PENDING: Final = "PodResizePending"
IN_PROGRESS: Final = "PodResizeInProgress"
_RESIZES: Final = (PENDING, IN_PROGRESS)


def phase(inits: Sequence[Record], mains: Sequence[Record], extras: Sequence[Record] = ()) -> str:
    """As kubelet's getPhase; a pod is not over while a sidecar or an ephemeral container runs."""
    for record in inits:
        if record.init and (record.ended is None or record.exit_code != 0):
            failed = record.exit_code is not None and not record.restart.again(record.exit_code)
            return "Failed" if failed and record.exit_code != 0 else "Pending"
    sidecars = [record for record in inits if record.sidecar]
    begun = any(record.begun for record in mains)
    if not begun and any(not ((record.running and record.started) or record.last) for record in sidecars):
        return "Pending"
    if any("waiting" in record.state and not record.last for record in mains):
        return "Pending"
    if any(record.running for record in (*mains, *sidecars, *extras)):
        return "Running"
    codes = [record.exit_code or 0 for record in mains]
    if any(record.restart.again(code) for record, code in zip(mains, codes, strict=True)):
        return "Running"
    return "Failed" if any(codes) else "Succeeded"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A phase that does not follow from the containers, with its reason."""

    phase: str
    reason: str = ""
    message: str = ""


def pod_status(
    pod: Mapping[str, Any],
    inits: Sequence[Record],
    mains: Sequence[Record],
    *,
    now_ms: int,
    extras: Sequence[Record] = (),
    address: str = "",
    verdict: Verdict | None = None,
    disrupted: str = "",
    observed: int = 0,
    resizes: Sequence[Object] = (),
) -> Object:
    """The whole status of a pod on a node, going on from its present one.

    `extras`: its ephemeral containers. `address`: its own, where it has a network.
    `disrupted`: why the pod is ended from outside, for a DisruptionTarget condition it does not have yet.
    `observed`: the generation of the spec that this is said of, 0 where there is none.
    `resizes`: conditions of a resize that is not done. What containers are given is what `pod` says.
    """
    status: Object = dict(pod.get("status") or {})
    now = rfc3339(now_ms)
    if observed:
        status["observedGeneration"] = observed
    status["phase"] = verdict.phase if verdict is not None else phase(inits, mains, extras)
    for name in ("reason", "message"):
        status.pop(name, None)
    if verdict is not None:
        status |= {
            key: text for key, text in (("reason", verdict.reason), ("message", verdict.message)) if text
        }
    status["hostIP"], status["hostIPs"] = HOST_IP, [{"ip": HOST_IP}]
    if address:
        status["podIP"], status["podIPs"] = address, [{"ip": address}]
    status.setdefault("startTime", now)
    status["qosClass"] = qos_class(pod["spec"])
    if inits:
        status["initContainerStatuses"] = [record.status() for record in inits]
    status["containerStatuses"] = [record.status() for record in mains]
    if extras:
        status["ephemeralContainerStatuses"] = [_ephemeral(record) for record in extras]
    if verdict is not None and not any(record.begun for record in (*inits, *mains)):
        # As kubelet rejects a pod: no container waits for anything any more.
        for name in ("initContainerStatuses", "containerStatuses"):
            status.pop(name, None)
    gates = [str(each.get("conditionType")) for each in pod["spec"].get("readinessGates") or ()]
    status["conditions"] = _conditions(status, inits, mains, gates, now, observed)
    if status["phase"] not in {"Succeeded", "Failed"}:
        status["conditions"] += [_resize(each, pod, now) for each in resizes]
    if disrupted and not any(each["type"] == DISRUPTION for each in status["conditions"]):
        status["conditions"].append(
            {
                "type": DISRUPTION,
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": disrupted,
                "lastProbeTime": None,
                "lastTransitionTime": now,
            }
        )
    return status


def _resize(condition: Object, pod: Mapping[str, Any], now: str) -> Object:
    every = (pod.get("status") or {}).get("conditions") or ()
    old: Mapping[str, Any] = next((each for each in every if each["type"] == condition["type"]), {})
    same = old.get("reason") == condition.get("reason")
    since = old.get("lastTransitionTime", now) if same else now
    return {"lastProbeTime": None, "lastTransitionTime": since, **condition}


def _ephemeral(record: Record) -> Object:
    """Nothing waits for an ephemeral container: it is never ready, and was never waited for."""
    return {key: value for key, value in record.status().items() if key != "started"} | {"ready": False}


def _conditions(
    status: Object,
    inits: Sequence[Record],
    mains: Sequence[Record],
    gates: Sequence[str],
    now: str,
    observed: int,
) -> list[Object]:
    over = status["phase"] in {"Succeeded", "Failed"}
    begun = any(record.container_id for record in (*inits, *mains))
    contained = _containers_ready(status["phase"], inits, mains)
    wanted = {
        "PodReadyToStartContainers": (begun and not over, ("", "")),
        "Initialized": _initialized(status["phase"], inits, mains),
        "Ready": contained if not contained[0] else _gated(status, gates),
        "ContainersReady": contained,
        "PodScheduled": (True, ("", "")),
    }
    present = {each["type"]: each for each in status.get("conditions") or ()}
    found = [each for kind, each in present.items() if kind not in wanted and kind not in _RESIZES]
    for kind, (value, (reason, message)) in wanted.items():
        old = present.get(kind)
        text = "True" if value else "False"
        same = old is not None and old.get("status") == text
        condition: Object = {
            "type": kind,
            "status": text,
            "lastProbeTime": None,
            "lastTransitionTime": (old or {}).get("lastTransitionTime", now) if same else now,
        }
        said = {"observedGeneration": observed, "reason": reason, "message": message}
        condition |= {key: value for key, value in said.items() if value}
        found.append(condition)
    return found


_Condition = tuple[bool, tuple[str, str]]


def _containers_ready(phase: str, inits: Sequence[Record], mains: Sequence[Record]) -> _Condition:
    if phase == "Succeeded":
        return False, ("PodCompleted", "")
    if phase == "Failed":
        return False, ("PodFailed", "")
    counted = (*(record for record in inits if record.sidecar), *mains)
    unready = [record.name for record in counted if not record.status()["ready"]]
    if unready:
        return False, ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    return True, ("", "")


def _gated(status: Object, gates: Sequence[str]) -> _Condition:
    present = {each["type"]: str(each.get("status")) for each in status.get("conditions") or ()}
    missing = [
        f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        if gate not in present
        else f'the status of pod readiness gate "{gate}" is not "True", but {present[gate]}'
        for gate in gates
        if present.get(gate) != "True"
    ]
    return (False, ("ReadinessGatesNotReady", ", ".join(missing))) if missing else (True, ("", ""))


def _initialized(phase: str, inits: Sequence[Record], mains: Sequence[Record]) -> _Condition:
    if phase == "Succeeded":
        return True, ("PodCompleted", "")
    if any(record.begun for record in mains):
        return True, ("", "")
    missing = [
        record.name for record in inits if not record.status()["started" if record.sidecar else "ready"]
    ]
    if not missing:
        return True, ("", "")
    return False, ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(missing)}]")


def gates_of(pod: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What others say of the pod's readiness."""
    gates = {each.get("conditionType") for each in pod["spec"].get("readinessGates") or ()}
    conditions = (pod.get("status") or {}).get("conditions") or () if gates else ()
    return [(each["type"], str(each.get("status"))) for each in conditions if each["type"] in gates]


def last_word(pod: Mapping[str, Any], mains: Sequence[Record], *, interrupted: bool) -> Verdict:
    """The phase of a pod that was ended from outside: one that was interrupted has not succeeded."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    disrupted = any(each["type"] == DISRUPTION and each["status"] == "True" for each in conditions)
    done = all(record.ended is not None and record.exit_code == 0 for record in mains)
    return Verdict("Succeeded" if done and not (disrupted and interrupted) else "Failed")


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, as the API server's ComputePodQOS."""
    guaranteed, any_amount = True, False
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = _amount(limits.get(name)), _amount(requests.get(name, limits.get(name)))
            any_amount = any_amount or bool(limit) or bool(request)
            guaranteed = guaranteed and bool(limit) and limit == request
    if not any_amount:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(text: Any) -> int:
    try:
        return parse_milli(str(text)) if text is not None else 0
    except WalrasError:
        return 0
