"""What a virtual machine needs next: an instance, none, or another; and what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from walras.core.clock import rfc3339
from walras.tenants.objects import (
    DISRUPTION_TARGET,
    Object,
    condition,
    deleting,
    is_true,
    parse_ms,
    phase,
    set_condition,
    uid,
)
from walras.tenants.virtual.instance_status import FINAL, PAUSED, READY, SYNCHRONIZED
from walras.tenants.virtual.words import NAME_LABEL, label_value

Act = Literal["", "start", "stop"]
_BACKOFF_MS_MIN: Final = 10_000
_BACKOFF_MS_MAX: Final = 300_000
_STRATEGIES: Final = frozenset(("Always", "Halted", "Manual", "Once", "RerunOnFailure"))


@dataclass(frozen=True, slots=True)
class Plan:
    """`act` on the instance; `again_ms` until a start that waits; `failures` in a row so far."""

    act: Act = ""
    again_ms: int | None = None
    failures: int = 0
    failed_uid: str = ""
    retry_at_ms: int = 0
    served: bool = False


def strategy(machine: Object) -> str:
    spec = machine["spec"]
    if spec.get("running") is not None:
        return "Always" if spec["running"] else "Halted"
    said = str(spec.get("runStrategy"))
    return said if said in _STRATEGIES else "Halted"


def _asked(machine: Object) -> str:
    """What the first of its state change requests wants: "Start", "Stop" or ""."""
    first = next(iter(requests(machine)), None)
    return str(first.get("action") or "") if isinstance(first, dict) else ""


def requests(machine: Object) -> list[Any]:
    """As whoever may write the status has left them."""
    said = (machine.get("status") or {}).get("stateChangeRequests")
    return list(said) if isinstance(said, list) else []


def plan(machine: Object, instance: Object | None, now_ms: int) -> Plan:
    """`instance` is the machine's own, None without one."""
    how, asked = strategy(machine), _asked(machine)
    failures, failed_uid, retry_at_ms = _failures(machine, instance, now_ms)
    told = phase(instance) if instance is not None else ""

    def next_(act: Act, *, served: bool = False) -> Plan:
        if act == "start" and retry_at_ms > now_ms:
            return Plan("", retry_at_ms - now_ms, failures, failed_uid, retry_at_ms, served)
        return Plan(act, None, failures, failed_uid, retry_at_ms, served)

    if instance is not None and deleting(instance):
        return next_("")
    if asked == "Stop":
        # It stands until there is something else to do: a machine that failed would be started again.
        stands = how == "RerunOnFailure" and len(requests(machine)) == 1
        return next_("stop" if instance is not None else "", served=instance is None and not stands)
    if how == "Halted":
        # Who starts such a machine gives it another strategy.
        return next_("stop" if instance is not None else "", served=asked == "Start")
    if instance is None:
        once = how in {"Once", "Manual"} and not asked
        wanted = not once or (how == "Once" and not _ran(machine))
        return next_("start" if wanted else "", served=bool(asked) and wanted)
    over = told in FINAL and (
        how == "Always" or asked == "Start" or (how == "RerunOnFailure" and told == "Failed")
    )
    return next_("stop" if over else "", served=asked == "Start" and told not in FINAL)


def _ran(machine: Object) -> bool:
    return bool((machine.get("status") or {}).get("observedInstanceUID"))


def _failures(machine: Object, instance: Object | None, now_ms: int) -> tuple[int, str, int]:
    """How often in a row its instances failed, the last that did, and when the next may start."""
    told = (machine.get("status") or {}).get("startFailure") or {}
    count, last = int(told.get("consecutiveFailCount") or 0), str(told.get("lastFailedVMIUID") or "")
    retry_at_ms = parse_ms(told.get("retryAfterTimestamp")) or 0
    if instance is None:
        return count, last, retry_at_ms
    displaced = (instance.get("status") or {}).get("reason") == DISRUPTION_TARGET
    if phase(instance) == "Failed" and uid(instance) != last and not displaced:
        count += 1
        delay_ms = min(_BACKOFF_MS_MIN * 2 ** min(count - 1, 10), _BACKOFF_MS_MAX)
        return count, uid(instance), now_ms + delay_ms
    if phase(instance) in {"Running", "Succeeded"}:
        return 0, "", 0
    return count, last, retry_at_ms


