"""HorizontalPodAutoscalers and PodDisruptionBudgets: rules of pkg/apis/{autoscaling,policy}/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation.access import path_segment
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import label_selector
from walras.kube.validation.sets import share

Object = Mapping[str, Any]

_SOURCES: Final = ("ContainerResource", "External", "Object", "Pods", "Resource")
_POLICIES: Final = ("AlwaysAllow", "IfHealthyBudget")
# Seconds: of how long a stabilisation looks back, and of a policy's period.
_WINDOW_MAX: Final = 3600
_PERIOD_MAX: Final = 1800


def autoscaler(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        faults.invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        faults.required("spec.maxReplicas", "must be set and greater than 0")
    if least is not None and most >= 1 and most < least:
        faults.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    _reference(faults, "spec.scaleTargetRef", spec.get("scaleTargetRef") or {}, "apiVersion")
    for index, metric in enumerate(spec.get("metrics") or ()):
        _metric(faults, f"spec.metrics[{index}]", metric)
    behavior = spec.get("behavior") or {}
    for way in ("scaleUp", "scaleDown"):
        if behavior.get(way) is not None:
            _rules(faults, f"spec.behavior.{way}", behavior[way])


def _reference(faults: Faults, path: str, reference: Object, version: str) -> None:
    for field in ("kind", "name"):
        value = reference.get(field, "")
        if not value:
            faults.required(f"{path}.{field}")
        else:
            faults.each(f"{path}.{field}", value, path_segment(value))
    said = str(reference.get("apiVersion", ""))
    if not version:
        return
    if said.count("/") > 1:
        faults.invalid(f"{path}.{version}", said, f"unexpected GroupVersion string: {said}")
    elif not said or ("/" not in said and said != "v1"):
        faults.invalid(f"{path}.{version}", said, "apiVersion must specify API group")


def _metric(faults: Faults, path: str, metric: Object) -> None:
    kind = metric.get("type", "")
    if not kind:
        faults.required(f"{path}.type", "must specify a metric source type")
        return
    if kind not in _SOURCES:
        # Upstream says so twice.
        for _ in range(2):
            faults.not_supported(f"{path}.type", kind, _SOURCES)
        return
    field = kind[:1].lower() + kind[1:]
    source = metric.get(field)
    others = [
        name for name in _SOURCES if name != kind and metric.get(name[:1].lower() + name[1:]) is not None
    ]
    if source is None:
        faults.required(f"{path}.{field}", "must populate information for the given metric source")
    for other in others:
        detail = "must populate the given metric source only"
        faults.forbidden(f"{path}.{other[:1].lower()}{other[1:]}", detail)
    if source is not None:
        _source(faults, f"{path}.{field}", kind, source)


def _source(faults: Faults, path: str, kind: str, source: Object) -> None:
    target = source.get("target") or {}
    if kind == "Object":
        _reference(faults, f"{path}.describedObject", source.get("describedObject") or {}, "")
    if kind in ("Object", "Pods", "External"):
        _identifier(faults, f"{path}.metric", source.get("metric") or {})
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            faults.required(f"{path}.name", "must specify a resource name")
        if kind == "ContainerResource" and not source.get("container"):
            faults.required(f"{path}.container", "must specify a container name")
    _target(faults, f"{path}.target", target)
    value, average, utilization = (
        target.get(name) for name in ("value", "averageValue", "averageUtilization")
    )
    path = f"{path}.target"
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and average is None:
            faults.required(
                f"{path}.averageUtilization", "must set either a target raw value or a target utilization"
            )
        if utilization is not None and average is not None:
            faults.forbidden(
                f"{path}.averageValue", "may not set both a target raw value and a target utilization"
            )
    elif kind == "Pods":
        if average is None or parse_milli(average) <= 0:
            faults.required(f"{path}.averageValue", "must specify a positive target averageValue")
    elif value is None and average is None:
        detail = "must set either a target value for metric or a per-pod target"
        faults.required(f"{path}.averageValue", detail)
    elif kind == "External" and value is not None and average is not None:
        faults.forbidden(f"{path}.value", "may not set both a target value for metric and a per-pod target")


def _identifier(faults: Faults, path: str, metric: Object) -> None:
    name = metric.get("name", "")
    if not name:
        faults.required(f"{path}.name", "must specify a metric name")
    else:
        faults.each(f"{path}.name", name, path_segment(name))
    if metric.get("selector") is not None:
        label_selector(faults, f"{path}.selector", metric["selector"])


def _target(faults: Faults, path: str, target: Object) -> None:
    kind = target.get("type", "")
    if not kind:
        faults.required(f"{path}.type", "must specify a metric target type")
    elif kind not in ("Utilization", "Value", "AverageValue"):
        faults.invalid(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for field in ("value", "averageValue"):
        if target.get(field) is not None and parse_milli(target[field]) <= 0:
            faults.invalid(f"{path}.{field}", target[field], "must be positive")
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        faults.invalid(f"{path}.averageUtilization", utilization, "must be greater than 0")


def _rules(faults: Faults, path: str, rules: Object) -> None:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        faults.invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    if window is not None and window > _WINDOW_MAX:
        detail = f"must be less than or equal to {_WINDOW_MAX}"
        faults.invalid(f"{path}.stabilizationWindowSeconds", window, detail)
    policy = rules.get("selectPolicy")
    if policy is not None and policy not in ("Disabled", "Max", "Min"):
        faults.not_supported(f"{path}.selectPolicy", policy, ("Disabled", "Max", "Min"))
    if not rules.get("policies"):
        faults.required(f"{path}.policies", "must specify at least one Policy")
    for index, each in enumerate(rules.get("policies") or ()):
        at, period = f"{path}.policies[{index}]", each.get("periodSeconds") or 0
        if each.get("type") not in ("Percent", "Pods"):
            faults.not_supported(f"{at}.type", each.get("type", ""), ("Percent", "Pods"))
        if (each.get("value") or 0) <= 0:
            faults.invalid(f"{at}.value", each.get("value") or 0, "must be greater than zero")
        if period <= 0:
            faults.invalid(f"{at}.periodSeconds", period, "must be greater than zero")
        if period > _PERIOD_MAX:
            faults.invalid(f"{at}.periodSeconds", period, f"must be less than or equal to {_PERIOD_MAX}")
    tolerance = rules.get("tolerance")
    if tolerance is not None and parse_milli(tolerance) < 0:
        faults.invalid(f"{path}.tolerance", tolerance, "must be greater than or equal to 0")


def budget(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        shown = go(
            MinAvailable=least,
            Selector=spec.get("selector"),
            MaxUnavailable=most,
            UnhealthyPodEvictionPolicy=spec.get("unhealthyPodEvictionPolicy"),
        )
        faults.invalid("spec", shown, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        if spec.get(field) is not None:
            share(faults, f"spec.{field}", spec[field])
    if spec.get("selector") is not None:
        label_selector(faults, "spec.selector", spec["selector"])
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _POLICIES:
        faults.not_supported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES)
    status = obj.get("status") or {}
    for field in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        faults.nonnegative(f"status.{field}", status.get(field))
