"""Roles and bindings: rules of k8s.io/kubernetes/pkg/apis/rbac/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import label_selector

Object = Mapping[str, Any]

GROUP: Final = "rbac.authorization.k8s.io"


def path_segment(name: str) -> list[str]:
    """What is wrong with a name that may have any form that a path can hold."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{odd}'" for odd in ("/", "%") if odd in name]


def role(faults: Faults, obj: Object, _: Object | None) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(faults, f"rules[{index}]", rule, namespaced=True)


def cluster_role(faults: Faults, obj: Object, _: Object | None) -> None:
    for index, rule in enumerate(obj.get("rules") or ()):
        _rule(faults, f"rules[{index}]", rule, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is None:
        return
    path, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or ()
    if not selectors:
        faults.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
    for index, selector in enumerate(selectors):
        label_selector(faults, f"{path}[{index}]", selector)


def _rule(faults: Faults, path: str, rule: Object, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        faults.required(f"{path}.verbs", "verbs must contain at least one value")
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            faults.invalid(
                f"{path}.nonResourceURLs", urls, "namespaced rules cannot apply to non-resource URLs"
            )
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            faults.invalid(f"{path}.nonResourceURLs", urls, why)
        return
    if not rule.get("apiGroups"):
        faults.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        faults.required(f"{path}.resources", "resource rules must supply at least one resource")


def role_binding(faults: Faults, obj: Object, old: Object | None) -> None:
    _binding(faults, obj, old, ("Role", "ClusterRole"))


def cluster_role_binding(faults: Faults, obj: Object, old: Object | None) -> None:
    _binding(faults, obj, old, ("ClusterRole",))


def _binding(faults: Faults, obj: Object, old: Object | None, kinds: tuple[str, ...]) -> None:
    reference = obj.get("roleRef") or {}
    if reference.get("apiGroup") != GROUP:
        faults.not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (GROUP,))
    if reference.get("kind") not in kinds:
        faults.not_supported("roleRef.kind", reference.get("kind") or "", kinds)
    name = str(reference.get("name") or "")
    if not name:
        faults.required("roleRef.name")
    else:
        faults.each("roleRef.name", name, path_segment(name))
    for index, subject in enumerate(obj.get("subjects") or ()):
        _subject(faults, f"subjects[{index}]", subject, namespaced="Role" in kinds)
    if old is not None and reference != old.get("roleRef"):
        group, kind, name = (reference.get(field, "") for field in ("apiGroup", "kind", "name"))
        shown = go(APIGroup=group, Kind=kind, Name=name)
        faults.invalid("roleRef", shown, "cannot change roleRef")


def _subject(faults: Faults, path: str, subject: Object, *, namespaced: bool) -> None:
    name, kind = str(subject.get("name") or ""), subject.get("kind")
    group = subject.get("apiGroup") or ""
    if not name:
        faults.required(f"{path}.name")
    if kind == "ServiceAccount":
        if name:
            faults.each(f"{path}.name", name, names.dns_subdomain(name))
        if group:
            faults.not_supported(f"{path}.apiGroup", group, ("",))
        if not namespaced and not subject.get("namespace"):
            faults.required(f"{path}.namespace")
    elif kind in ("User", "Group"):
        if group != GROUP:
            faults.not_supported(f"{path}.apiGroup", group, (GROUP,))
    else:
        faults.not_supported(f"{path}.kind", kind or "", ("ServiceAccount", "User", "Group"))
