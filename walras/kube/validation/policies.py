"""Admission policies of both kinds, and their bindings (pkg/apis/admissionregistration/validation)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from walras.kube import cel
from walras.kube.admission.policies import Policy
from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector
from walras.kube.validation.rulesets import compiles, conditions, one_of, rule

Object = Mapping[str, Any]

ANNOTATIONS_MAX: Final = 20
_FAILURES: Final = ("Fail", "Ignore")
_MATCHES: Final = ("Equivalent", "Exact")
_REINVOCATIONS: Final = ("IfNeeded", "Never")
_REASONS: Final = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_ACTIONS: Final = ("Audit", "Deny", "Warn")


def validating_policy(faults: Faults, obj: Object, old: Object | None) -> None:
    """A ValidatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    policy = _policy(faults, obj, old)
    validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        faults.required("spec.validations", detail)
        faults.required("spec.auditAnnotations", detail)
    for index, validation in enumerate(validations):
        _validation(faults, validation, policy, f"spec.validations[{index}]")
    if len(annotations) > ANNOTATIONS_MAX:
        detail = f"must not have more than {ANNOTATIONS_MAX} auditAnnotations"
        faults.invalid("spec.auditAnnotations", list(annotations), detail)
    seen: set[str] = set()
    for index, annotation in enumerate(annotations):
        at, key = f"spec.auditAnnotations[{index}]", annotation.get("key", "")
        faults.each(f"{at}.key", key, names.qualified_name(f"{policy.name}/{key}"))
        text = str(annotation.get("valueExpression") or "").strip()
        if not text:
            faults.required(f"{at}.valueExpression", "valueExpression is not specified")
        else:
            compiles(faults, text, f"{at}.valueExpression", policy.expression, "string", "null")
        if key in seen:
            faults.duplicate(f"{at}.key", key)
        seen.add(key)


def _validation(faults: Faults, validation: Object, policy: Policy, path: str) -> None:
    text = str(validation.get("expression") or "")
    if not text.strip():
        faults.required(f"{path}.expression", "expression is not specified")
    else:
        compiles(faults, text, f"{path}.expression", policy.expression, "bool")
    for field in ("messageExpression", "message"):
        said = validation.get(field)
        if said and not said.strip():
            faults.invalid(f"{path}.{field}", said, "must be non-empty if specified")
        elif said and field == "messageExpression":
            compiles(faults, said, f"{path}.{field}", policy.expression, "string")
        elif said and re.search(r"[\n\r]", said.strip()):
            faults.invalid(f"{path}.{field}", said, "must not contain line breaks")
    one_of(faults, validation, "reason", _REASONS, path)


