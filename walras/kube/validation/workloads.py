"""Jobs, Deployments, ReplicaSets: rules of k8s.io/kubernetes/pkg/apis/{batch,apps}/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names, walras
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector, selects
from walras.kube.validation.pods import pod_template

Object = Mapping[str, Any]

_JOB_COUNTS: Final = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
_JOB_FIXED: Final = (
    "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy",
)  # fmt: skip
_JOB_LABELS: Final = (
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
)
_INDEXED_PARALLELISM_MAX: Final = 100_000
# What the template of a suspended job that has not started may still change.
_SCHEDULING: Final = ("nodeSelector", "tolerations", "affinity", "schedulingGates")


def job(faults: Faults, obj: Object, old: Object | None) -> None:
    walras.workload_annotations(faults, obj["metadata"].get("annotations"))
    spec, template = obj.get("spec") or {}, (obj.get("spec") or {}).get("template") or {}
    if not spec.get("manualSelector") and spec.get("selector") is not None and old is None:
        _generated_selector(faults, obj, spec, template)
    for field in _JOB_COUNTS:
        faults.nonnegative(f"spec.{field}", spec.get(field))
    _completion_mode(faults, obj, spec)
    replacement = spec.get("podReplacementPolicy")
    policies = ("Failed",) if spec.get("podFailurePolicy") else ("Failed", "TerminatingOrFailed")
    if replacement is not None and replacement not in policies:
        faults.not_supported("spec.podReplacementPolicy", replacement, policies)
    pod_template(faults, "spec.template", template)
    _job_restart(faults, spec, template)
    _selector(faults, spec, template, "spec.template.metadata.labels")
    if old is not None:
        _job_update(faults, spec, old)


def _generated_selector(faults: Faults, obj: Object, spec: Object, template: Object) -> None:
    meta, labels = obj.get("metadata") or {}, (template.get("metadata") or {}).get("labels") or {}
    if not meta.get("uid"):
        faults.required("metadata.uid")
    expected = {}
    for label, field in _JOB_LABELS:
        wanted = expected[label] = meta.get(field, "")
        if label not in labels:
            faults.required(f"spec.template.metadata.labels[{label}]", f"must be '{wanted}'")
        elif labels[label] != wanted:
            faults.invalid(f"spec.template.metadata.labels[{label}]", labels[label], f"must be '{wanted}'")
    if not selects(spec["selector"], expected):
        faults.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def _completion_mode(faults: Faults, obj: Object, spec: Object) -> None:
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("NonIndexed", "Indexed"):
        faults.not_supported("spec.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode != "Indexed":
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                faults.invalid(f"spec.{field}", spec[field], "requires indexed completion mode")
        if spec.get("successPolicy") is not None:
            faults.invalid("spec.successPolicy", spec["successPolicy"], "requires indexed completion mode")
        return
    completions = spec.get("completions")
    if completions is None:
        faults.required("spec.completions", "when completion mode is Indexed")
        return
    if spec.get("parallelism", 0) > _INDEXED_PARALLELISM_MAX:
        detail = f"must be less than or equal to {_INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        faults.invalid("spec.parallelism", spec["parallelism"], detail)
    last = f"{(obj.get('metadata') or {}).get('name', '')}-{completions - 1}"
    if completions > 0 and names.dns_label(last):
        detail = f"will not able to create pod with invalid DNS label: {last}"
        faults.invalid("metadata.name", (obj.get("metadata") or {}).get("name", ""), detail)


def _job_restart(faults: Faults, spec: Object, template: Object) -> None:
    path, policy = "spec.template.spec.restartPolicy", (template.get("spec") or {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        faults.required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        faults.not_supported(path, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") and policy != "Never":
        faults.invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')


def _job_update(faults: Faults, spec: Object, old: Object) -> None:
    was, status = old.get("spec") or {}, old.get("status") or {}
    if spec.get("completionMode") != "Indexed":
        faults.immutable("spec.completions", spec.get("completions"), was.get("completions"))
    elif spec.get("completions") not in (was.get("completions"), spec.get("parallelism")):
        detail = "can only be modified in tandem with spec.parallelism"
        faults.invalid("spec.completions", spec.get("completions"), detail)
    for field in _JOB_FIXED:
        faults.immutable(f"spec.{field}", spec.get(field), was.get(field))
    template, before = spec.get("template"), was.get("template")
    if was.get("suspend") and not status.get("startTime"):
        template, before = _without_scheduling(template), _without_scheduling(before)
    if template != before:
        faults.invalid("spec.template", spec.get("template"), "field is immutable")


def _without_scheduling(template: Any) -> Object:
    """What must stay of a job's template until the job starts."""
    spec = {k: v for k, v in (template.get("spec") or {}).items() if k not in _SCHEDULING}
    return {**template, "metadata": None, "spec": spec}


