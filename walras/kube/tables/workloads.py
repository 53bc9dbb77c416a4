"""The rows of jobs, deployments and replica sets."""

from __future__ import annotations

from typing import Any, Final

from walras.kube.tables.columns import (
    AGE,
    NAME,
    NONE,
    Column,
    Printer,
    age,
    condition,
    containers,
    human_duration,
    moment_ms,
    name,
    selector_text,
    spec,
    status,
)

Object = dict[str, Any]

_CONTAINERS: Final = Column("Containers", priority=1, about="Names of the containers in the template.")
_IMAGES: Final = Column("Images", priority=1, about="Images of the containers in the template.")


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


JOBS: Final = Printer(
    (
        NAME,
        Column("Status", about="Status of the job."),
        Column("Completions", doc="batch.v1.JobStatus.succeeded"),
        Column("Duration", about="Time that the job took."),
        AGE,
        _CONTAINERS,
        _IMAGES,
        Column("Selector", priority=1, doc="batch.v1.JobSpec.selector"),
    ),
    _job,
)


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


DEPLOYMENTS: Final = Printer(
    (
        NAME,
        Column("Ready", about="How many of the wanted pods are ready."),
        Column("Up-to-date", doc="apps.v1.DeploymentStatus.updatedReplicas"),
        Column("Available", doc="apps.v1.DeploymentStatus.availableReplicas"),
        AGE,
        _CONTAINERS,
        _IMAGES,
        Column("Selector", priority=1, doc="apps.v1.DeploymentSpec.selector"),
    ),
    _deployment,
)


def _replica_set(replica_set: Object, now_ms: int) -> list[Any]:
    held = status(replica_set)
    return [
        name(replica_set),
        spec(replica_set).get("replicas", 0),
        held.get("replicas", 0),
        held.get("readyReplicas", 0),
        age(replica_set, now_ms),
        *containers(replica_set),
        selector_text(spec(replica_set).get("selector")) or NONE,
    ]


REPLICA_SETS: Final = Printer(
    (
        NAME,
        Column("Desired", "integer", doc="apps.v1.ReplicaSetSpec.replicas"),
        Column("Current", "integer", doc="apps.v1.ReplicaSetStatus.replicas"),
        Column("Ready", "integer", doc="apps.v1.ReplicaSetStatus.readyReplicas"),
        AGE,
        _CONTAINERS,
        _IMAGES,
        Column("Selector", priority=1, doc="apps.v1.ReplicaSetSpec.selector"),
    ),
    _replica_set,
)