def mutating_policy(faults: Faults, obj: Object, old: Object | None) -> None:
    """A MutatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    policy = _policy(faults, obj, old)
    supported = ("CREATE", "UPDATE")
    for each in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        for operation in each.get("operations") or ():
            if operation not in supported:
                at = "spec.matchConstraints.resourceRules.operations"
                faults.not_supported(at, operation, supported)
    mutations = spec.get("mutations") or ()
    if not mutations:
        faults.required("spec.mutations", "mutations must contain at least one item")
    for index, mutation in enumerate(mutations):
        _mutation(faults, mutation, policy, f"spec.mutations[{index}]")
    if not spec.get("reinvocationPolicy"):
        faults.required("spec.reinvocationPolicy")
    else:
        one_of(faults, spec, "reinvocationPolicy", _REINVOCATIONS, "spec")


def _mutation(faults: Faults, mutation: Object, policy: Policy, path: str) -> None:
    kinds = {"JSONPatch": "jsonPatch", "ApplyConfiguration": "applyConfiguration"}
    kind = mutation.get("patchType")
    if not kind:
        faults.required(f"{path}.patchType")
        return
    if kind not in kinds:
        faults.not_supported(f"{path}.patchType", kind, sorted(kinds))
        return
    field = kinds[kind]
    for other, name in kinds.items():
        if other != kind and mutation.get(name) is not None:
            shown, detail = f"{{{name}}}", f"must not be specified when patchType is {kind}"
            faults.invalid(f"{path}.{name}", shown, detail)
    if mutation.get(field) is None:
        faults.required(f"{path}.{field}", f"must be specified when patchType is {kind}")
        return
    text = str(mutation[field].get("expression") or "").strip()
    if not text:
        faults.required(f"{path}.{field}.expression")
    else:
        wanted = "list" if kind == "JSONPatch" else "Object"
        compiles(faults, text, f"{path}.{field}.expression", policy.expression, wanted)


def _policy(faults: Faults, obj: Object, old: Object | None) -> Policy:
    """What policies of both kinds have in common; the policy, to compile its other expressions with."""
    spec, policy = obj.get("spec") or {}, Policy(dict(obj))
    if spec.get("failurePolicy") is None:
        faults.required("spec.failurePolicy")
    else:
        one_of(faults, spec, "failurePolicy", _FAILURES, "spec")
    if spec.get("paramKind") is not None:
        _param_kind(faults, spec["paramKind"])
    match = spec.get("matchConstraints")
    if match is None:
        faults.required("spec.matchConstraints")
    else:
        _match(faults, match, "spec.matchConstraints")
        if not match.get("resourceRules"):
            faults.required("spec.matchConstraints.resourceRules")
    _variables(faults, spec, policy)
    before = (old or {}).get("spec") or {}
    if old is None or (before.get("matchConditions"), before.get("paramKind")) != (
        spec.get("matchConditions"),
        spec.get("paramKind"),
    ):
        conditions(faults, spec.get("matchConditions") or (), "spec.matchConditions", policy.expression)
    return policy


def _variables(faults: Faults, spec: Object, policy: Policy) -> None:
    """Each variable by itself; one that does not compile may be anything for what comes after."""
    sound: list[Any] = []
    for index, variable in enumerate(spec.get("variables") or ()):
        at, name, text = f"spec.variables[{index}]", variable.get("name", ""), variable.get("expression", "")
        if not name.strip():
            faults.required(f"{at}.name", "name is not specified")
        elif not re.fullmatch(r"[_a-zA-Z][_a-zA-Z0-9]*", name):
            faults.invalid(f"{at}.name", name, "must be a valid CEL identifier")
        if not text.strip():
            faults.required(f"{at}.expression", "expression is not specified")
            continue
        trial = Policy({**policy.raw, "spec": {**spec, "variables": list(sound)}})
        try:
            trial.expression(text)
        except cel.SourceError as error:
            faults.invalid(f"{at}.expression", text, f"compilation failed: {error}")
            sound.append({"name": name, "expression": "dyn(null)"})
            continue
        sound.append(variable)
    policy.raw["spec"] = {**spec, "variables": sound}


def _param_kind(faults: Faults, kind: Object) -> None:
    path, version = "spec.paramKind", kind.get("apiVersion", "")
    group, _, name = version.rpartition("/")
    if not version:
        faults.required(f"{path}.apiVersion")
    elif "/" in group:
        faults.invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")
    else:
        if group and names.dns_subdomain(group):
            faults.invalid(f"{path}.apiVersion", group, ",".join(names.dns_subdomain(group)))
        if not name:
            faults.invalid(f"{path}.apiVersion", version, "version must be specified")
        elif names.dns1035_label(name):
            faults.invalid(f"{path}.apiVersion", name, ",".join(names.dns1035_label(name)))
    if not kind.get("kind"):
        faults.required(f"{path}.kind")
        return
    said = names.dns1035_label(kind["kind"].lower())
    if said:
        detail = f"may have mixed case, but should otherwise match: {','.join(said)}"
        faults.invalid(f"{path}.kind", kind["kind"], detail)


def _match(faults: Faults, match: Object, path: str) -> None:
    if match.get("matchPolicy") is None:
        faults.required(f"{path}.matchPolicy")
    else:
        one_of(faults, match, "matchPolicy", _MATCHES, path)
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            faults.required(f"{path}.{field}")
        else:
            label_selector(faults, f"{path}.{field}", match[field])
    for field in ("resourceRules", "excludeResourceRules"):
        for index, each in enumerate(match.get(field) or ()):
            at = f"{path}.{field}[{index}]"
            seen: set[str] = set()
            for place, name in enumerate(each.get("resourceNames") or ()):
                if name in seen:
                    faults.duplicate(f"{at}.resourceNames[{place}]", name)
                seen.add(name)
            rule(faults, each, at)


def binding(faults: Faults, obj: Object, old: Object | None) -> None:
    """A binding of a policy of either kind."""
    del old
    spec = obj.get("spec") or {}
    if not spec.get("policyName"):
        faults.required("spec.policyName")
    else:
        faults.each("spec.policyName", spec["policyName"], names.dns_subdomain(spec["policyName"]))
    if spec.get("paramRef") is not None:
        _param_ref(faults, spec["paramRef"], "spec.paramRef")
    if spec.get("matchResources") is not None:
        _match(faults, spec["matchResources"], "spec.matchResources")
    if obj.get("kind") == "ValidatingAdmissionPolicyBinding":
        _actions(faults, spec.get("validationActions") or [])


def _actions(faults: Faults, actions: list[str]) -> None:
    path = "spec.validationActions"
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            faults.not_supported(f"{path}[{index}]", action, _ACTIONS)
        if action in actions[:index]:
            faults.duplicate(f"{path}[{index}]", action)
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the "
        )
        faults.invalid(path, actions, f"{detail}API response and headers serves no purpose)")
    if not actions:
        faults.required(path, "at least one validation action is required")


def _param_ref(faults: Faults, reference: Object, path: str) -> None:
    name, selector = reference.get("name"), reference.get("selector")
    both = "name and selector are mutually exclusive"
    if name and selector is not None:
        faults.forbidden(f"{path}.name", both)
    if selector is not None:
        label_selector(faults, f"{path}.selector", selector)
        if name:
            faults.forbidden(f"{path}.selector", both)
    if not name and selector is None:
        faults.required(path, "one of name or selector must be specified")
    action = reference.get("parameterNotFoundAction")
    if not action:
        faults.required(f"{path}.parameterNotFoundAction")
    elif action not in ("Deny", "Allow"):
        faults.not_supported(f"{path}.parameterNotFoundAction", action, ("Deny", "Allow"))
