"""LimitRanges and ResourceQuotas: rules of k8s.io/kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_STANDARD: Final = frozenset(
    (
        *_COMPUTE, *(f"{way}.{name}" for way in ("requests", "limits") for name in _COMPUTE), "pods",
        "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports",
        "services.loadbalancers",
    )
)  # fmt: skip
_OF_PODS: Final = frozenset(("pods", *(name for name in _STANDARD if name.rpartition(".")[2] in _COMPUTE)))
_SCOPES: Final = (
    "BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass",
    "Terminating", "VolumeAttributesClass",
)  # fmt: skip
_CONFLICTS: Final = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_ONE_OF_A_KIND: Final = ("hugepages-", "requests.hugepages-")


def _resource_name(faults: Faults, path: str, name: str, kind: str) -> None:
    faults.each(path, name, names.qualified_name(name))
    if "/" in name:
        return
    if not names.qualified_name(name) and not _is_standard(name, "quota"):
        faults.invalid(path, name, "must be a standard resource type or fully qualified")
    if not _is_standard(name, kind):
        faults.invalid(path, name, f"must be a standard resource for {kind}")


def _is_standard(name: str, kind: str) -> bool:
    huge = name.startswith(_ONE_OF_A_KIND)
    if kind == "containers":
        return name in _COMPUTE or huge
    return name in _STANDARD or huge


def _limit_name(faults: Faults, path: str, name: str, kind: str) -> None:
    """A resource of a LimitRange; of containers and pods only what they can ask for."""
    if kind in ("Container", "Pod"):
        faults.each(path, name, names.qualified_name(name))
        if "/" not in name:
            if not names.qualified_name(name) and not _is_standard(name, "quota"):
                faults.invalid(path, name, "must be a standard resource type or fully qualified")
            if not _is_standard(name, "containers"):
                faults.invalid(path, name, "must be a standard resource for containers")
    else:
        faults.each(path, name, names.qualified_name(name))
        if "/" not in name and not names.qualified_name(name) and not _is_standard(name, "quota"):
            faults.invalid(path, name, "must be a standard resource type or fully qualified")


def limit_range(faults: Faults, obj: Object, _old: Object | None) -> None:
    seen: set[str] = set()
    for index, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{index}]", item.get("type") or ""
        if not kind:
            faults.required(f"{path}.type")
        else:
            faults.each(f"{path}.type", kind, names.qualified_name(kind))
            plain = "/" not in kind and not names.qualified_name(kind)
            if plain and kind not in ("Container", "PersistentVolumeClaim", "Pod"):
                faults.invalid(f"{path}.type", kind, "must be a standard limit type or fully qualified")
        if kind in seen:
            faults.duplicate(f"{path}.type", kind)
        seen.add(kind)
        _item(faults, path, item, kind)


def _item(faults: Faults, path: str, item: Object, kind: str) -> None:
    names_of = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
    amounts = {field: dict(item.get(field) or {}) for field in names_of}
    for field in names_of:
        if kind == "Pod" and field in ("default", "defaultRequest") and amounts[field]:
            faults.forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
            amounts[field] = {}
        for name in sorted(amounts[field]):
            _limit_name(faults, f"{path}.{field}[{name}]", name, kind)
    if kind == "PersistentVolumeClaim" and not {"storage"} & {*amounts["min"], *amounts["max"]}:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        faults.required(f"{path}.limits", detail)
    for name in sorted({name for field in amounts.values() for name in field}):
        _compare(faults, path, name, {field: given.get(name) for field, given in amounts.items()})


# (smaller, larger, field that is at fault, value shown, words).
_ORDER: Final = (
    ("min", "max", "min", "min", "min value {0} is greater than max value {1}"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest",
     "min value {0} is greater than default request value {1}"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest",
     "default request value {0} is greater than max value {1}"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest",
     "default request value {0} is greater than default limit value {1}"),
    ("min", "default", "default", "min", "min value {0} is greater than default value {1}"),
    ("default", "max", "default", "max", "default value {0} is greater than max value {1}"),
)  # fmt: skip


def _compare(faults: Faults, path: str, name: str, of: Mapping[str, Any]) -> None:
    for small, large, field, shown, words in _ORDER:
        low, high = of[small], of[large]
        if low is not None and high is not None and parse_milli(low) > parse_milli(high):
            faults.invalid(f"{path}.{field}[{name}]", of[shown], words.format(low, high))
    ratio = of["maxLimitRequestRatio"]
    if ratio is not None and parse_milli(ratio) < 1000:
        faults.invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1")
    if ratio is not None and of["min"] is not None and of["max"] is not None and parse_milli(of["min"]):
        most = parse_milli(of["max"]) / parse_milli(of["min"])
        if parse_milli(ratio) / 1000 > most:
            detail = f"ratio {ratio} is greater than max/min = {most:f}"
            faults.invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, detail)


def quota(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    hard = spec.get("hard") or {}
    for name, amount in hard.items():
        path = f"spec.hard[{name}]"
        _resource_name(faults, path, name, "quota")
        if parse_milli(amount) < 0:
            faults.invalid(path, amount, "must be greater than or equal to 0")
        elif "/" not in name and name not in _OF_PODS and parse_milli(amount) % 1000:
            faults.invalid(path, amount, "must be an integer")
    scopes: list[str] = list(spec.get("scopes") or ())
    for scope in scopes:
        if scope not in _SCOPES:
            faults.invalid("spec.scopes", scopes, "unsupported scope")
        for name in sorted(hard):
            if name in _STANDARD and not _applies(scope, name):
                faults.invalid("spec.scopes", scopes, "unsupported scope applied to resource")
    for pair in _CONFLICTS:
        if pair <= {*scopes}:
            faults.invalid("spec.scopes", scopes, "conflicting scopes")
    if spec.get("scopeSelector") is not None:
        _selector(faults, "spec.scopeSelector.matchExpressions", spec["scopeSelector"], hard)
    if old is not None:
        before = (old.get("spec") or {}).get("scopes") or ()
        if {*scopes} != {*before}:
            faults.invalid("spec.scopes", scopes, "field is immutable")


def _applies(scope: str, name: str) -> bool:
    if scope == "BestEffort":
        return name == "pods"
    if scope in (
        "Terminating",
        "NotTerminating",
        "NotBestEffort",
        "PriorityClass",
        "CrossNamespacePodAffinity",
    ):
        return name in _OF_PODS
    return True


def _selector(faults: Faults, path: str, selector: Object, hard: Object) -> None:
    for requirement in selector.get("matchExpressions") or ():
        scope, operator = requirement.get("scopeName", ""), requirement.get("operator", "")
        values = requirement.get("values") or []
        if scope not in _SCOPES:
            faults.invalid(f"{path}.scopeName", scope, "unsupported scope")
        for name in sorted(hard):
            if name in _STANDARD and scope in _SCOPES and not _applies(scope, name):
                faults.invalid(path, selector, "unsupported scope applied to resource")
        if operator in ("In", "NotIn") and not values:
            detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            faults.required(f"{path}.values", detail)
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector"
            faults.invalid(f"{path}.values", values, detail)
        elif operator not in _OPERATORS:
            faults.invalid(f"{path}.operator", operator, "not a valid selector operator")
