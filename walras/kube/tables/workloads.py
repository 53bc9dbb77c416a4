"""The rows of what makes pods, and of what scales it and keeps it running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.tables.columns import (
    NONE,
    UNKNOWN,
    UNSET,
    Cells,
    age,
    condition,
    containers,
    human_duration,
    labels_text,
    moment_ms,
    name,
    selector_text,
    since,
    spec,
    status,
    template_containers,
)

Object = dict[str, Any]

_METRICS_MAX: Final = 2


def _job_status(job: Object) -> str:
    held = status(job)
    for kind, text in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition(held, kind).get("status") == "True":
            return text
    if (job.get("metadata") or {}).get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition(held, kind).get("status") == "True":
            return kind
    return "Running"


def _completions(job: Object) -> str:
    succeeded = status(job).get("succeeded", 0)
    if spec(job).get("completions") is not None:
        return f"{succeeded}/{spec(job)['completions']}"
    parallelism = spec(job).get("parallelism", 0)
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Object, now_ms: int) -> str:
    started_ms = moment_ms(status(job).get("startTime"))
    if started_ms is None:
        return ""
    completed_ms = moment_ms(status(job).get("completionTime"))
    return human_duration((now_ms if completed_ms is None else completed_ms) - started_ms)


def _job(job: Object, now_ms: int) -> list[Any]:
    return [
        name(job),
        _job_status(job),
        _completions(job),
        _duration(job, now_ms),
        age(job, now_ms),
        *containers(job),
        selector_text(spec(job).get("selector")) or NONE,
    ]


def _cron_job(obj: Object, now_ms: int) -> list[Any]:
    suspended, last = spec(obj).get("suspend"), status(obj).get("lastScheduleTime")
    job = (spec(obj).get("jobTemplate") or {}).get("spec") or {}
    return [
        name(obj),
        spec(obj).get("schedule", ""),
        spec(obj).get("timeZone", NONE),
        UNSET if suspended is None else str(suspended),
        len(status(obj).get("active") or ()),
        since(last, now_ms) if last else NONE,
        age(obj, now_ms),
        *template_containers(job.get("template")),
        selector_text(job.get("selector")) or NONE,
    ]


def _deployment(deployment: Object, now_ms: int) -> list[Any]:
    held = status(deployment)
    return [
        name(deployment),
        f"{held.get('readyReplicas', 0)}/{spec(deployment).get('replicas', 0)}",
        held.get("updatedReplicas", 0),
        held.get("availableReplicas", 0),
        age(deployment, now_ms),
        *containers(deployment),
        selector_text(spec(deployment).get("selector")),
    ]


def _replicas(obj: Object, now_ms: int) -> list[Any]:
    held, selector = status(obj), spec(obj).get("selector")
    plain = obj.get("kind") == "ReplicationController"
    return [
        name(obj),
        spec(obj).get("replicas", 0),
        held.get("replicas", 0),
        held.get("readyReplicas", 0),
        age(obj, now_ms),
        *containers(obj),
        labels_text(selector) if plain else selector_text(selector) or NONE,
    ]


def _stateful_set(obj: Object, now_ms: int) -> list[Any]:
    ready = f"{status(obj).get('readyReplicas', 0)}/{spec(obj).get('replicas', 0)}"
    return [name(obj), ready, age(obj, now_ms), *containers(obj)]


_DAEMONS: Final = (
    "desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled",
    "numberAvailable",
)  # fmt: skip


def _daemon_set(obj: Object, now_ms: int) -> list[Any]:
    pod = (spec(obj).get("template") or {}).get("spec") or {}
    return [
        name(obj),
        *(status(obj).get(field, 0) for field in _DAEMONS),
        labels_text(pod.get("nodeSelector")),
        age(obj, now_ms),
        *containers(obj),
        selector_text(spec(obj).get("selector")) or NONE,
    ]


def _metric(metric: Object, held: Object) -> str:
    kind = str(metric.get("type", ""))
    field = kind[:1].lower() + kind[1:]
    source = metric.get(field)
    if kind not in ("External", "Pods", "Object", "Resource", "ContainerResource") or source is None:
        return "<unknown type>"
    target, found = source.get("target") or {}, held.get(field)
    current = (found or {}).get("current") or {}
    average = current.get("averageValue")
    seen = UNKNOWN if found is None else average or "0"
    if kind in ("Resource", "ContainerResource"):
        if target.get("averageValue") is not None:
            return f"{source.get('name')}: {seen}/{target['averageValue']}"
        return f"{source.get('name')}: {_percent(current, UNKNOWN)}/{_percent(target, '<auto>')}"
    if kind == "Pods":
        return f"{seen}/{target.get('averageValue', '0')}"
    if target.get("averageValue") is not None:
        return f"{average or UNKNOWN}/{target['averageValue']} (avg)"
    return f"{UNKNOWN if found is None else current.get('value', '0')}/{target.get('value', '0')}"


def _percent(of: Object, otherwise: str) -> str:
    percent = of.get("averageUtilization")
    return otherwise if percent is None else f"{percent}%"


def _metrics(obj: Object) -> str:
    wanted, held = spec(obj).get("metrics") or (), status(obj).get("currentMetrics") or ()
    texts = [_metric(each, held[index] if index < len(held) else {}) for index, each in enumerate(wanted)]
    shown = ", ".join(texts[:_METRICS_MAX])
    more = len(texts) - _METRICS_MAX
    return f"{shown} + {more} more..." if more > 0 else shown or NONE


def _autoscaler(obj: Object, now_ms: int) -> list[Any]:
    target = spec(obj).get("scaleTargetRef") or {}
    return [
        name(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _metrics(obj),
        str(spec(obj).get("minReplicas", UNSET)),
        spec(obj).get("maxReplicas", 0),
        status(obj).get("currentReplicas", 0),
        age(obj, now_ms),
    ]


def _budget(obj: Object, now_ms: int) -> list[Any]:
    return [
        name(obj),
        *(str(spec(obj).get(field, "N/A")) for field in ("minAvailable", "maxUnavailable")),
        status(obj).get("disruptionsAllowed", 0),
        age(obj, now_ms),
    ]


CELLS: Final[Mapping[str, Cells]] = {
    "replicationcontrollers": _replicas,
    "daemonsets.apps": _daemon_set,
    "deployments.apps": _deployment,
    "replicasets.apps": _replicas,
    "statefulsets.apps": _stateful_set,
    "jobs.batch": _job,
    "cronjobs.batch": _cron_job,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "poddisruptionbudgets.policy": _budget,
}
