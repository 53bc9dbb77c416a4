"""What a Deployment says of itself: replicas, availability, and whether a rollout goes on. Pure."""

from __future__ import annotations

from walras.core.clock import parse_rfc3339, rfc3339
from walras.tenants.objects import Object, condition, parse_ms, set_condition, status


def counts_of(deployment: Object, new: Object | None, old: list[Object]) -> Object:
    """Replicas of the newest set and the others, without those that are 0."""
    sets = [*old, *((new,) if new is not None else ())]
    total = {
        field: sum(status(each).get(field, 0) for each in sets)
        for field in ("replicas", "readyReplicas", "availableReplicas", "terminatingReplicas")
    }
    total["updatedReplicas"] = status(new).get("replicas", 0) if new is not None else 0
    total["unavailableReplicas"] = max(0, deployment["spec"].get("replicas", 1) - total["availableReplicas"])
    return {field: count for field, count in total.items() if count}


def set_available(deployment: Object, now: str, wanted: int) -> None:
    """Sets in place the condition that at least `wanted` replicas are available."""
    enough = status(deployment).get("availableReplicas", 0) >= wanted
    set_condition(
        deployment, "Available", "True" if enough else "False", now,
        reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        message=f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    )  # fmt: skip


def set_progress(deployment: Object, new: Object | None, now_ms: int, *, moved: bool) -> int | None:
    """Sets the condition Progressing in place; milliseconds until its deadline, of a rollout under way."""
    spec, reported, now = deployment["spec"], status(deployment), rfc3339(now_ms)
    replicas, name = spec.get("replicas", 1), new["metadata"]["name"] if new is not None else ""
    complete = new is not None and all(
        reported.get(field, 0) == replicas for field in ("replicas", "updatedReplicas", "availableReplicas")
    )
    progressing = condition(deployment, "Progressing")
    if complete:
        set_condition(
            deployment, "Progressing", "True", now,
            reason="NewReplicaSetAvailable", message=f'ReplicaSet "{name}" has successfully progressed.',
        )  # fmt: skip
        if progressing is None:
            _touch(deployment, now)
        return None
    deadline_ms = int(spec.get("progressDeadlineSeconds", 600)) * 1000
    since_ms = parse_ms((progressing or {}).get("lastUpdateTime"))
    stale = progressing is None or progressing.get("reason") == "NewReplicaSetAvailable"
    if moved or stale or since_ms is None:
        set_condition(
            deployment, "Progressing", "True", now,
            reason="ReplicaSetUpdated", message=f'ReplicaSet "{name}" is progressing.',
        )  # fmt: skip
        _touch(deployment, now)
        since_ms = parse_rfc3339(now)
    left_ms = since_ms + deadline_ms - now_ms
    if left_ms > 0:
        return left_ms
    set_condition(
        deployment, "Progressing", "False", now,
        reason="ProgressDeadlineExceeded", message=f'ReplicaSet "{name}" has timed out progressing.',
    )  # fmt: skip
    return None


def _touch(deployment: Object, now: str) -> None:
    for each in deployment["status"]["conditions"]:
        if each["type"] == "Progressing":
            each["lastUpdateTime"] = now
