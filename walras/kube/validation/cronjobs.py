"""CronJobs: rules of pkg/apis/batch/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from zoneinfo import available_timezones

from walras.kube.validation.faults import Faults
from walras.kube.validation.jobs import job_spec

Object = Mapping[str, Any]

# Eleven characters stay for what the Job's name adds.
_NAME_MAX: Final = 52
_POLICIES: Final = ("Allow", "Forbid", "Replace")
_FIELDS: Final = 5


def cron_job(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    _schedule(faults, spec.get("schedule", ""), spec.get("timeZone"))
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


def _schedule(faults: Faults, text: str, zone: Any) -> None:
    if not text:
        faults.required("spec.schedule")
        return
    if "TZ" in text:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        faults.invalid("spec.schedule", text, detail)
        return
    parts = text.split()
    if not text.startswith("@") and len(parts) != _FIELDS:
        found = f"expected exactly {_FIELDS} fields, found {len(parts)}: [{' '.join(parts)}]"
        faults.invalid("spec.schedule", text, found)
    elif zone is None:
        return


def _zone(faults: Faults, zone: str) -> None:
    if not zone:
        faults.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    elif zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        faults.invalid("spec.timeZone", zone, detail)
    elif zone not in available_timezones():
        faults.invalid("spec.timeZone", zone, f"unknown time zone {zone}")
