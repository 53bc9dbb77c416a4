"""CronJobs: rules of pkg/apis/batch/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import available_timezones

from walras.core import cron
from walras.core.errors import BadRequest
from walras.kube.validation.faults import Faults
from walras.kube.validation.jobs import job_spec

Object = Mapping[str, Any]

# Eleven characters stay for what the Job's name adds.
_NAME_MAX: Final = 52
_POLICIES: Final = ("Allow", "Forbid", "Replace")


def cron_job(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    _schedule(faults, spec.get("schedule", ""))
    faults.nonnegative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    if spec.get("timeZone") is not None:
        _zone(faults, spec["timeZone"])
    faults.one_of("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), _POLICIES)
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    if job.get("manualSelector"):
        faults.not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    job_spec(faults, "spec.jobTemplate.spec", job)
    for field in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        faults.nonnegative(f"spec.{field}", spec.get(field))
    name = (obj.get("metadata") or {}).get("name", "")
    if old is None and len(name) > _NAME_MAX:
        faults.invalid("metadata.name", name, f"must be no more than {_NAME_MAX} characters")


def _schedule(faults: Faults, text: str) -> None:
    if not text:
        faults.required("spec.schedule")
        return
    if "TZ" in text:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        faults.invalid("spec.schedule", text, detail)
        return
    try:
        cron.parse(text)
    except BadRequest as error:
        faults.invalid("spec.schedule", text, error.message)


def _zone(faults: Faults, zone: str) -> None:
    if not zone:
        faults.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    elif zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        faults.invalid("spec.timeZone", zone, detail)
    elif zone not in available_timezones():
        faults.invalid("spec.timeZone", zone, f"unknown time zone {zone}")
