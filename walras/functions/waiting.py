"""Why instances are not there yet: what the market, the scheduler or the runtime says of their pods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from walras.kube.api import API
from walras.tenants.objects import Object, condition, phase, status

BIDS: Final = "bids.walras.dev"
_BROKEN: Final = frozenset(
    ("CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
)


# Of images, for which Knative has one word.
_NO_IMAGE: Final = frozenset(("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"))


def why_waiting(api: API, cluster: str, pods: Iterable[Object]) -> tuple[str, str] | None:
    """(reason, message) of the first pod that waits for something; None where none does."""
    for pod in pods:
        if phase(pod) not in ("", "Pending"):
            continue
        metadata = pod["metadata"]
        bid = api.find(cluster, BIDS, metadata["namespace"], metadata["name"])
        explanation = status(bid).get("explanation") if bid is not None else None
        if explanation and status(bid or {}).get("phase") == "Refused":
            return str(explanation.get("reason") or "Refused"), str(explanation.get("message") or "")
        scheduled = condition(pod, "PodScheduled")
        if scheduled is not None and scheduled.get("status") == "False":
            return str(scheduled.get("reason") or "Unschedulable"), str(scheduled.get("message") or "")
    return None


def why_failing(pods: Iterable[Object]) -> tuple[str, str] | None:
    """(reason, message) of the first container that ended or cannot start; None where none has."""
    for pod in pods:
        for each in status(pod).get("containerStatuses") or ():
            waiting = (each.get("state") or {}).get("waiting") or {}
            before = (each.get("lastState") or {}).get("terminated")
            ended = (each.get("state") or {}).get("terminated") or before
            if ended and not each.get("ready"):
                said = ended.get("message") or ended.get("reason") or "it ended"
                return f"ExitCode{ended.get('exitCode', 0)}", f"Container failed with: {said}"
            if waiting.get("reason") in _NO_IMAGE:
                said = waiting.get("message") or waiting["reason"]
                return "ContainerMissing", f'Unable to fetch image "{each.get("image", "")}": {said}'
            if waiting.get("reason") in _BROKEN:
                return str(waiting["reason"]), str(waiting.get("message") or "")
    return None
