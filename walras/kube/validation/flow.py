"""Flow schemas and priority levels: rules of pkg/apis/flowcontrol/validation. They are kept, not acted on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_PRECEDENCE_MAX: Final = 10_000
_QUEUES_MAX: Final = 10_000_000
_METHODS: Final = ("ByNamespace", "ByUser")
_SUBJECTS: Final = ("Group", "ServiceAccount", "User")
_VERBS: Final = (
    "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch",
)  # fmt: skip
_EXEMPT: Final = "exempt"


def schema(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name", "")
    precedence, method = spec.get("matchingPrecedence") or 0, spec.get("distinguisherMethod")
    if precedence <= 0:
        faults.invalid("spec.matchingPrecedence", precedence, "must be a positive value")
    if precedence > _PRECEDENCE_MAX:
        faults.invalid("spec.matchingPrecedence", precedence, f"must not be greater than {_PRECEDENCE_MAX}")
    if precedence == 1 and name != _EXEMPT:
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        faults.invalid("spec.matchingPrecedence", precedence, detail)
    if method is not None and method.get("type") not in _METHODS:
        shown = {"Type": method.get("type", "")}
        faults.not_supported("spec.distinguisherMethod.type", shown, _METHODS)
    level = (spec.get("priorityLevelConfiguration") or {}).get("name") or ""
    if not level:
        faults.required("spec.priorityLevelConfiguration.name", "must reference a priority level")
    else:
        faults.each("spec.priorityLevelConfiguration.name", level, names.dns_subdomain(level))
    for index, rule in enumerate(spec.get("rules") or ()):
        _rule(faults, f"spec.rules[{index}]", rule)


def _rule(faults: Faults, path: str, rule: Object) -> None:
    subjects = rule.get("subjects") or ()
    if not subjects:
        faults.required(f"{path}.subjects", "subjects must contain at least one value")
    for index, subject in enumerate(subjects):
        _subject(faults, f"{path}.subjects[{index}]", subject)
    resources, others = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not others:
        faults.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
    for index, each in enumerate(resources):
        _resource_rule(faults, f"{path}.resourceRules[{index}]", each)
    for index, each in enumerate(others):
        at, urls = f"{path}.nonResourceRules[{index}]", each.get("nonResourceURLs") or []
        _verbs(faults, f"{at}.verbs", each.get("verbs") or [])
        if not urls:
            faults.required(f"{at}.nonResourceURLs", "nonResourceURLs must contain at least one value")
        elif "*" in urls and len(urls) > 1:
            detail = "if '*' is present, must not specify other non-resource URLs"
            faults.invalid(f"{at}.nonResourceURLs", urls, detail)
        elif "*" not in urls:
            for number, url in enumerate(urls):
                _url(faults, f"{at}.nonResourceURLs[{number}]", url)


def _url(faults: Faults, path: str, url: str) -> None:
    if not url:
        faults.invalid(path, url, "must not be empty")
    elif url == "/":
        return
    elif not url.startswith("/"):
        faults.invalid(path, url, "must start with slash")
    elif " " in url:
        faults.invalid(path, url, "must not contain white-space")
    elif "//" in url:
        faults.invalid(path, url, "must not contain double slash")
    elif "*" in url[:-1] or (url.endswith("*") and not url.endswith("/*")):
        detail = "wildcard can only do suffix matching"
        if "*" in url[:-1]:
            detail = "the segment(s) before the last must not contain wildcard"
        faults.invalid(path, url, detail)


def _subject(faults: Faults, path: str, subject: Object) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        faults.not_supported(f"{path}.kind", kind, _SUBJECTS)
        return
    field = kind[:1].lower() + kind[1:]
    who = subject.get(field)
    if who is None:
        faults.required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'")
    else:
        needed = ("name", "namespace") if kind == "ServiceAccount" else ("name",)
        for part in needed:
            if not who.get(part):
                faults.required(f"{path}.{field}.{part}")
    for other in _SUBJECTS:
        name = other[:1].lower() + other[1:]
        if other != kind and subject.get(name) is not None:
            faults.forbidden(f"{path}.{name}", f"{name} is forbidden when subject kind is not '{other}'")


def _verbs(faults: Faults, path: str, verbs: list[str]) -> None:
    if not verbs:
        faults.required(path, "verbs must contain at least one value")
    elif "*" in verbs:
        if len(verbs) > 1:
            faults.invalid(path, verbs, "if '*' is present, must not specify other verbs")
    elif not set(verbs) <= {*_VERBS}:
        faults.not_supported(path, verbs, _VERBS)


def _resource_rule(faults: Faults, path: str, rule: Object) -> None:
    _verbs(faults, f"{path}.verbs", rule.get("verbs") or [])
    for field, what in (("apiGroups", "api group"), ("resources", "resource")):
        given = rule.get(field) or []
        if not given:
            faults.required(f"{path}.{field}", f"resource rules must supply at least one {what}")
        elif len(given) > 1 and "*" in given:
            faults.invalid(f"{path}.{field}", given, f"if '*' is present, must not specify other {what}s")
    spaces = rule.get("namespaces") or []
    if not spaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        faults.required(f"{path}.namespaces", detail)
    elif "*" in spaces:
        if len(spaces) > 1:
            detail = "if '*' is present, must not specify other namespaces"
            faults.invalid(f"{path}.namespaces", spaces, detail)
    else:
        for index, space in enumerate(spaces):
            said = [
                f"each member of this list must be '*' or a DNS-1123 label; {m}"
                for m in names.dns_label(space)
            ]
            faults.each(f"{path}.namespaces[{index}]", space, said)


def level(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name", "")
    kind, limited = spec.get("type") or "", spec.get("limited")
    if (name == _EXEMPT) != (kind == "Exempt"):
        faults.invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'")
    if kind == "Exempt":
        if limited is not None:
            faults.forbidden("spec.limited", "must be nil if the type is not Limited")
    elif kind == "Limited":
        if spec.get("exempt") is not None:
            faults.forbidden("spec.exempt", "must be nil if the type is Limited")
        if limited is None:
            faults.required("spec.limited", "must not be empty when type is Limited")
        else:
            _limited(faults, "spec.limited", limited)
    else:
        faults.one_of("spec.type", kind, ("Exempt", "Limited"))


def _limited(faults: Faults, path: str, limited: Object) -> None:
    shares, lendable = limited.get("nominalConcurrencyShares") or 0, limited.get("lendablePercent")
    if shares < 0:
        faults.invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer")
    response = limited.get("limitResponse") or {}
    kind, queues = response.get("type") or "", response.get("queuing")
    at = f"{path}.limitResponse"
    if kind == "Reject":
        if queues is not None:
            faults.forbidden(f"{at}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif kind == "Queue":
        if queues is None:
            faults.required(f"{at}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        else:
            _queues(faults, f"{at}.queuing", queues)
    else:
        faults.one_of(f"{at}.type", kind, ("Queue", "Reject"))
    if lendable is not None and not 0 <= lendable <= 100:
        faults.invalid(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive")
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        detail = "if specified, must be a non-negative integer"
        faults.invalid(f"{path}.borrowingLimitPercent", borrowing, detail)


def _queues(faults: Faults, path: str, queuing: Object) -> None:
    length, queues, hand = (queuing.get(name) or 0 for name in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        faults.invalid(f"{path}.queueLengthLimit", length, "must be positive")
    if queues <= 0:
        faults.invalid(f"{path}.queues", queues, "must be positive")
    elif queues > _QUEUES_MAX:
        faults.invalid(f"{path}.queues", queues, f"must not be greater than {_QUEUES_MAX}")
    if hand <= 0:
        faults.invalid(f"{path}.handSize", hand, "must be positive")
    elif hand > queues:
        faults.invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})")
