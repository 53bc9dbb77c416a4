"""Deployments and ReplicaSets: rules of k8s.io/kubernetes/pkg/apis/apps/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.kube.validation import names, walras
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector, selects
from walras.kube.validation.pods import pod_template
from walras.kube.validation.sets import replica_counts

Object = Mapping[str, Any]


def _selector(faults: Faults, spec: Object, template: Object, path: str) -> None:
    selector = spec.get("selector")
    labels = (template.get("metadata") or {}).get("labels")
    if selector is None:
        faults.required("spec.selector")
    else:
        label_selector(faults, "spec.selector", selector)
    # A selector that is missing selects nothing.
    if selector is None or not selects(selector, labels or {}):
        faults.invalid(path, labels, "`selector` does not match template `labels`")


def job_selector(faults: Faults, spec: Object, template: Object) -> None:
    """The selector of a job, and the labels of its pods that it is to select."""
    _selector(faults, spec, template, "spec.template.metadata.labels")


def replica_set(faults: Faults, obj: Object, old: Object | None) -> None:
    walras.workload_annotations(faults, obj["metadata"].get("annotations"))
    spec = obj.get("spec") or {}
    _replicated(faults, spec)
    if old is not None:
        faults.immutable("spec.selector", spec.get("selector"), (old.get("spec") or {}).get("selector"))
        replica_counts(faults, obj)


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
