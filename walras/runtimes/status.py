"""Pod status as kubelet writes it. Pure: what is known of the containers in, `status` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.core.errors import WalrasError
from walras.core.quantity import parse_milli
from walras.runtimes.environment import HOST_IP

Object = dict[str, Any]
CONTAINER_CREATING: Final = "ContainerCreating"
POD_INITIALIZING: Final = "PodInitializing"
CRASH_LOOP: Final = "CrashLoopBackOff"
DISRUPTION: Final = "DisruptionTarget"


@dataclass
class Record:
    """What is known of one container over all its attempts. `state` and `last` as in ContainerStatus."""

    name: str
    image: str
    init: bool = False
    state: Object = field(default_factory=lambda: {"waiting": {"reason": CONTAINER_CREATING}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    container_id: str = ""
    image_id: str = ""

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def begun(self) -> bool:
        """Whether an attempt was ever made."""
        return bool(self.last) or "waiting" not in self.state

    @property
    def ended(self) -> Object | None:
        """The terminated state, or None."""
        return self.state.get("terminated")

    @property
    def exit_code(self) -> int | None:
        """Of the attempt that ended last, None before the first."""
        ended = self.ended or self.last.get("terminated")
        return int(ended["exitCode"]) if ended else None

    def wait(self, reason: str, message: str = "") -> None:
        """Nothing runs; what ended before becomes the last state."""
        if self.ended is not None:
            self.last = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}

    def run(self, container_id: str, now_ms: int) -> None:
        """It runs, under an id with its scheme."""
        if self.ended is not None:
            self.last = self.state
        self.container_id = container_id
        self.state = {"running": {"startedAt": rfc3339(now_ms)}}

    def end(self, code: int, now_ms: int, *, oom_killed: bool = False, failure: str = "") -> None:
        """The attempt is over; `failure` says why it did not even start."""
        started = self.state.get("running", {}).get("startedAt", rfc3339(now_ms))
        reason = "StartError" if failure else "OOMKilled" if oom_killed else "Error" if code else "Completed"
        ended: Object = {"exitCode": code, "reason": reason}
        if failure:
            ended["message"] = failure
        ended |= {"startedAt": started, "finishedAt": rfc3339(now_ms)}
        if self.container_id:
            ended["containerID"] = self.container_id
        self.state = {"terminated": ended}

    def status(self) -> Object:
        """As in `status.containerStatuses`."""
        done = self.ended is not None and self.ended["exitCode"] == 0
        shown: Object = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last,
            "ready": done if self.init else self.running,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": self.image_id,
            "started": self.running,
        }
        if self.container_id:
            shown["containerID"] = self.container_id
        return shown


def records(pod: Mapping[str, Any]) -> tuple[list[Record], list[Record]]:
    """Records of init and main containers, going on from what the pod's status says."""
    status, spec = pod.get("status") or {}, pod["spec"]
    inits = _records(spec.get("initContainers") or (), status.get("initContainerStatuses") or (), init=True)
    mains = _records(spec["containers"], status.get("containerStatuses") or (), init=False)
    if inits:
        for record in mains:
            if record.state == {"waiting": {"reason": CONTAINER_CREATING}}:
                record.wait(POD_INITIALIZING)
    return inits, mains


def _records(containers: Iterable[Object], statuses: Iterable[Object], *, init: bool) -> list[Record]:
    known = {each["name"]: each for each in statuses}
    found = []
    for container in containers:
        record = Record(container["name"], str(container.get("image") or ""), init)
        if init:
            record.state = {"waiting": {"reason": POD_INITIALIZING}}
        if status := known.get(container["name"]):
            record.state = dict(status.get("state") or record.state)
            record.last = dict(status.get("lastState") or {})
            record.restarts = int(status.get("restartCount") or 0)
            record.container_id = str(status.get("containerID") or "")
            record.image_id = str(status.get("imageID") or "")
        found.append(record)
    return found


def phase(inits: Sequence[Record], mains: Sequence[Record], restart_policy: str) -> str:
    """As kubelet's getPhase."""
    for record in inits:
        code = record.exit_code
        if record.ended is None or code != 0:
            if record.ended is not None and restart_policy == "Never":
                return "Failed"
            return "Pending"
    if any("waiting" in record.state and not record.last for record in mains):
        return "Pending"
    if any(record.running for record in mains) or restart_policy == "Always":
        return "Running"
    if any("waiting" in record.state for record in mains):
        return "Running"
    codes = [record.exit_code for record in mains]
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


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
    verdict: Verdict | None = None,
    disrupted: str = "",
) -> Object:
    """The whole status of a pod on a node, going on from its present one.

    `disrupted`: why the pod is ended from outside, for a DisruptionTarget condition it does not have yet.
    """
    status: Object = dict(pod.get("status") or {})
    now = rfc3339(now_ms)
    policy = pod["spec"].get("restartPolicy", "Always")
    status["phase"] = verdict.phase if verdict is not None else phase(inits, mains, policy)
    for name in ("reason", "message"):
        status.pop(name, None)
    if verdict is not None:
        status |= {
            key: text for key, text in (("reason", verdict.reason), ("message", verdict.message)) if text
        }
    status["hostIP"], status["hostIPs"] = HOST_IP, [{"ip": HOST_IP}]
    status.setdefault("startTime", now)
    status["qosClass"] = qos_class(pod["spec"])
    if inits:
        status["initContainerStatuses"] = [record.status() for record in inits]
    status["containerStatuses"] = [record.status() for record in mains]
    if verdict is not None and not any(record.begun for record in (*inits, *mains)):
        # As kubelet rejects a pod: no container waits for anything any more.
        for name in ("initContainerStatuses", "containerStatuses"):
            status.pop(name, None)
    status["conditions"] = _conditions(status, inits, mains, now)
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


def _conditions(status: Object, inits: Sequence[Record], mains: Sequence[Record], now: str) -> list[Object]:
    over = status["phase"] in {"Succeeded", "Failed"}
    initialized = all(record.exit_code == 0 and record.ended for record in inits)
    unready = [record.name for record in mains if not record.running]
    why: tuple[str, str] = ("", "")
    if status["phase"] == "Succeeded":
        why = ("PodCompleted", "")
    elif status["phase"] == "Failed":
        why = ("PodFailed", "")
    elif unready:
        why = ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    begun = any(record.container_id for record in (*inits, *mains))
    wanted = {
        "PodReadyToStartContainers": (begun and not over, ("", "")),
        "Initialized": (initialized, ("", "") if initialized else ("ContainersNotInitialized", "")),
        "Ready": (not unready and not over, why),
        "ContainersReady": (not unready and not over, why),
        "PodScheduled": (True, ("", "")),
    }
    present = {each["type"]: each for each in status.get("conditions") or ()}
    found = [each for kind, each in present.items() if kind not in wanted]
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
        condition |= {key: said for key, said in (("reason", reason), ("message", message)) if said}
        found.append(condition)
    return found


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
