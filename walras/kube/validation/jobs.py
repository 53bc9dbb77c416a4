"""Jobs: rules of k8s.io/kubernetes/pkg/apis/batch/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Cause
from walras.kube.validation import names, walras
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import selects
from walras.kube.validation.pods import pod_template
from walras.kube.validation.workloads import job_selector

Object = Mapping[str, Any]

_COUNTS: Final = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
)  # fmt: skip
_FIXED: Final = (
    "selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy",
)  # fmt: skip
_LABELS: Final = (
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
)
_INDEXED_MAX: Final = 100_000
_RULES_MAX: Final = 20
_EXIT_CODES_MAX: Final = 255
_INDEXES_BYTES_MAX: Final = 64 * 1024
_ACTIONS: Final = ("Count", "FailIndex", "FailJob", "Ignore")
_STATES: Final = ("False", "True", "Unknown")
# What the template of a suspended job that has not started may still change.
_SCHEDULING: Final = ("nodeSelector", "tolerations", "affinity", "schedulingGates")


def job(faults: Faults, obj: Object, old: Object | None) -> None:
    walras.workload_annotations(faults, obj["metadata"].get("annotations"))
    spec, template = obj.get("spec") or {}, (obj.get("spec") or {}).get("template") or {}
    if not spec.get("manualSelector") and spec.get("selector") is not None and old is None:
        _generated_selector(faults, obj, spec, template)
    job_spec(faults, "spec", spec)
    _indexed_name(faults, obj, spec)
    job_selector(faults, spec, template)
    if old is not None:
        _update(faults, spec, old)


def job_spec(faults: Faults, path: str, spec: Object) -> None:
    """What a job and the job template of a CronJob have in common."""
    template = spec.get("template") or {}
    for field in _COUNTS:
        faults.nonnegative(f"{path}.{field}", spec.get(field))
    failed = spec.get("maxFailedIndexes")
    faults.nonnegative(f"{path}.maxFailedIndexes", failed)
    if failed is not None and spec.get("backoffLimitPerIndex") is None:
        faults.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified")
    if spec.get("managedBy") is not None:
        _manager(faults, f"{path}.managedBy", spec["managedBy"])
    _completion_mode(faults, path, spec)
    if spec.get("podFailurePolicy") is not None:
        _failure_policy(faults, f"{path}.podFailurePolicy.rules", spec, template)
    if spec.get("successPolicy") is not None:
        _success_policy(faults, f"{path}.successPolicy", spec)
    replacement = spec.get("podReplacementPolicy")
    policies = ("Failed",) if spec.get("podFailurePolicy") else ("Failed", "TerminatingOrFailed")
    if replacement is not None and replacement not in policies:
        faults.not_supported(f"{path}.podReplacementPolicy", replacement, policies)
    pod_template(faults, f"{path}.template", template)
    _restart(faults, f"{path}.template.spec.restartPolicy", spec, template)


def _manager(faults: Faults, path: str, manager: str) -> None:
    domain, slash, rest = manager.partition("/")
    if not manager:
        faults.required(path)
    elif not slash or not domain or not rest:
        detail = 'must be a domain-prefixed path (such as "acme.io/foo")'
        faults.invalid(path, manager, detail)
    else:
        faults.each(path, domain, names.dns_subdomain(domain))
    if len(manager) > 63:
        faults.too_long(path, 63)


def _generated_selector(faults: Faults, obj: Object, spec: Object, template: Object) -> None:
    meta, labels = obj.get("metadata") or {}, (template.get("metadata") or {}).get("labels") or {}
    if not meta.get("uid"):
        faults.required("metadata.uid")
    expected = {}
    for label, field in _LABELS:
        wanted = expected[label] = meta.get(field, "")
        if label not in labels:
            faults.required(f"spec.template.metadata.labels[{label}]", f"must be '{wanted}'")
        elif labels[label] != wanted:
            faults.invalid(f"spec.template.metadata.labels[{label}]", labels[label], f"must be '{wanted}'")
    if not selects(spec["selector"], expected):
        faults.invalid("spec.selector", spec["selector"], "`selector` not auto-generated")


def _completion_mode(faults: Faults, path: str, spec: Object) -> None:
    mode, failed = spec.get("completionMode", "NonIndexed"), spec.get("maxFailedIndexes")
    if mode not in ("NonIndexed", "Indexed"):
        faults.not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode == "NonIndexed":
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                faults.invalid(f"{path}.{field}", spec[field], "requires indexed completion mode")
    if mode != "Indexed":
        return
    completions = spec.get("completions")
    if completions is None:
        faults.required(f"{path}.completions", "when completion mode is Indexed")
    if (spec.get("parallelism") or 0) > _INDEXED_MAX:
        detail = f"must be less than or equal to {_INDEXED_MAX} when completion mode is Indexed"
        faults.invalid(f"{path}.parallelism", spec["parallelism"], detail)
    if completions is not None and failed is not None and failed > completions:
        faults.invalid(f"{path}.maxFailedIndexes", failed, "must be less than or equal to completions")
    if failed is not None and failed > _INDEXED_MAX:
        faults.invalid(f"{path}.maxFailedIndexes", failed, f"must be less than or equal to {_INDEXED_MAX}")


def _indexed_name(faults: Faults, obj: Object, spec: Object) -> None:
    name, completions = (obj.get("metadata") or {}).get("name", ""), spec.get("completions") or 0
    last = f"{name}-{completions - 1}"
    if spec.get("completionMode") == "Indexed" and completions > 0 and names.dns_label(last):
        detail = f"will not able to create pod with invalid DNS label: {last}"
        faults.invalid("metadata.name", name, detail)


def _failure_policy(faults: Faults, path: str, spec: Object, template: Object) -> None:
    rules, pod = spec["podFailurePolicy"].get("rules") or (), template.get("spec") or {}
    if len(rules) > _RULES_MAX:
        faults.too_many(path, len(rules), _RULES_MAX)
    known = {each.get("name") for part in ("containers", "initContainers") for each in pod.get(part) or ()}
    for index, rule in enumerate(rules):
        at, action, codes = f"{path}[{index}]", rule.get("action", ""), rule.get("onExitCodes")
        if not action:
            faults.required(f"{at}.action", f"valid values: [{' '.join(map(_quoted, _ACTIONS))}]")
        elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            faults.invalid(f"{at}.action", action, "requires the backoffLimitPerIndex to be set")
        elif action not in _ACTIONS:
            faults.not_supported(f"{at}.action", action, _ACTIONS)
        if codes is not None:
            _exit_codes(faults, f"{at}.onExitCodes", codes, known)
        conditions = rule.get("onPodConditions") or ()
        for number, pattern in enumerate(conditions):
            where = f"{at}.onPodConditions[{number}]"
            kind = pattern.get("type", "")
            faults.each(f"{where}.type", kind, names.qualified_name(kind))
            if pattern.get("status") not in _STATES:
                faults.not_supported(f"{where}.status", pattern.get("status", ""), _STATES)
        if (codes is None) == (not conditions):
            said = "one of OnExitCodes and OnPodConditions is required"
            both = "both OnExitCodes and OnPodConditions is not supported"
            detail = f"specifying {both if conditions else said}"
            faults.append(Cause("FieldValueInvalid", f"Invalid value: {detail}", at))


def _quoted(text: str) -> str:
    return f'"{text}"'


def _exit_codes(faults: Faults, path: str, codes: Object, known: set[Any]) -> None:
    operator, values = codes.get("operator", ""), codes.get("values") or []
    if operator not in ("In", "NotIn"):
        faults.not_supported(f"{path}.operator", operator, ("In", "NotIn"))
    if codes.get("containerName") is not None and codes["containerName"] not in known:
        detail = "must be one of the container or initContainer names in the pod template"
        faults.invalid(f"{path}.containerName", codes["containerName"], detail)
    if not values:
        faults.invalid(f"{path}.values", values, "at least one value is required")
    elif len(values) > _EXIT_CODES_MAX:
        faults.too_many(f"{path}.values", len(values), _EXIT_CODES_MAX)
    seen: set[int] = set()
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            faults.invalid(f"{path}.values[{index}]", value, "must not be 0 for the In operator")
        if value in seen:
            faults.duplicate(f"{path}.values[{index}]", value)
        seen.add(value)
    if values != sorted(values):
        faults.invalid(f"{path}.values", values, "must be ordered")


def _success_policy(faults: Faults, path: str, spec: Object) -> None:
    policy, completions = spec["successPolicy"], spec.get("completions") or 0
    if spec.get("completionMode", "NonIndexed") != "Indexed":
        faults.invalid(path, policy, "requires indexed completion mode")
        return
    rules = policy.get("rules") or ()
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        faults.required(f"{path}.rules", detail)
    if len(rules) > _RULES_MAX:
        faults.too_many(f"{path}.rules", len(rules), _RULES_MAX)
    for index, rule in enumerate(rules):
        at, count, indexes = (
            f"{path}.rules[{index}]",
            rule.get("succeededCount"),
            rule.get("succeededIndexes"),
        )
        if count is None and indexes is None:
            faults.required(at, "at least one of succeededCount or succeededIndexes must be specified")
        if indexes is not None and len(indexes) > _INDEXES_BYTES_MAX:
            faults.too_long(f"{at}.succeededIndexes", _INDEXES_BYTES_MAX)
        faults.nonnegative(f"{at}.succeededCount", count)
        if count is not None and count > completions:
            detail = f"must be less than or equal to {completions} (the number of specified completions)"
            faults.invalid(f"{at}.succeededCount", count, detail)


def _restart(faults: Faults, path: str, spec: Object, template: Object) -> None:
    policy = (template.get("spec") or {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        faults.required(path, 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        faults.not_supported(path, policy, ("OnFailure", "Never"))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        faults.invalid(path, policy, 'only "Never" is supported when podFailurePolicy is specified')


def _update(faults: Faults, spec: Object, old: Object) -> None:
    was, status = old.get("spec") or {}, old.get("status") or {}
    if spec.get("completionMode") != "Indexed":
        faults.immutable("spec.completions", spec.get("completions"), was.get("completions"))
    elif spec.get("completions") not in (was.get("completions"), spec.get("parallelism")):
        detail = "can only be modified in tandem with spec.parallelism"
        faults.invalid("spec.completions", spec.get("completions"), detail)
    for field in _FIXED:
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
