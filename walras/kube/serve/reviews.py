"""SelfSubject reviews: who am I, may I do this, what may I do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from walras.core.errors import BadRequest, NotFound
from walras.kube.registry import Registry, Resource
from walras.kube.serve.discovery import subresource_verbs
from walras.kube.serve.status import NOT_SERVED

Object = dict[str, Any]
# (verb, resource key, subresource) -> the reason why not, "" where it is allowed.
Policy = Callable[[str, str, str], str]

GROUPS: Final = ("authorization.k8s.io", "authentication.k8s.io")


def review(
    resource: Resource,
    obj: Object,
    registry: Registry,
    policy: Policy,
    user: str,
    groups: tuple[str, ...],
) -> Object:
    """The review with its status filled in. Raises BadRequest, NotFound."""
    match resource.plural:
        case "selfsubjectreviews":
            status: Object = {"userInfo": {"username": user, "groups": list(groups)}}
        case "selfsubjectaccessreviews":
            status = _access(obj, registry, policy)
        case "selfsubjectrulesreviews":
            status = _rules(registry, policy)
        case _:
            raise NotFound(NOT_SERVED)
    metadata = obj.get("metadata")
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "spec": obj.get("spec") or {},
        "status": status,
    }


def _access(obj: Object, registry: Registry, policy: Policy) -> Object:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        raise BadRequest("spec: Required value")
    attributes = spec.get("resourceAttributes")
    if not isinstance(attributes, dict):
        return {"allowed": isinstance(spec.get("nonResourceAttributes"), dict)}
    group, plural = str(attributes.get("group") or ""), str(attributes.get("resource") or "")
    verb, subresource = str(attributes.get("verb") or ""), str(attributes.get("subresource") or "")
    if "*" in (verb, plural, group):
        reasons = [policy(*rule) for rule in _every(registry) if _covers((verb, group, plural), rule)]
        reason = next(filter(None, reasons), "")
    else:
        reason = policy(verb, f"{plural}.{group}" if group else plural, subresource)
    return {"allowed": not reason, **({"reason": reason} if reason else {})}


def _covers(asked: tuple[str, str, str], rule: tuple[str, str, str]) -> bool:
    verb, group, plural = asked
    rule_plural, _, rule_group = rule[1].partition(".")
    return (
        verb in ("*", rule[0])
        and group in ("*", rule_group)
        and plural in ("*", rule_plural)
        and (plural == "*" or not rule[2])
    )


def _every(registry: Registry) -> list[tuple[str, str, str]]:
    return [
        (verb, resource.key, subresource)
        for resource in registry
        for subresource in ("", *resource.subresources)
        for verb in (subresource_verbs(subresource) if subresource else resource.verbs)
    ]


def _rules(registry: Registry, policy: Policy) -> Object:
    by_verbs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for resource in registry:
        for subresource in ("", *resource.subresources):
            verbs = subresource_verbs(subresource) if subresource else resource.verbs
            allowed = tuple(verb for verb in verbs if not policy(verb, resource.key, subresource))
            name = f"{resource.plural}/{subresource}" if subresource else resource.plural
            if allowed:
                by_verbs.setdefault((resource.group, allowed), []).append(name)
    return {
        "resourceRules": [
            {"verbs": list(verbs), "apiGroups": [group], "resources": names}
            for (group, verbs), names in by_verbs.items()
        ],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }
