"""Makes Jobs by the clock: carries out what a CronJob's schedule, deadline and concurrency policy say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from walras.core import cron
from walras.core.clock import Clock, rfc3339
from walras.core.errors import AlreadyExists, BadRequest, NotFound
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.dependents import Dependents
from walras.tenants.events import Recorder, Staged
from walras.tenants.objects import (
    CRON_JOBS,
    JOBS,
    Object,
    controlled_by,
    controller_of,
    deleting,
    is_true,
    owner_reference,
    parse_ms,
    status,
    uid,
)
from walras.tenants.quota import RETRY_MS, Room
from walras.tenants.workloads import complete, takes_pods

COMPONENT: Final = "cronjob-controller"
SCHEDULED: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# Missed times beyond which an Event says so.
MISSED_MAX: Final = 100
# After the time itself, so that the clock has surely passed it.
_LATER_MS: Final = 100
# The alarm of the event loop cannot be set further than this.
_WAIT_MS_MAX: Final = 86_400_000


class CronJobController:
    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, dependents: Dependents
    ) -> None:
        self._api = api
        self._clock = clock
        self._manager = manager
        self._recorder = recorder
        self._dependents = dependents
        self._room = Room(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(CRON_JOBS, self._changed),
            self._api.subscribe(JOBS, self._job_changed),
        ]

    def _changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        self._manager.add(self, Key(change.cluster, metadata["namespace"], metadata["name"]))

    def _job_changed(self, change: Change) -> None:
        owner = controller_of(change.object)
        if owner is not None and owner.get("kind") == "CronJob":
            namespace = change.object["metadata"]["namespace"]
            self._manager.add(self, Key(change.cluster, namespace, str(owner["name"])))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        owner = self._api.find(cluster, CRON_JOBS, namespace, name)
        if owner is None or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        notes = self._recorder.about(transaction, cluster, owner, COMPONENT)
        jobs = self._dependents.controlled(cluster, owner, JOBS)
        step = _Step(self._api, transaction, cluster, owner, jobs, notes)
        try:
            step.settle()
            again_ms = None
            if not deleting(owner):
                again_ms = self._run(step)
                step.forget_finished()
            transaction.edit(cluster, CRON_JOBS, namespace, name, step.report)
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        return again_ms

    def _run(self, step: _Step) -> int | None:
        """Makes the Job that is due, if one is; milliseconds until the next may be."""
        schedule = self._schedule(step)
        if schedule is None or step.spec.get("suspend"):
            return None
        now_ms = self._clock.now_ms()
        due_ms = step.due_ms(schedule, now_ms)
        if due_ms is not None and not self._room.left(step.cluster):
            step.notes.warning("FailedCreate", f"Error creating job: {self._room.refusal(step.cluster)}")
            return RETRY_MS
        if due_ms is not None:
            step.start(due_ms, schedule)
        next_ms = schedule.after(now_ms)
        return min(next_ms + _LATER_MS - now_ms, _WAIT_MS_MAX) if next_ms is not None else None

    def _schedule(self, step: _Step) -> cron.Schedule | None:
        named = step.spec.get("timeZone")
        zone = zone_of(named) if named else UTC
        if zone is None:
            step.notes.warning("UnknownTimeZone", f'invalid timeZone: "{named}": unknown time zone {named}')
            return None
        text = str(step.spec.get("schedule", ""))
        try:
            return cron.parse(text, zone)
        except BadRequest as error:
            step.notes.warning("UnparseableSchedule", f'unparseable schedule: "{text}" : {error.message}')
            return None


class _Step:
    """One look at a CronJob: `active` and the other fields become its status."""

    def __init__(
        self,
        api: API,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        jobs: list[Object],
        notes: Staged,
    ) -> None:
        self._api = api
        self._transaction = transaction
        self.cluster = cluster
        self.owner = owner
        self.spec: Object = owner["spec"]
        self.jobs = jobs
        self.notes = notes
        self._status: Object = copy(dict(status(owner)))
        self.active: list[Object] = self._status.pop("active", [])

    def report(self, latest: Object) -> None:
        latest["status"] = {**({"active": self.active} if self.active else {}), **self._status}

    def settle(self) -> None:
        """Takes out of `active` what has ended or gone."""
        known = {uid(job): job for job in self.jobs}
        listed = {each.get("uid") for each in self.active}
        for each in list(self.active):
            if each.get("uid") not in known:
                self.notes.normal("MissingJob", f"Active job went missing: {each.get('name')}")
                self.active.remove(each)
        for job_uid, job in known.items():
            ended = _end(job)
            if not ended and job_uid not in listed:
                self.notes.warning(
                    "UnexpectedJob",
                    f"Saw a job that the controller did not create or forgot: {_name(job)}",
                )
            if ended and job_uid in listed:
                self.active = [each for each in self.active if each.get("uid") != job_uid]
                self.notes.normal("SawCompletedJob", f"Saw completed job: {_name(job)}, condition: {ended}")
            completed = status(job).get("completionTime")
            if ended == "Complete" and completed and completed > self._status.get("lastSuccessfulTime", ""):
                self._status["lastSuccessfulTime"] = completed

    def due_ms(self, schedule: cron.Schedule, now_ms: int) -> int | None:
        """The time for which a Job is to be made now; None, with an Event where one was missed."""
        since_ms = parse_ms(self._status.get("lastScheduleTime"))
        if since_ms is None:
            since_ms = parse_ms(self.owner["metadata"]["creationTimestamp"]) or now_ms
        deadline_s = self.spec.get("startingDeadlineSeconds")
        earliest_ms = since_ms if deadline_s is None else max(since_ms, now_ms - deadline_s * 1000)
        due_ms = cron.latest(schedule, earliest_ms, now_ms)
        if due_ms is None:
            missed_ms = None if deadline_s is None else cron.latest(schedule, since_ms, now_ms)
            if missed_ms is not None:
                said = format_datetime(datetime.fromtimestamp(missed_ms / 1000, UTC))
                self.notes.warning("MissSchedule", f"Missed scheduled time to start a job: {said}")
            return None
        self._tell_missed(schedule, earliest_ms, now_ms)
        if any(each.get("name") == self._job_name(due_ms) for each in self.active):
            return None
        if self.spec.get("concurrencyPolicy") == "Forbid" and self.active:
            self.notes.normal(
                "JobAlreadyActive",
                "Not starting job because prior execution is running and concurrency policy is Forbid",
            )
            return None
        return due_ms

    def _tell_missed(self, schedule: cron.Schedule, since_ms: int, now_ms: int) -> None:
        first = schedule.after(since_ms)
        second = schedule.after(first) if first is not None else None
        if first is None or second is None or now_ms - first < MISSED_MAX * (second - first):
            return
        self.notes.warning(
            "TooManyMissedTimes",
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew",
        )

    def start(self, due_ms: int, schedule: cron.Schedule) -> None:
        """Stages the Job for a time, in place of those that still run where the policy is Replace."""
        metadata = self.owner["metadata"]
        if self.spec.get("concurrencyPolicy") == "Replace":
            for each in list(self.active):
                self._delete(str(each["name"]), each.get("uid"))
        name = self._job_name(due_ms)
        found = self._api.find(self.cluster, JOBS, metadata["namespace"], name)
        if found is None:
            found = self._create(name, due_ms, schedule)
        elif not controlled_by(found, self.owner):
            return
        if not _end(found):
            self.active.append(_reference(found))
        self._status["lastScheduleTime"] = rfc3339(due_ms)

    def _job_name(self, due_ms: int) -> str:
        return f"{_name(self.owner)}-{due_ms // 60_000}"

    def _create(self, name: str, due_ms: int, schedule: cron.Schedule) -> Object:
        template = self.spec.get("jobTemplate") or {}
        described = template.get("metadata") or {}
        zone = schedule.zone if isinstance(schedule, cron.Cron) else UTC
        at = datetime.fromtimestamp(due_ms / 1000, UTC).astimezone(zone)
        job: Object = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": self.owner["metadata"]["namespace"],
                "annotations": {
                    **(described.get("annotations") or {}),
                    SCHEDULED: at.isoformat().replace("+00:00", "Z"),
                },
                "ownerReferences": [owner_reference(self.owner)],
            },
            # A selector of its own would be one that the job's pods do not match.
            "spec": {
                name: value
                for name, value in (template.get("spec") or {}).items()
                if name not in ("selector", "manualSelector")
            },
        }
        if described.get("labels"):
            job["metadata"]["labels"] = dict(described["labels"])
        created = self._transaction.create(self.cluster, JOBS, job, partial(complete, JOBS))
        self.notes.normal("SuccessfulCreate", f"Created job {name}")
        return created

    def _delete(self, name: str, job_uid: object) -> None:
        self._transaction.delete(self.cluster, JOBS, self.owner["metadata"]["namespace"], name)
        self.active = [each for each in self.active if each.get("uid") != job_uid]
        self.notes.normal("SuccessfulDelete", f"Deleted job {name}")

    def forget_finished(self) -> None:
        """Deletes the oldest of those that have ended, beyond the limits of the history."""
        for end, field, limit in (
            ("Complete", "successfulJobsHistoryLimit", 3),
            ("Failed", "failedJobsHistoryLimit", 1),
        ):
            ended = [job for job in self.jobs if _end(job) == end and not deleting(job)]
            ended.sort(key=lambda job: (status(job).get("startTime") or "~", _name(job)))
            for job in ended[: max(0, len(ended) - int(self.spec.get(field, limit)))]:
                self._delete(_name(job), uid(job))


def zone_of(name: str) -> tzinfo | None:
    """The time zone of this name; None where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _end(job: Object) -> str:
    """The condition with which the Job has ended; empty while it runs."""
    return next((each for each in ("Complete", "Failed") if is_true(job, each)), "")


def _reference(job: Object) -> Object:
    metadata = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": uid(job),
        **({"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}),
    }


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
