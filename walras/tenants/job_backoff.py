"""When the next pod of a Job may start after others failed, and restarts of containers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from walras.tenants.job_failure import IGNORE, judge
from walras.tenants.objects import Object, parse_ms, phase, status

BACKOFF_MS_MIN: Final = 10_000
BACKOFF_MS_MAX: Final = 600_000


def ended_ms(pod: Mapping[str, Any]) -> int | None:
    """When the last of its containers ended; None where none tells."""
    ends = [
        parse_ms(((each.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for each in status(pod).get("containerStatuses") or ()
    ]
    return max((end for end in ends if end is not None), default=None)


def backoff_ms(spec: Mapping[str, Any], pods: Sequence[Object], now_ms: int) -> int:
    """Until the next pod may start: 10 s after the first failure, doubled with each further one."""
    succeeded = [ended_ms(pod) or 0 for pod in pods if phase(pod) == "Succeeded"]
    since_ms = max(succeeded, default=0)
    failed = [
        ended
        for pod in pods
        if phase(pod) == "Failed"
        and judge(spec, pod).action != IGNORE
        and (ended := ended_ms(pod)) is not None
        and ended > since_ms
    ]
    if not failed:
        return 0
    delay_ms = min(BACKOFF_MS_MIN << min(len(failed) - 1, 10), BACKOFF_MS_MAX)
    return max(failed) + delay_ms - now_ms


def restarts_of(pod: Mapping[str, Any]) -> int:
    reported = status(pod)
    containers = (*(reported.get("initContainerStatuses") or ()), *(reported.get("containerStatuses") or ()))
    return sum(int(each.get("restartCount", 0)) for each in containers)