def new_instance(machine: Object) -> Object:
    """What the template makes, but for its owner."""
    template = machine["spec"]["template"]
    described = template.get("metadata") or {}
    name, namespace = machine["metadata"]["name"], machine["metadata"]["namespace"]
    labels = {**(described.get("labels") or {}), NAME_LABEL: label_value(name)}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    if described.get("annotations"):
        metadata["annotations"] = described["annotations"]
    return {"metadata": metadata, "spec": template["spec"]}


def report(machine: Object, instance: Object | None, planned: Plan, now_ms: int) -> None:
    """Writes the status in place, as it will be once `planned` has been done."""
    status, now = machine.setdefault("status", {}), rfc3339(now_ms)
    status["observedGeneration"] = machine["metadata"].get("generation", 1)
    status["desiredGeneration"] = status["observedGeneration"]
    status["runStrategy"] = strategy(machine)
    status["created"] = instance is not None
    status["ready"] = instance is not None and is_true(instance, READY)
    if instance is not None:
        status["observedInstanceUID"] = uid(instance)
    if planned.served:
        status["stateChangeRequests"] = requests(machine)[1:]
        if not status["stateChangeRequests"]:
            del status["stateChangeRequests"]
    if planned.failures:
        status["startFailure"] = {
            "consecutiveFailCount": planned.failures,
            "lastFailedVMIUID": planned.failed_uid,
            "retryAfterTimestamp": rfc3339(planned.retry_at_ms),
        }
    else:
        status.pop("startFailure", None)
    status["printableStatus"] = printable(machine, instance, planned)
    _mirror(machine, instance, now)


def printable(machine: Object, instance: Object | None, planned: Plan) -> str:
    """One word for people, as KubeVirt's."""
    if deleting(machine):
        return "Terminating"
    if instance is None:
        waits = planned.failures and strategy(machine) in {"Always", "RerunOnFailure"}
        return "Starting" if planned.act == "start" else "CrashLoopBackOff" if waits else "Stopped"
    told = phase(instance)
    if deleting(instance) or planned.act == "stop":
        return "Stopping"
    if told in FINAL:
        return "Stopped"
    if told == "Running":
        return "Paused" if is_true(instance, PAUSED) else "Running"
    failed = condition(instance, SYNCHRONIZED)
    return "Provisioning" if failed is not None or told in {"", "Pending"} else "Starting"


def _mirror(machine: Object, instance: Object | None, now: str) -> None:
    """The instance's conditions stand on the machine too."""
    ready = condition(instance, READY) if instance is not None else None
    if ready is None:
        set_condition(machine, READY, "False", now, reason="VMINotExists", message="VMI does not exist")
    else:
        set_condition(
            machine, READY, str(ready["status"]), now,
            reason=str(ready.get("reason") or ""), message=str(ready.get("message") or ""),
        )  # fmt: skip
    paused = condition(instance, PAUSED) if instance is not None else None
    _stand(machine, PAUSED, paused, now)
    failed = condition(instance, SYNCHRONIZED) if instance is not None else None
    _stand(machine, "Failure", failed, now)


def _stand(machine: Object, kind: str, told: Mapping[str, Any] | None, now: str) -> None:
    """The machine has the condition for as long as its instance has `told`."""
    if told is not None:
        set_condition(
            machine, kind, "True", now,
            reason=str(told.get("reason") or ""), message=str(told.get("message") or ""),
        )  # fmt: skip
    else:
        conditions = machine["status"]["conditions"]
        machine["status"]["conditions"] = [each for each in conditions if each.get("type") != kind]
