"""What an instance says of itself: its phase and conditions, from those of its pod. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.tenants.objects import (
    DISRUPTION_TARGET,
    Object,
    condition,
    deleting,
    is_true,
    phase,
    set_condition,
    uid,
)
from walras.tenants.virtual.words import DEFAULT_NETWORK

FINAL: Final = frozenset(("Succeeded", "Failed"))
READY: Final = "Ready"
SYNCHRONIZED: Final = "Synchronized"
PAUSED: Final = "Paused"
MIGRATABLE: Final = "LiveMigratable"
_NOT_THERE: Final = ("PodNotExists", "virt-launcher pod has not yet been scheduled")
_STUCK: Final = frozenset(("CreateContainerConfigError", "CreateContainerError"))
_CAPACITY: Final = 10


def phase_of(instance: Object, pod: Object | None) -> str:
    """KubeVirt's phase, which never leaves Succeeded or Failed. `pod` is the launcher, None without one."""
    now = phase(instance)
    if now in FINAL:
        return now
    if pod is None:
        # What ran is gone without a word.
        return "Failed" if now in {"Scheduled", "Running"} else "Pending"
    told = phase(pod)
    if told in FINAL:
        return told
    if told == "Running" and any(_running(each) for each in _statuses(pod)):
        return "Running"
    return "Scheduled" if pod["spec"].get("nodeName") else "Scheduling"


def _statuses(pod: Object) -> list[Mapping[str, Any]]:
    return list((pod.get("status") or {}).get("containerStatuses") or ())


def _running(status: Mapping[str, Any]) -> bool:
    return "running" in (status.get("state") or {})


def report(instance: Object, pod: Object | None, failure: str, now: str, *, retried: bool = False) -> None:
    """Writes the status in place.

    `failure` is why no pod can be made, "" when one can; `retried`: it is tried again after a while.
    """
    status = instance.setdefault("status", {})
    was, status["phase"] = phase(instance), phase_of(instance, pod)
    if status["phase"] != was:
        moves = status.setdefault("phaseTransitionTimestamps", [])
        moves.append({"phase": status["phase"], "phaseTransitionTimestamp": now})
        del moves[:-_CAPACITY]
    if pod is not None:
        node = str(pod["spec"].get("nodeName") or "")
        if node:
            status["nodeName"] = node
        if is_true(pod, DISRUPTION_TARGET):
            # Kept when the pod goes without another word.
            status["reason"] = DISRUPTION_TARGET
        status["activePods"] = {uid(pod): node}
        status["qosClass"] = str((pod.get("status") or {}).get("qosClass") or "Burstable")
        status["interfaces"] = _interfaces(instance, pod)
    elif status["phase"] in FINAL:
        status["activePods"], status["interfaces"] = {}, []
    if not status.get("interfaces"):
        status.pop("interfaces", None)
    reason, message = ("FailedCreate", failure) if failure else _stuck(pod)
    said = condition(instance, SYNCHRONIZED)
    if failure and retried and said is not None and said.get("reason") == reason:
        # The first one stays: the next names another pod, and to write it would bring us back at once.
        message = str(said.get("message") or failure)
    _conditions(instance, pod, now)
    if message:
        set_condition(instance, SYNCHRONIZED, "False", now, reason=reason, message=message)
    else:
        _drop(instance, SYNCHRONIZED)


def _stuck(pod: Object | None) -> tuple[str, str]:
    """Why the pod's container cannot be made, and a message: of a device that no guest gets, for one."""
    for each in _statuses(pod) if pod is not None else ():
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            return str(waiting["reason"]), str(waiting.get("message") or "")
    return "", ""


def _drop(instance: Object, kind: str) -> None:
    conditions = instance["status"]["conditions"]
    instance["status"]["conditions"] = [each for each in conditions if each.get("type") != kind]


def _interfaces(instance: Object, pod: Object) -> list[Object]:
    """The one by which the guest is in the pods' network; none where its pod has no address of its own."""
    found = str((pod.get("status") or {}).get("podIP") or "")
    if not found or found.startswith("127."):
        return []
    named = instance["spec"].get("networks") or [{"name": DEFAULT_NETWORK}]
    return [
        {
            "name": named[0]["name"], "ipAddress": found, "ipAddresses": [found], "interfaceName": "eth0",
            "podInterfaceName": "eth0", "infoSource": "domain", "queueCount": 1,
        }
    ]  # fmt: skip


def _conditions(instance: Object, pod: Object | None, now: str) -> None:
    if pod is not None and instance["status"]["phase"] == "Running" and is_true(pod, "Ready"):
        set_condition(instance, READY, "True", now)
    else:
        told = condition(pod, "Ready") if pod is not None else None
        reason, message = (
            _NOT_THERE if pod is None else ("GuestNotRunning", "Guest VM is not reported as running")
        )
        if told is not None and told.get("reason"):
            reason, message = str(told["reason"]), str(told.get("message") or message)
        set_condition(instance, READY, "False", now, reason=reason, message=message)
    set_condition(
        instance, MIGRATABLE, "False", now,
        reason="DisksNotLiveMigratable", message="a guest ends with its node; nothing moves it while it runs",
    )  # fmt: skip
    if instance["status"]["phase"] != "Running":
        _drop(instance, PAUSED)


def is_over(instance: Object) -> bool:
    return phase(instance) in FINAL or deleting(instance)
