"""Built-in types that have two versions: events, and horizontal pod autoscalers (autoscaling/v1 and v2).

As pkg/apis/{events,autoscaling}/v1/conversion.go of k8s.io/kubernetes. What autoscaling/v1 has no field for
travels in annotations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from walras.kube.record import Object, parse

# core/v1's names of an event's fields, and events.k8s.io/v1's.
_EVENT: Final = {
    "involvedObject": "regarding",
    "source": "deprecatedSource",
    "message": "note",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_EVENT_BACK: Final = {new: old for old, new in _EVENT.items()}
_PREFIX: Final = "autoscaling.alpha.kubernetes.io/"
_METRICS, _STATUSES = f"{_PREFIX}metrics", f"{_PREFIX}current-metrics"
_CONDITIONS, _BEHAVIOR = f"{_PREFIX}conditions", f"{_PREFIX}behavior"
_ROUND_TRIP: Final = (_METRICS, _STATUSES, _CONDITIONS, _BEHAVIOR)
CPU_PERCENT_DEFAULT: Final = 80
# A metric's parts by its type: where they are below its v2 form, and what v1 calls them. Of the pairs that
# follow, {} stands for "target" in a spec and "current" in a status.
_OF_TYPE: Final[Mapping[str, tuple[tuple[tuple[str, str], str], ...]]] = {
    "resource": (
        (("name", ""), "name"),
        (("{}", "averageUtilization"), "{}AverageUtilization"),
        (("{}", "averageValue"), "{}AverageValue"),
    ),
    "containerResource": (
        (("name", ""), "name"),
        (("container", ""), "container"),
        (("{}", "averageUtilization"), "{}AverageUtilization"),
        (("{}", "averageValue"), "{}AverageValue"),
    ),
    "pods": (
        (("metric", "name"), "metricName"),
        (("metric", "selector"), "selector"),
        (("{}", "averageValue"), "{}AverageValue"),
    ),
    "object": (
        (("describedObject", ""), "target"),
        (("metric", "name"), "metricName"),
        (("metric", "selector"), "selector"),
        (("{}", "value"), "{}Value"),
        (("{}", "averageValue"), "averageValue"),
    ),
    "external": (
        (("metric", "name"), "metricName"),
        (("metric", "selector"), "metricSelector"),
        (("{}", "value"), "{}Value"),
        (("{}", "averageValue"), "{}AverageValue"),
    ),
}

# Quantities that v1 cannot leave out.
_ALWAYS: Final = {
    ("resource", "current"): "currentAverageValue",
    ("containerResource", "current"): "currentAverageValue",
    ("pods", "current"): "currentAverageValue",
    ("pods", "target"): "targetAverageValue",
    ("object", "current"): "currentValue",
    ("object", "target"): "targetValue",
    ("external", "current"): "currentValue",
}


def event_served(obj: Object) -> Object:
    """A core/v1 Event as events.k8s.io/v1 has it."""
    return {_EVENT.get(name, name): value for name, value in obj.items()}


def event_stored(obj: Object) -> Object:
    """An events.k8s.io/v1 Event as core/v1 has it."""
    return {"involvedObject": {}, **{_EVENT_BACK.get(name, name): value for name, value in obj.items()}}


def autoscaler_served(obj: Object) -> Object:
    """An autoscaling/v2 HorizontalPodAutoscaler as autoscaling/v1 has it."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    metrics = [*(spec.pop("metrics", None) or ())]
    cpu = [percent for metric in metrics if (percent := _cpu_percent(metric, "target")) is not None]
    others = [_metric_v1(metric, "target") for metric in metrics if _cpu_percent(metric, "target") is None]
    behavior, conditions = spec.pop("behavior", None), status.pop("conditions", None)
    current = status.pop("currentMetrics", None) or ()
    if cpu:
        spec["targetCPUUtilizationPercentage"] = cpu[0]
    for metric in current:
        percent = _cpu_percent(metric, "current")
        if percent is not None:
            status["currentCPUUtilizationPercentage"] = percent
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    notes = {
        _METRICS: others,
        _STATUSES: [_metric_v1(metric, "current") for metric in current],
        _BEHAVIOR: behavior and _capitalised(behavior),
        _CONDITIONS: conditions,
    }
    return {**obj, "metadata": _annotated(obj, notes), "spec": spec, "status": status}


