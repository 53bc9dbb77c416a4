"""The completion indexes of a Job: sets of them as text, and which have failed for good (KEP-3850). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from walras.tenants.job_backoff import BACKOFF_MS_MAX, BACKOFF_MS_MIN, ended_ms
from walras.tenants.job_failure import COUNT, FAIL_INDEX, IGNORE, judge
from walras.tenants.objects import Object, phase

INDEX: Final = "batch.kubernetes.io/job-completion-index"
FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
IGNORED: Final = "batch.kubernetes.io/job-index-ignored-failure-count"


class Failures(NamedTuple):
    """How often pods of one index failed, so that it counted or not, and when the next may start."""

    counted: int
    ignored: int
    not_before_ms: int

    def annotations(self) -> dict[str, str]:
        """What the next pod of the index carries on."""
        ignored = {IGNORED: str(self.ignored)} if self.ignored else {}
        return {FAILURES: str(self.counted), **ignored}


NONE: Final = Failures(0, 0, 0)


def index_of(pod: Mapping[str, Any]) -> int | None:
    """The completion index of a pod of an Indexed job."""
    return _number(pod, INDEX)


def _number(pod: Mapping[str, Any], annotation: str) -> int | None:
    text = (pod["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def failures(spec: Mapping[str, Any], pods: Sequence[Object]) -> tuple[dict[int, Failures], set[int]]:
    """By index what its last failed pod says, and the indexes that have failed for good."""
    limit = spec.get("backoffLimitPerIndex")
    found: dict[int, Failures] = {}
    failed: set[int] = set()
    for pod in pods:
        index = index_of(pod)
        if index is None or phase(pod) != "Failed":
            continue
        action = judge(spec, pod).action
        before, ignored = _number(pod, FAILURES) or 0, _number(pod, IGNORED) or 0
        if action == FAIL_INDEX or (action == COUNT and limit is not None and before >= limit):
            failed.add(index)
        counted = before + (action != IGNORE)
        ignored += action == IGNORE
        delay_ms = 0 if action == IGNORE else min(BACKOFF_MS_MIN << min(before + ignored, 10), BACKOFF_MS_MAX)
        mine = Failures(counted, ignored, (ended_ms(pod) or 0) + delay_ms)
        found[index] = max(found.get(index, NONE), mine, key=lambda each: each.counted + each.ignored)
    return found, failed


def matched_rule(spec: Mapping[str, Any], succeeded: set[int]) -> int | None:
    """The first rule of `spec.successPolicy` (KEP-3998) that these indexes meet; None where none is met."""
    for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or ()):
        listed, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        wanted = succeeded if listed is None else parse_indexes(listed)
        enough = len(wanted) if count is None else count
        if (listed is not None or count is not None) and len(wanted & succeeded) >= enough:
            return number
    return None


def parse_indexes(text: str) -> set[int]:
    """The set behind "0-2,4"."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """As in `status.completedIndexes`: "0-2,4"."""
    ranges: list[list[int]] = []
    for index in sorted(indexes):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" if b > a + 1 else f"{a},{b}" for a, b in ranges)