def _selector(faults: Faults, spec: Object, template: Object, path: str) -> None:
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        faults.required("spec.selector")
    else:
        label_selector(faults, "spec.selector", selector)
    # A selector that is missing selects nothing.
    if selector is None or not selects(selector, labels):
        faults.invalid(path, labels, "`selector` does not match template `labels`")


def replica_set(faults: Faults, obj: Object, old: Object | None) -> None:
    walras.workload_annotations(faults, obj["metadata"].get("annotations"))
    spec = obj.get("spec") or {}
    _replicated(faults, spec)
    if old is not None:
        faults.immutable("spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))


def _replicated(faults: Faults, spec: Object) -> None:
    """What ReplicaSets and Deployments share."""
    template = spec.get("template") or {}
    for field in ("replicas", "minReadySeconds"):
        faults.nonnegative(f"spec.{field}", spec.get(field))
    selector = spec.get("selector")
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        faults.invalid("spec.selector", selector, "empty selector is invalid for deployment")
    _selector(faults, spec, template, "spec.template.metadata.labels")
    pod_template(faults, "spec.template", template)
    inner = template.get("spec") or {}
    if inner.get("restartPolicy") != "Always":
        faults.not_supported("spec.template.spec.restartPolicy", inner.get("restartPolicy", ""), ("Always",))
    if inner.get("activeDeadlineSeconds") is not None:
        detail = "activeDeadlineSeconds in ReplicaSet is not Supported"
        faults.forbidden("spec.template.spec.activeDeadlineSeconds", detail)


def deployment(faults: Faults, obj: Object, old: Object | None) -> None:
    walras.workload_annotations(faults, obj["metadata"].get("annotations"))
    spec = obj.get("spec") or {}
    _replicated(faults, spec)
    _strategy(faults, spec.get("strategy") or {})
    faults.nonnegative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    progress = spec.get("progressDeadlineSeconds")
    faults.nonnegative("spec.progressDeadlineSeconds", progress)
    if progress is not None and progress <= spec.get("minReadySeconds", 0):
        faults.invalid("spec.progressDeadlineSeconds", progress, "must be greater than minReadySeconds")
    if old is not None:
        faults.immutable("spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))


def _strategy(faults: Faults, strategy: Object) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            faults.forbidden("spec.strategy.rollingUpdate", detail)
        return
    if kind != "RollingUpdate":
        faults.not_supported("spec.strategy", strategy, ("Recreate", "RollingUpdate"))
        return
    path, zeros = "spec.strategy.rollingUpdate", 0
    for field in ("maxUnavailable", "maxSurge"):
        value = (rolling or {}).get(field, "25%")
        if isinstance(value, str):
            faults.each(f"{path}.{field}", value, names.percent(value))
        else:
            faults.nonnegative(f"{path}.{field}", value)
        zeros += value in (0, "0%")
    most = (rolling or {}).get("maxUnavailable", "25%")
    if zeros == 2:
        faults.invalid(f"{path}.maxUnavailable", most, "may not be 0 when `maxSurge` is 0")
    if isinstance(most, str) and not names.percent(most) and int(most[:-1]) > 100:
        faults.invalid(f"{path}.maxUnavailable", most, "must not be greater than 100%")