def autoscaler_stored(obj: Object) -> Object:
    """An autoscaling/v1 HorizontalPodAutoscaler as autoscaling/v2 has it, with v1's default of 80% CPU."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    notes = {name: _note(obj, name) for name in _ROUND_TRIP}
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    metrics = [_metric_v2(metric, "target") for metric in _objects(notes[_METRICS])]
    if percent is None and not metrics:
        percent = CPU_PERCENT_DEFAULT
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    spec["metrics"] = metrics
    if isinstance(notes[_BEHAVIOR], dict) and notes[_BEHAVIOR]:
        spec["behavior"] = _lowered(notes[_BEHAVIOR])
    used = status.pop("currentCPUUtilizationPercentage", None)
    current = [_metric_v2(metric, "current") for metric in _objects(notes[_STATUSES])]
    if used is not None and not current:
        resource = {"name": "cpu", "current": {"averageUtilization": used}}
        current = [{"type": "Resource", "resource": resource}]
    if current:
        status["currentMetrics"] = current
    if notes[_CONDITIONS]:
        status["conditions"] = _objects(notes[_CONDITIONS])
    return {**obj, "metadata": _annotated(obj, {}), "spec": spec, "status": status}


def _cpu_percent(metric: Object, what: str) -> Any:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    return (resource.get(what) or {}).get("averageUtilization")


def _annotated(obj: Object, notes: Mapping[str, Any]) -> Object:
    """The metadata with these annotations and none of the others that only travel."""
    metadata: Object = dict(obj.get("metadata") or {})
    annotations = {
        name: text
        for name, text in (metadata.pop("annotations", None) or {}).items()
        if name not in _ROUND_TRIP
    }
    annotations |= {name: msgspec.json.encode(value).decode() for name, value in notes.items() if value}
    return {**metadata, "annotations": annotations} if annotations else metadata


def _note(obj: Object, name: str) -> Any:
    """What an annotation says; None where it is absent or no JSON."""
    text = ((obj.get("metadata") or {}).get("annotations") or {}).get(name)
    try:
        return parse(text) if text else None
    except ValueError:
        return None


def _objects(value: Any) -> list[Object]:
    """The objects of a list that a client may have written."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _metric_v1(metric: Object, what: str) -> Object:
    kind = str(metric.get("type", ""))
    field = kind[:1].lower() + kind[1:]
    source, found = metric.get(field) or {}, {}
    for (outer, inner), name in _OF_TYPE.get(field, ()):
        part = source.get(outer.format(what))
        value = (part or {}).get(inner) if inner else part
        if value is not None:
            found[name.format(what)] = value
    always = _ALWAYS.get((field, what))
    return {"type": kind, field: {**found, always: found.get(always, "0")} if always else found}


def _metric_v2(metric: Object, what: str) -> Object:
    kind = str(metric.get("type", ""))
    field = kind[:1].lower() + kind[1:]
    source: Any = metric.get(field)
    found: Object = {}
    for (outer, inner), name in _OF_TYPE.get(field, ()):
        if not isinstance(source, dict):
            break
        value = source.get(name.format(what))
        if name.format(what) == "targetValue" and value == "0" and source.get("averageValue") is not None:
            continue
        if value is not None and inner:
            found.setdefault(outer.format(what), {})[inner] = value
        elif value is not None:
            found[outer] = value
    if what == "target":
        found["target"] = _typed(found.get("target") or {})
    return {"type": kind, field: found}


def _typed(target: Object) -> Object:
    """A v2 target with its type, by which of its values there is."""
    if "averageUtilization" in target:
        return {"type": "Utilization", **target}
    return {"type": "AverageValue" if "averageValue" in target else "Value", **target}


def _capitalised(value: Any) -> Any:
    """A behavior with the names of Go's fields, as upstream writes it into the annotation."""
    if isinstance(value, list):
        return [_capitalised(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name[:1].upper() + name[1:]: _capitalised(each) for name, each in value.items()}


def _lowered(value: Any) -> Any:
    if isinstance(value, list):
        return [_lowered(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name[:1].lower() + name[1:]: _lowered(each) for name, each in value.items() if each is not None}
