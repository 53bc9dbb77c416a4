"""Which writes a webhook or a policy is about: rules, scopes, versions that are equivalent, selectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from walras.core.errors import NotFound
from walras.kube.admission.call import Call
from walras.kube.objects import NAMESPACES
from walras.kube.record import Object
from walras.kube.registry import Registry, Resource
from walras.kube.selectors import from_label_selector

# Never shown to webhooks or policies, which could otherwise lock out whoever would mend them.
EXEMPT: Final = frozenset(
    f"{plural}.admissionregistration.k8s.io"
    for plural in (
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
    )
)


def rule_covers(rule: Mapping[str, Any], operation: str, resource: Resource, subresource: str) -> bool:
    """Whether a rule names exactly this version of the type and this operation."""
    operations = rule.get("operations") or ()
    if "*" not in operations and operation not in operations:
        return False
    if not _names(rule.get("apiGroups"), resource.group) or not _names(
        rule.get("apiVersions"), resource.version
    ):
        return False
    scope = rule.get("scope") or "*"
    # A namespace is cluster-wide though its requests have a namespace.
    if scope != "*" and (scope == "Namespaced") != resource.namespaced:
        return False
    return any(_is_resource(each, resource.plural, subresource) for each in rule.get("resources") or ())


def _names(given: Any, name: str) -> bool:
    return "*" in (given or ()) or name in (given or ())


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    wanted, _, below = pattern.partition("/")
    return wanted in ("*", plural) and below in ("*", subresource)


def matched(
    rules: Iterable[Mapping[str, Any]], policy: str, call: Call, registry: Registry
) -> Resource | None:
    """The version of the type in which the rules want to see the write; None where they do not want to.

    With the policy "Equivalent" a rule about another version of the type counts too.
    """
    if call.key in EXEMPT:
        return None
    rules = list(rules)
    for rule in rules:
        if rule_covers(rule, call.operation, call.resource, call.subresource):
            return call.resource
    if policy == "Exact":
        return None
    for rule in rules:
        for version in equivalents(call.resource, registry):
            if rule_covers(rule, call.operation, version, call.subresource):
                return version
    return None


def equivalents(resource: Resource, registry: Registry) -> list[Resource]:
    """The other versions in which the type is served, in their order of discovery."""
    return [each for each in registry if each.storage.key == resource.storage.key and each is not resource]


def selects_namespace(selector: Mapping[str, Any] | None, call: Call) -> bool:
    """Whether the namespace of the write has the labels; what is in no namespace always has.

    Raises NotFound.
    """
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return True
    if call.key == NAMESPACES:
        labels = call.object["metadata"].get("labels") or {}
        return from_label_selector(selector).matches(labels)
    if not call.namespace:
        return True
    found = call.tx.peek(call.ctx.cluster, NAMESPACES, "", call.namespace)
    if found is None:
        raise NotFound(f'namespaces "{call.namespace}" not found')
    return from_label_selector(selector).matches(found["metadata"].get("labels") or {})


def selects_object(selector: Mapping[str, Any] | None, call: Call) -> bool:
    """Whether the object has the labels, or had them before."""
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return True
    wanted = from_label_selector(selector)
    return any(wanted.matches(labels) for labels in _labels(call))


def _labels(call: Call) -> list[Object]:
    return [
        each["metadata"].get("labels") or {}
        for each in (call.new, call.old)
        if each is not None and isinstance(each.get("metadata"), dict)
    ]
