"""What is known of a pod's containers over all their attempts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.runtimes.backoff import ALWAYS, Restart, restart_of

Object = dict[str, Any]
CONTAINER_CREATING: Final = "ContainerCreating"
POD_INITIALIZING: Final = "PodInitializing"
CRASH_LOOP: Final = "CrashLoopBackOff"


@dataclass
class Record:
    """What is known of one container over all its attempts. `state` and `last` as in ContainerStatus."""

    name: str
    image: str
    # A regular init container, which is done when it has succeeded.
    init: bool = False
    state: Object = field(default_factory=lambda: {"waiting": {"reason": CONTAINER_CREATING}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    container_id: str = ""
    image_id: str = ""
    # An init container that goes on running beside the others.
    sidecar: bool = False
    restart: Restart = ALWAYS
    # Of the attempt that runs: whether its startup probe, and its readiness probe, are content.
    started: bool = True
    ready: bool = True

    # What it is given, and what of that the attempt that runs has.
    given: Object = field(default_factory=dict)
    resources: Object = field(default_factory=dict)

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

    def initialised(self) -> None:
        """What it waited for before all else is done."""
        if self.state.get("waiting", {}).get("reason") == POD_INITIALIZING:
            self.wait(CONTAINER_CREATING)

    def run(self, container_id: str, now_ms: int, *, started: bool = True, ready: bool = True) -> None:
        """A new attempt runs, under an id with its scheme; probes have yet to find what is not said."""
        self.started, self.ready = started, started and ready
        if self.ended is not None:
            self.last = self.state
        self.container_id = container_id
        self.state = {"running": {"startedAt": rfc3339(now_ms)}}

    def end(
        self, code: int, now_ms: int, *, oom_killed: bool = False, failure: str = "", message: str = ""
    ) -> None:
        """The attempt is over; `failure` says why it did not even start, `message` what it left to say."""
        started = self.state.get("running", {}).get("startedAt", rfc3339(now_ms))
        reason = "StartError" if failure else "OOMKilled" if oom_killed else "Error" if code else "Completed"
        ended: Object = {"exitCode": code, "reason": reason}
        if failure or message:
            ended["message"] = failure or message
        ended |= {"startedAt": started, "finishedAt": rfc3339(now_ms)}
        if self.container_id:
            ended["containerID"] = self.container_id
        self.state = {"terminated": ended}

    def status(self) -> Object:
        """As in `status.containerStatuses`."""
        done = self.ended is not None and self.ended["exitCode"] == 0
        started = self.running and self.started
        shown: Object = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last,
            "ready": done if self.init else started and self.ready,
            "restartCount": self.restarts,
            "image": self.image,
            "imageID": self.image_id,
            "started": started,
        }
        if self.container_id:
            shown["containerID"] = self.container_id
        if self.begun:
            shown["resources"] = self.resources if self.running else self.given
            if requests := self.given.get("requests"):
                shown["allocatedResources"] = requests
        return shown


def records(pod: Mapping[str, Any]) -> tuple[list[Record], list[Record], list[Record]]:
    """Records of init, main and those ephemeral containers that began, going on from the pod's status."""
    spec = pod["spec"]
    inits = _records(pod, "initContainers", "initContainerStatuses")
    mains = _records(pod, "containers", "containerStatuses")
    if inits:
        for record in mains:
            if record.state == {"waiting": {"reason": CONTAINER_CREATING}}:
                record.wait(POD_INITIALIZING)
    for record, container in zip(inits, spec.get("initContainers") or (), strict=True):
        record.sidecar = is_sidecar(container)
        record.init = not record.sidecar
        if not record.begun and "reason" in record.state["waiting"]:
            record.state = {"waiting": {**record.state["waiting"], "reason": POD_INITIALIZING}}
    extras = _records(pod, "ephemeralContainers", "ephemeralContainerStatuses")
    return inits, mains, [record for record in extras if record.begun]


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Whether an init container goes on running beside the others."""
    return container.get("restartPolicy") == "Always"


def _records(pod: Mapping[str, Any], kind: str, statuses: str) -> list[Record]:
    known = {each["name"]: each for each in (pod.get("status") or {}).get(statuses) or ()}
    return [
        record_of(pod, container, known.get(container["name"])) for container in pod["spec"].get(kind) or ()
    ]


def record_of(pod: Mapping[str, Any], container: Object, status: Object | None = None) -> Record:
    """The record of one container, going on from its status."""
    record = Record(container["name"], str(container.get("image") or ""))
    record.given = record.resources = container.get("resources") or {}
    record.restart = restart_of(container, pod["spec"].get("restartPolicy", "Always"))
    if status is not None:
        record.state = dict(status.get("state") or record.state)
        record.last = dict(status.get("lastState") or {})
        record.restarts = int(status.get("restartCount") or 0)
        record.container_id = str(status.get("containerID") or "")
        record.image_id = str(status.get("imageID") or "")
    return record
