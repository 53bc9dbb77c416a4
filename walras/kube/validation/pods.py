"""Pods and pod templates."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names, walras
from walras.kube.validation.containers import containers
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import check_annotations, check_labels, requirement
from walras.kube.validation.volumes import volumes

Object = Mapping[str, Any]

_INT32_MAX: Final = 2**31 - 1
_RESTART: Final = ("Always", "OnFailure", "Never")
_DNS: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_DIFF_LINES_MAX: Final = 60
_UPDATABLE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def pod(faults: Faults, obj: Object, old: Object | None) -> None:
    """A pod as it is created, or as an update would leave it."""
    spec = obj.get("spec") or {}
    pod_spec(faults, "spec", spec)
    annotations = (obj.get("metadata") or {}).get("annotations")
    walras.pod_annotations(faults, "metadata.annotations", annotations)
    if old is not None:
        _update(faults, spec, old.get("spec") or {})
        return
    walras.gpu_request(faults, "spec", spec)
    if spec.get("ephemeralContainers"):
        faults.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        faults.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")


def pod_template(faults: Faults, path: str, template: Object) -> None:
    """The template of a workload; what it says in annotations is the terms of its pods' bids."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    check_labels(faults, f"{path}.labels", meta.get("labels"))
    check_annotations(faults, f"{path}.annotations", meta.get("annotations"))
    walras.pod_annotations(faults, f"{path}.metadata.annotations", meta.get("annotations"))
    pod_spec(faults, f"{path}.spec", spec)
    walras.gpu_request(faults, f"{path}.spec", spec)
    if spec.get("ephemeralContainers"):
        faults.forbidden(
            f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"
        )


def pod_spec(faults: Faults, path: str, spec: Object) -> None:
    """What a pod's spec and a template's have in common."""
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        faults.required(f"{path}.terminationGracePeriodSeconds")
    good = volumes(faults, f"{path}.volumes", spec.get("volumes") or ())
    containers(faults, path, spec, good)
    faults.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART)
    faults.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS)
    check_labels(faults, f"{path}.nodeSelector", spec.get("nodeSelector"))
    _affinity(faults, f"{path}.affinity", spec.get("affinity") or {})
    _gates(faults, f"{path}.schedulingGates", spec.get("schedulingGates") or ())
    for field, check in (
        ("serviceAccountName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
        ("priorityClassName", names.dns_subdomain),
        ("runtimeClassName", names.dns_subdomain),
    ):
        if spec.get(field):
            faults.each(f"{path}.{field}", spec[field], check(spec[field]))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _INT32_MAX:
        detail = f"must be between 1 and {_INT32_MAX}, inclusive"
        faults.invalid(f"{path}.activeDeadlineSeconds", deadline, detail)
    tolerations(faults, f"{path}.tolerations", spec.get("tolerations") or ())
    if spec.get("preemptionPolicy") is not None:
        policies = ("PreemptLowerPriority", "Never")
        faults.one_of(f"{path}.preemptionPolicy", spec["preemptionPolicy"], policies)


def tolerations(faults: Faults, path: str, given: Any) -> None:
    for index, toleration in enumerate(given):
        at, operator = f"{path}[{index}]", toleration.get("operator", "")
        key, value = toleration.get("key", ""), toleration.get("value", "")
        if key:
            faults.each(f"{at}.key", key, names.qualified_name(key))
        elif operator != "Exists":
            detail = (
                'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            )
            faults.invalid(f"{at}.operator", operator, detail)
        effect = toleration.get("effect", "")
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            faults.invalid(f"{at}.effect", effect, detail)
        if operator in ("", "Equal"):
            said = names.label_value(value)
            if said:
                faults.invalid(f"{at}.operator", value, ";".join(said))
        elif operator == "Exists":
            if value:
                faults.invalid(f"{at}.operator", value, "value must be empty when `operator` is 'Exists'")
        else:
            faults.not_supported(f"{at}.operator", operator, ("Equal", "Exists"))
        if effect and effect not in _EFFECTS:
            faults.not_supported(f"{at}.effect", effect, _EFFECTS)


def _affinity(faults: Faults, path: str, affinity: Object) -> None:
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None:
        at = f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        if not required.get("nodeSelectorTerms"):
            faults.required(at, "must have at least one node selector term")
        for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
            _term(faults, f"{at}[{index}]", term)
    preferred = node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    for index, choice in enumerate(preferred):
        at = f"{path}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        if not 1 <= choice.get("weight", 0) <= 100:
            faults.invalid(f"{at}.weight", choice.get("weight", 0), "must be in the range 1-100")
        # A value that is none is only warned of here.
        _term(faults, f"{at}.preference", choice.get("preference") or {}, values=False)


def _term(faults: Faults, path: str, term: Object, *, values: bool = True) -> None:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        requirement(faults, at, expression, numeric=True, any_value=not values)


def _gates(faults: Faults, path: str, gates: Any) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name", "")
        faults.each(f"{path}[{index}]", name, names.qualified_name(name))
        if name in seen:
            faults.duplicate(f"{path}[{index}]", name)
        seen.add(name)


def _update(faults: Faults, spec: Object, old: Object) -> None:
    """Only a few fields of a pod may change once it exists."""
    if spec == old:
        return
    for field in ("containers", "initContainers"):
        if len(spec.get(field) or ()) != len(old.get(field) or ()):
            faults.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
        for index, container in enumerate(spec.get(field) or ()):
            image = container.get("image", "")
            if image.strip() != image:
                detail = "must not have leading or trailing whitespace"
                faults.invalid(f"spec.{field}[{index}].image", image, detail)
    if not _deadline_update(faults, spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")):
        return
    _toleration_update(faults, spec.get("tolerations") or [], old.get("tolerations") or [])
    gates = [gate.get("name") for gate in old.get("schedulingGates") or ()]
    for gate in spec.get("schedulingGates") or ():
        if gate.get("name") not in gates:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            faults.forbidden("spec.schedulingGates", detail)
    munged = _munged(spec, old)
    if munged != old:
        faults.forbidden(
            "spec", f"pod updates may not change fields other than {_UPDATABLE}\n{_diff(old, munged)}"
        )


def _deadline_update(faults: Faults, new: int | None, old: int | None) -> bool:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        if old is not None:
            faults.invalid(path, None, "must not update from a positive integer to nil value")
    elif old is not None and new > old:
        faults.invalid(path, new, "must be less than or equal to previous value")
        return False
    return True


def _toleration_update(faults: Faults, new: list[Object], old: list[Object]) -> None:
    def bare(toleration: Object) -> Object:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [bare(toleration) for toleration in new]
    if any(bare(toleration) not in kept for toleration in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        faults.forbidden("spec.tolerations", detail)


def _munged(spec: Object, old: Object) -> Object:
    """The new spec with what may change set back to the old."""
    munged = dict(spec)
    for field in ("containers", "initContainers"):
        if spec.get(field):
            munged[field] = [
                {**new, "image": before.get("image")}
                for new, before in zip(spec[field], old[field], strict=True)
            ]
    restored = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    was = old.get("terminationGracePeriodSeconds")
    if was is not None and was < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        restored.append("terminationGracePeriodSeconds")
    for field in restored:
        munged.pop(field, None)
        if field in old:
            munged[field] = old[field]
    return munged


def _diff(old: Object, new: Object) -> str:
    before, after = (json.dumps(value, indent=2, sort_keys=True).splitlines() for value in (old, new))
    lines = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
    return "\n".join(lines[:_DIFF_LINES_MAX]) + "\n"
