"""Priority: a pod's priority by its class, or by the class that is the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.admission.call import Call
from walras.kube.policy import forbidden
from walras.kube.record import Object

CLASSES: Final = "priorityclasses.scheduling.k8s.io"
# What a kube-apiserver makes at its start; here they are simply known.
SYSTEM: Final[Mapping[str, int]] = {
    "system-cluster-critical": 2_000_000_000,
    "system-node-critical": 2_000_001_000,
}


def mutate(call: Call) -> None:
    """Writes priority and preemption policy into a new pod. Raises Forbidden where others are given."""
    if call.subresource:
        return
    spec = call.object["spec"]
    if call.operation == "UPDATE":
        before: Mapping[str, Any] = (call.old or {}).get("spec") or {}
        for name in ("priority", "preemptionPolicy"):
            if spec.get(name) is None and before.get(name) is not None:
                spec[name] = before[name]
        return
    if call.operation == "CREATE":
        _settle(call, spec)


def _settle(call: Call, spec: Object) -> None:
    name = spec.get("priorityClassName") or ""
    found = _class(call, name) if name else _default(call)
    priority, preemption = 0, "PreemptLowerPriority"
    if found is not None:
        name, priority = found["metadata"]["name"], int(found.get("value", 0))
        preemption = found.get("preemptionPolicy") or preemption
    computed = "priority admission controller computed"
    given = spec.get("priority")
    if given is not None and given != priority:
        why = (
            f"the integer value of priority ({given}) must not be provided in pod spec; {computed} {priority}"
        )
        raise forbidden(call.key, call.name, f"{why} from the given PriorityClass name")
    given = spec.get("preemptionPolicy")
    if given is not None and given != preemption:
        why = f"the string value of PreemptionPolicy ({given}) must not be provided in pod spec; {computed}"
        why += f" {preemption} from the given PriorityClass name"
        raise forbidden(call.key, call.name, why)
    if name:
        spec["priorityClassName"] = name
    spec["priority"], spec["preemptionPolicy"] = priority, preemption


def _class(call: Call, name: str) -> Object:
    found = call.tx.peek(call.ctx.cluster, CLASSES, "", name)
    if found is None and name in SYSTEM:
        return {"metadata": {"name": name}, "value": SYSTEM[name]}
    if found is None:
        raise forbidden(call.key, call.name, f"no PriorityClass with name {name} was found")
    return found


def _default(call: Call) -> Object | None:
    classes = [each for each in call.api.list(call.ctx.cluster, CLASSES) if each.get("globalDefault")]
    return min(classes, key=lambda each: int(each.get("value", 0)), default=None)


def validate(call: Call) -> None:
    """Raises Forbidden for a second default class."""
    if call.operation not in ("CREATE", "UPDATE") or not call.object.get("globalDefault"):
        return
    present = _default(call)
    if present is not None and (call.operation == "CREATE" or present["metadata"]["name"] != call.name):
        name = present["metadata"]["name"]
        why = f"PriorityClass {name} is already marked as default. Only one default can exist"
        raise forbidden(call.key, call.name, why)
