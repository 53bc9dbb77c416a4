"""Where a pod may be placed: affinities, tolerations, spreading, gates, as pkg/apis/core has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector, requirement

Object = Mapping[str, Any]

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OTHERWISE: Final = ("DoNotSchedule", "ScheduleAnyway")
_INCLUSIONS: Final = ("Honor", "Ignore")
_WEIGHT: Final = "must be in the range 1-100"


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
        elif operator in ("Lt", "Gt"):
            # Of a feature that is off.
            faults.not_supported(f"{at}.operator", operator, ("Equal", "Exists", "Lt", "Gt"))
        else:
            faults.not_supported(f"{at}.operator", operator, ("Equal", "Exists"))
        if effect and effect not in _EFFECTS:
            faults.not_supported(f"{at}.effect", effect, _EFFECTS)


def affinity(faults: Faults, path: str, given: Object) -> None:
    node = given.get("nodeAffinity") or {}
    required = node.get(_REQUIRED)
    if required is not None:
        at = f"{path}.nodeAffinity.{_REQUIRED}.nodeSelectorTerms"
        if not required.get("nodeSelectorTerms"):
            faults.required(at, "must have at least one node selector term")
        for index, term in enumerate(required.get("nodeSelectorTerms") or ()):
            _node_term(faults, f"{at}[{index}]", term)
    for index, choice in enumerate(node.get(_PREFERRED) or ()):
        at = f"{path}.nodeAffinity.{_PREFERRED}[{index}]"
        if not 1 <= choice.get("weight", 0) <= 100:
            faults.invalid(f"{at}.weight", choice.get("weight", 0), _WEIGHT)
        # A value that is none is only warned of here.
        _node_term(faults, f"{at}.preference", choice.get("preference") or {}, values=False)
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = given.get(kind) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            _pod_term(faults, f"{path}.{kind}.{_REQUIRED}[{index}]", term)
        for index, choice in enumerate(terms.get(_PREFERRED) or ()):
            at = f"{path}.{kind}.{_PREFERRED}[{index}]"
            if not 1 <= choice.get("weight", 0) <= 100:
                faults.invalid(f"{at}.weight", choice.get("weight", 0), _WEIGHT)
            _pod_term(faults, f"{at}.podAffinityTerm", choice.get("podAffinityTerm") or {})


def _node_term(faults: Faults, path: str, term: Object, *, values: bool = True) -> None:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        requirement(faults, at, expression, numeric=True, any_value=not values)
    for index, expression in enumerate(term.get("matchFields") or ()):
        at, operator = f"{path}.matchFields[{index}]", expression.get("operator", "")
        key, given = expression.get("key", ""), expression.get("values") or ()
        if operator not in ("In", "NotIn"):
            faults.invalid(f"{at}.operator", operator, "not a valid selector operator")
        elif len(given) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            faults.required(f"{at}.values", detail)
        if key != "metadata.name":
            faults.invalid(f"{at}.key", key, "not a valid field selector key")
        for number, value in enumerate(given if key == "metadata.name" else ()):
            faults.each(f"{at}.values[{number}]", value, names.dns_subdomain(value))


def _pod_term(faults: Faults, path: str, term: Object) -> None:
    for kind in ("labelSelector", "namespaceSelector"):
        if term.get(kind) is not None:
            label_selector(faults, f"{path}.{kind}", term[kind])
    for name in term.get("namespaces") or ():
        faults.each(f"{path}.namespace", name, names.dns_label(name))
    match, mismatch = term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    _label_keys(faults, path, match, mismatch, term.get("labelSelector"))
    key = term.get("topologyKey", "")
    if not key:
        faults.required(f"{path}.topologyKey", "can not be empty")
    faults.each(f"{path}.topologyKey", key, names.qualified_name(key))


def _label_keys(faults: Faults, path: str, match: Any, mismatch: Any, selector: Object | None) -> None:
    for kind, keys in (("matchLabelKeys", match), ("mismatchLabelKeys", mismatch)):
        if keys and selector is None:
            faults.forbidden(f"{path}.{kind}", "must not be specified when labelSelector is not set")
        for index, key in enumerate(keys if selector is not None else ()):
            faults.each(f"{path}.{kind}[{index}]", key, names.qualified_name(key))
    known = set((selector or {}).get("matchLabels") or {})
    places = {key: index for index, key in reversed(list(enumerate(match)))}
    others = set(mismatch)
    for expression in (selector or {}).get("matchExpressions") or ():
        key = expression.get("key", "")
        if key in places and key in known:
            detail = "exists in both matchLabelKeys and labelSelector"
            faults.invalid(f"{path}[{places[key]}]", key, detail)
        known.add(key)
    for index, key in enumerate(match):
        if key in others:
            detail = "exists in both matchLabelKeys and mismatchLabelKeys"
            faults.invalid(f"{path}.matchLabelKeys[{index}]", key, detail)


def gates(faults: Faults, path: str, given: Any) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(given):
        name = gate.get("name", "")
        faults.each(f"{path}[{index}]", name, names.qualified_name(name))
        if name in seen:
            faults.duplicate(f"{path}[{index}]", name)
        seen.add(name)


def spreading(faults: Faults, path: str, constraints: Any) -> None:
    left = Counter((each.get("topologyKey", ""), each.get("whenUnsatisfiable", "")) for each in constraints)
    for index, constraint in enumerate(constraints):
        at, otherwise = f"{path}[{index}]", constraint.get("whenUnsatisfiable", "")
        skew, key = constraint.get("maxSkew", 0), constraint.get("topologyKey", "")
        if skew <= 0:
            faults.invalid(f"{at}.maxSkew", skew, "must be greater than zero")
        if not key:
            faults.required(f"{at}.topologyKey", "can not be empty")
        if otherwise not in _OTHERWISE:
            faults.not_supported(f"{at}.whenUnsatisfiable", otherwise, _OTHERWISE)
        same = (key, otherwise)
        left[same] -= 1
        if left[same]:
            faults.duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {otherwise}}}")
        domains = constraint.get("minDomains")
        if domains is not None:
            if domains <= 0:
                faults.invalid(f"{at}.minDomains", domains, "must be greater than zero")
            if otherwise != "DoNotSchedule":
                detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}"
                faults.invalid(f"{at}.minDomains", domains, detail)
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) is not None and constraint[field] not in _INCLUSIONS:
                faults.not_supported(f"{at}.{field}", constraint[field], _INCLUSIONS)
        selector = constraint.get("labelSelector")
        _label_keys(faults, at, constraint.get("matchLabelKeys") or (), (), selector)
        if selector is not None:
            label_selector(faults, f"{at}.labelSelector", selector)
