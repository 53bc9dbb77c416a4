"""What a Job needs next: pods to make or to give up, what to count, conditions. Pure.

Follows Kubernetes' job controller, with one rule of its own: a pod that was displaced (DisruptionTarget) is
no failure of the job. It is replaced at once and never counts against backoffLimit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from walras.core.clock import rfc3339
from walras.kube.record import copy
from walras.tenants.job_backoff import backoff_ms, restarts_of
from walras.tenants.job_failure import FAIL_JOB, IGNORE, Verdict, judge
from walras.tenants.job_indexes import (
    NONE,
    Failures,
    failures,
    format_indexes,
    index_of,
    matched_rule,
    parse_indexes,
)
from walras.tenants.objects import (
    Object,
    condition,
    deleting,
    finalizers,
    finished,
    is_true,
    parse_ms,
    phase,
    set_condition,
    status,
    transition_ms,
)
from walras.tenants.workloads import deletion_rank, is_active, is_ready

TRACKING: Final = "batch.kubernetes.io/job-tracking"
CREATE_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to record on the job."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    status: Object
    # Indexes of the pods to make; None for a job whose completions have no index.
    create: list[int | None] = field(default_factory=list)
    # By index, where the job limits failures by index: what earlier pods came to.
    failures: dict[int, Failures] = field(default_factory=dict)
    # To delete without being counted, and to delete as part of the job's failure.
    give_up: list[Object] = field(default_factory=list)
    kill: list[Object] = field(default_factory=list)
    # Counted in `status`, once and for all: their tracking finalizer goes in the same transaction.
    counted: list[Object] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    again_ms: int | None = None
    # Past ttlSecondsAfterFinished.
    expired: bool = False


class _Planner:
    def __init__(self, job: Object, pods: Sequence[Object], now_ms: int) -> None:
        self.job = job
        self.spec: Mapping[str, Any] = job["spec"]
        self.now_ms = now_ms
        self.now = rfc3339(now_ms)
        self.pods = pods
        self.active = [pod for pod in pods if is_active(pod)]
        self.terminating = [pod for pod in pods if deleting(pod) and not finished(pod)]
        self.indexed = self.spec.get("completionMode") == "Indexed"
        # A scratch object, so that conditions can be set as on any other.
        self.result: Object = {"status": copy(dict(status(job)))}
        self.status: Object = self.result["status"]
        self.plan = Plan(self.status)
        # What a pod did that fails the job outright.
        self.verdict: Verdict | None = None
        self.by_index = self.indexed and self.spec.get("backoffLimitPerIndex") is not None
        self.done = parse_indexes(self.status.get("completedIndexes", ""))
        self.failed = parse_indexes(self.status.get("failedIndexes", ""))

    def run(self) -> Plan:
        if is_true(self.job, "Complete") or is_true(self.job, "Failed"):
            self._after_the_end()
            return self.plan
        self._count()
        failure = self._failure()
        if failure is not None:
            self._fail(*failure)
        elif (success := self._succeeded()) is not None:
            self._complete(*success)
        elif self.spec.get("suspend"):
            self._suspend()
        else:
            self._go_on()
        self._report()
        return self.plan

    def _again(self, after_ms: int) -> None:
        after_ms = max(after_ms, 1)
        self.plan.again_ms = after_ms if self.plan.again_ms is None else min(self.plan.again_ms, after_ms)

    def _count(self) -> None:
        """Moves finished pods into the counts. A pod without the finalizer was counted before."""
        for pod in self.pods:
            if TRACKING not in finalizers(pod):
                continue
            if phase(pod) == "Succeeded":
                self.plan.counted.append(pod)
                if not self.indexed:
                    self.status["succeeded"] = self.status.get("succeeded", 0) + 1
                elif (index := index_of(pod)) is not None and index < self.spec.get("completions", 0):
                    self.done.add(index)
            elif self._has_failed(pod):
                self.plan.counted.append(pod)
                verdict = judge(self.spec, pod)
                if verdict.action != IGNORE:
                    self.status["failed"] = self.status.get("failed", 0) + 1
                if verdict.action == FAIL_JOB:
                    self.verdict = verdict
        if self.indexed:
            self.status["completedIndexes"] = format_indexes(self.done)
            self.status["succeeded"] = len(self.done)
        if self.by_index:
            self.plan.failures, failed = failures(self.spec, self.pods)
            self.failed = (self.failed | failed) - self.done
            self.status["failedIndexes"] = format_indexes(self.failed)

    def _has_failed(self, pod: Object) -> bool:
        if phase(pod) == "Failed":
            return True
        # A pod on its way out is as good as failed, unless it shall be replaced only when it is gone.
        return deleting(pod) and self.spec.get("podReplacementPolicy") != "Failed"

    def _failure(self) -> tuple[str, str] | None:
        """Reason and message, once the job has failed."""
        if is_true(self.job, "SuccessCriteriaMet"):
            return None
        target = condition(self.job, "FailureTarget")
        if target is not None and target.get("status") == "True":
            return str(target.get("reason")), str(target.get("message"))
        if self.verdict is not None:
            return "PodFailurePolicy", self.verdict.message
        limit = self.spec.get("backoffLimit", 6)
        restarts = sum(restarts_of(pod) for pod in self.pods if phase(pod) in {"Running", "Pending"})
        on_failure = self.spec["template"]["spec"].get("restartPolicy") == "OnFailure"
        if self.status.get("failed", 0) > limit or (on_failure and restarts and restarts >= limit):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        deadline_s, started_ms = self.spec.get("activeDeadlineSeconds"), self._started_ms()
        if deadline_s is not None and started_ms is not None and not self.spec.get("suspend"):
            left_ms = started_ms + deadline_s * 1000 - self.now_ms
            if left_ms <= 0:
                return "DeadlineExceeded", "Job was active longer than specified deadline"
            self._again(left_ms)
        return self._index_failure() if self.by_index else None

    def _index_failure(self) -> tuple[str, str] | None:
        failed, most = len(self.failed), self.spec.get("maxFailedIndexes")
        if most is not None and failed > most:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return "MaxFailedIndexesExceeded", message
        if failed and failed + len(self.done) >= self.spec.get("completions", 0):
            return "FailedIndexes", "Job has failed indexes"
        return None

    def _started_ms(self) -> int | None:
        return parse_ms(self.status.get("startTime"))

    def _fail(self, reason: str, message: str) -> None:
        set_condition(
            self.result, "FailureTarget", "True", self.now, reason=reason, message=message, probed=True
        )
        self.plan.kill = self.active
        if not self.active and not self.terminating:
            set_condition(
                self.result, "Failed", "True", self.now, reason=reason, message=message, probed=True
            )
            self.plan.notes.append(Note("Warning", reason, message))
            self._plan_expiry()

    def _succeeded(self) -> tuple[str, str] | None:
        """Reason and message, once the job has done what it was to do."""
        met = condition(self.job, "SuccessCriteriaMet")
        if met is not None and met.get("status") == "True":
            return str(met.get("reason")), str(met.get("message"))
        rule = matched_rule(self.spec, self.done) if self.indexed else None
        if rule is not None:
            return "SuccessPolicy", f"Matched rules at index {rule}"
        if self._worked_off():
            return "CompletionsReached", "Reached expected number of succeeded pods"
        return None

    def _worked_off(self) -> bool:
        succeeded, wanted = self.status.get("succeeded", 0), self.spec.get("completions")
        if wanted is None:
            # A work queue: one success says that the work is done; the others may end theirs.
            return bool(succeeded) and not self.active
        return bool(succeeded >= wanted)

    def _complete(self, reason: str, message: str) -> None:
        set_condition(
            self.result, "SuccessCriteriaMet", "True", self.now, reason=reason, message=message, probed=True
        )
        self.plan.give_up = self.active
        if not self.active and not self.terminating:
            set_condition(
                self.result, "Complete", "True", self.now, reason=reason, message=message, probed=True
            )
            self.status["completionTime"] = self.now
            self.plan.notes.append(Note("Normal", "Completed", "Job completed"))
            self._plan_expiry()

    def _suspend(self) -> None:
        self.plan.give_up = self.active
        if not is_true(self.job, "Suspended"):
            set_condition(
                self.result, "Suspended", "True", self.now,
                reason="JobSuspended", message="Job suspended", probed=True,
            )  # fmt: skip
            self.plan.notes.append(Note("Normal", "Suspended", "Job suspended"))

    def _go_on(self) -> None:
        if is_true(self.job, "Suspended"):
            set_condition(
                self.result, "Suspended", "False", self.now,
                reason="JobResumed", message="Job resumed", probed=True,
            )  # fmt: skip
            self.status["startTime"] = self.now
            self.plan.notes.append(Note("Normal", "Resumed", "Job resumed"))
        if "startTime" not in self.status:
            self.status["startTime"] = self.now
            if self.spec.get("activeDeadlineSeconds") is not None:
                self._again(self.spec["activeDeadlineSeconds"] * 1000)
        wanted = self._wanted()
        extra = len(self.active) - wanted
        if extra > 0:
            self.plan.give_up = sorted(self.active, key=deletion_rank)[:extra]
            return
        missing = wanted - len(self.active)
        if self.spec.get("podReplacementPolicy") == "Failed":
            missing -= len(self.terminating)
        if missing <= 0:
            return
        wait_ms = 0 if self.by_index else backoff_ms(self.spec, self.pods, self.now_ms)
        if wait_ms > 0:
            self._again(wait_ms)
            return
        self.plan.create = self._free_indexes(min(missing, CREATE_MAX))
        if missing > CREATE_MAX:
            self._again(1)

    def _wanted(self) -> int:
        parallelism, completions = self.spec.get("parallelism", 1), self.spec.get("completions")
        succeeded = self.status.get("succeeded", 0)
        if completions is None:
            return min(len(self.active), parallelism) if succeeded else int(parallelism)
        return int(min(parallelism, completions - succeeded - len(self.failed)))

    def _free_indexes(self, count: int) -> list[int | None]:
        if not self.indexed:
            return [None] * count
        holding = [*self.active]
        if self.spec.get("podReplacementPolicy") == "Failed":
            holding += self.terminating
        taken = self.done | self.failed
        taken |= {index for pod in holding if (index := index_of(pod)) is not None}
        found: list[int | None] = []
        for index in range(self.spec.get("completions", 0)):
            if len(found) == count:
                break
            if index not in taken and self._is_due(index):
                found.append(index)
        return found

    def _is_due(self, index: int) -> bool:
        wait_ms = self.plan.failures.get(index, NONE).not_before_ms - self.now_ms
        if wait_ms > 0:
            self._again(wait_ms)
        return wait_ms <= 0

    def _report(self) -> None:
        self.status["active"] = len(self.active)
        self.status["ready"] = sum(is_ready(pod) for pod in self.active)
        self.status["terminating"] = len(self.terminating)
        self.status["uncountedTerminatedPods"] = {}
        for name in ("active", "succeeded", "failed"):
            if not self.status.get(name):
                self.status.pop(name, None)

    def _after_the_end(self) -> None:
        """Nothing counts any more; what is left is let go of, and the job itself after its time to live."""
        self.plan.counted = [pod for pod in self.pods if TRACKING in finalizers(pod)]
        self.plan.give_up = self.active
        self._plan_expiry()

    def _plan_expiry(self) -> None:
        ttl_s = self.spec.get("ttlSecondsAfterFinished")
        if ttl_s is None:
            return
        ended_ms = transition_ms(self.result, "Complete") or transition_ms(self.result, "Failed")
        left_ms = (ended_ms if ended_ms is not None else self.now_ms) + ttl_s * 1000 - self.now_ms
        if left_ms <= 0 and (is_true(self.job, "Complete") or is_true(self.job, "Failed")):
            self.plan.expired = True
        else:
            self._again(left_ms)


def plan(job: Object, pods: Sequence[Object], now_ms: int) -> Plan:
    """The next step of a job with these pods, all of its own; neither is mutated."""
    return _Planner(job, pods, now_ms).run()
