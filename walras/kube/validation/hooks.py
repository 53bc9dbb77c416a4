"""Admission webhooks and policies: rules of pkg/apis/admissionregistration/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector

Object = Mapping[str, Any]

_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES: Final = ("*", "Cluster", "Namespaced")
_FAILURES: Final = ("Fail", "Ignore")
_MATCHES: Final = ("Equivalent", "Exact")
_EFFECTS: Final = ("None", "NoneOnDryRun")
_ACTIONS: Final = ("Audit", "Deny", "Warn")
_VERSIONS: Final = ("v1", "v1beta1")
_TIMEOUT_S: Final = (1, 30)
_CONDITIONS_MAX: Final = 64
_CHOICE: Final = "exactly one of url or service is required"


def webhooks(faults: Faults, obj: Object, _old: Object | None) -> None:
    seen: set[str] = set()
    mutating = obj.get("kind") == "MutatingWebhookConfiguration"
    for index, hook in enumerate(obj.get("webhooks") or ()):
        _webhook(faults, f"webhooks[{index}]", hook, mutating)
        name = hook.get("name") or ""
        if name in seen:
            faults.duplicate(f"webhooks[{index}].name", name)
        seen.add(name)
    for index, hook in enumerate(obj.get("webhooks") or ()):
        _review_versions(faults, f"webhooks[{index}].admissionReviewVersions", hook)


def _webhook(faults: Faults, path: str, hook: Object, mutating: bool) -> None:
    name = hook.get("name") or ""
    if not name:
        faults.required(f"{path}.name")
    else:
        said = names.dns_subdomain(name)
        if not said and name.count(".") < 2:
            said = ["should be a domain with at least three segments separated by dots"]
        faults.each(f"{path}.name", name, said)
    for index, rule in enumerate(hook.get("rules") or ()):
        _rule(faults, f"{path}.rules[{index}]", rule)
    for field, allowed in (("failurePolicy", _FAILURES), ("matchPolicy", _MATCHES)):
        if hook.get(field) is not None and hook[field] not in allowed:
            faults.not_supported(f"{path}.{field}", hook[field], allowed)
    effects = hook.get("sideEffects")
    if effects is None:
        faults.required(f"{path}.sideEffects", f"must specify one of {', '.join(_EFFECTS)}")
    elif effects not in _EFFECTS:
        faults.not_supported(f"{path}.sideEffects", effects, _EFFECTS)
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not _TIMEOUT_S[0] <= seconds <= _TIMEOUT_S[1]:
        detail = f"the timeout value must be between {_TIMEOUT_S[0]} and {_TIMEOUT_S[1]} seconds"
        faults.invalid(f"{path}.timeoutSeconds", seconds, detail)
    _selectors(faults, path, hook)
    policy = hook.get("reinvocationPolicy")
    if mutating and policy is not None and policy not in ("IfNeeded", "Never"):
        faults.not_supported(f"{path}.reinvocationPolicy", policy, ("IfNeeded", "Never"))
    _client(faults, f"{path}.clientConfig", hook.get("clientConfig") or {})
    conditions = hook.get("matchConditions") or ()
    if len(conditions) > _CONDITIONS_MAX:
        faults.too_many(f"{path}.matchConditions", len(conditions), _CONDITIONS_MAX)


def _selectors(faults: Faults, path: str, of: Object) -> None:
    for field in ("namespaceSelector", "objectSelector"):
        if of.get(field) is not None:
            label_selector(faults, f"{path}.{field}", of[field])


def _review_versions(faults: Faults, path: str, hook: Object) -> None:
    versions = hook.get("admissionReviewVersions") or ()
    if not versions:
        faults.required(path, f"must specify one of {', '.join(_VERSIONS)}")
        return
    for index, version in enumerate(versions):
        if version in versions[:index]:
            faults.invalid(f"{path}[{index}]", version, "duplicate version")
        faults.each(f"{path}[{index}]", version, names.dns1035_label(version))
    if not any(version in _VERSIONS for version in versions):
        detail = f"must include at least one of {', '.join(_VERSIONS)}"
        faults.invalid(path, list(versions), detail)


def _rule(faults: Faults, path: str, rule: Object) -> None:
    operations = rule.get("operations") or ()
    if not operations:
        faults.required(f"{path}.operations")
    if len(operations) > 1 and "*" in operations:
        detail = "if '*' is present, must not specify other operations"
        faults.invalid(f"{path}.operations", list(operations), detail)
    for index, operation in enumerate(operations):
        if operation not in _OPERATIONS:
            faults.not_supported(f"{path}.operations[{index}]", operation, _OPERATIONS)
    for field, what in (("apiGroups", "API groups"), ("apiVersions", "API versions")):
        given = rule.get(field) or ()
        if not given:
            faults.required(f"{path}.{field}")
        if len(given) > 1 and "*" in given:
            detail = f"if '*' is present, must not specify other {what}"
            faults.invalid(f"{path}.{field}", list(given), detail)
        for index, each in enumerate(given):
            if field == "apiVersions" and not each:
                faults.required(f"{path}.{field}[{index}]")
    _resources(faults, f"{path}.resources", rule.get("resources") or ())
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        faults.not_supported(f"{path}.scope", scope, _SCOPES)


def _resources(faults: Faults, path: str, resources: Any) -> None:
    if not resources:
        faults.required(path)
    if len(resources) > 1 and "*/*" in resources:
        faults.invalid(path, list(resources), "if '*/*' is present, must not specify other resources")
    for index, each in enumerate(resources):
        if not each:
            faults.required(f"{path}[{index}]")
            continue
        kind, slash, below = each.partition("/")
        if (
            slash
            and below == "*"
            and kind != "*"
            and any(other != each and other.startswith(f"{kind}/") for other in resources)
        ):
            detail = f"if '{each}' is present, must not specify {kind}/x"
            faults.invalid(f"{path}[{index}]", each, detail)


def _client(faults: Faults, path: str, config: Object) -> None:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        faults.required(path, _CHOICE)
    elif url is not None:
        _url(faults, f"{path}.url", url)
    else:
        _service(faults, f"{path}.service", service or {})


def _url(faults: Faults, path: str, url: str) -> None:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        faults.required(path, f"url must be a valid URL: {error}{form}")
        return
    if parts.scheme != "https":
        faults.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{form}")
    if not parts.netloc:
        faults.invalid(path, parts.netloc, f"host must be specified{form}")
    if "@" in parts.netloc:
        faults.invalid(path, parts.netloc, "user information is not permitted in the URL")
    if parts.fragment:
        faults.invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        faults.invalid(path, parts.query, "query parameters are not permitted in the URL")


def _service(faults: Faults, path: str, service: Object) -> None:
    for field in ("name", "namespace"):
        if not service.get(field):
            faults.required(f"{path}.{field}")
    at, port = service.get("path"), service.get("port", 443)
    if at is not None and not at.startswith("/"):
        faults.invalid(f"{path}.path", at, "must start with a '/'")
    elif at is not None and "//" in at:
        faults.invalid(f"{path}.path", at, "segment[0] may not be empty")
    faults.each(f"{path}.port", port, ["port is not valid: " + said for said in names.port_number(port)])


def _match(faults: Faults, path: str, resources: Object) -> None:
    policy = resources.get("matchPolicy")
    if policy is not None and policy not in _MATCHES:
        faults.not_supported(f"{path}.matchPolicy", policy, _MATCHES)
    _selectors(faults, path, resources)
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(resources.get(field) or ()):
            _rule(faults, f"{path}.{field}[{index}]", rule)


def policy(faults: Faults, obj: Object, _old: Object | None) -> None:
    """A ValidatingAdmissionPolicy or a MutatingAdmissionPolicy."""
    spec, mutating = obj.get("spec") or {}, obj.get("kind") == "MutatingAdmissionPolicy"
    failure = spec.get("failurePolicy")
    if failure is not None and failure not in _FAILURES:
        faults.not_supported("spec.failurePolicy", failure, _FAILURES)
    kind = spec.get("paramKind")
    if kind is not None:
        for field in ("apiVersion", "kind"):
            if not kind.get(field):
                faults.required(f"spec.paramKind.{field}")
    constraints = spec.get("matchConstraints")
    if constraints is None:
        faults.required("spec.matchConstraints")
    else:
        _match(faults, "spec.matchConstraints", constraints)
        if not constraints.get("resourceRules"):
            faults.required("spec.matchConstraints.resourceRules")
    if mutating:
        if not spec.get("mutations"):
            faults.required("spec.mutations", "mutations must contain at least one item")
    else:
        _validations(faults, spec)


def _validations(faults: Faults, spec: Object) -> None:
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        detail = "validations or auditAnnotations must be non-empty"
        for field in ("validations", "auditAnnotations"):
            faults.required(f"spec.{field}", detail)
    for index, validation in enumerate(spec.get("validations") or ()):
        if not (validation.get("expression") or "").strip():
            faults.required(f"spec.validations[{index}].expression", "expression is not specified")


def binding(faults: Faults, obj: Object, _old: Object | None) -> None:
    """A binding of an admission policy."""
    spec, mutating = obj.get("spec") or {}, obj.get("kind") == "MutatingAdmissionPolicyBinding"
    if not spec.get("policyName"):
        faults.required("spec.policyName")
    reference = spec.get("paramRef")
    if reference is not None:
        if reference.get("name") and reference.get("selector") is not None:
            faults.forbidden("spec.paramRef.name", "name and selector are mutually exclusive")
        if not reference.get("name") and reference.get("selector") is None:
            faults.required("spec.paramRef", "one of name or selector must be specified")
        if reference.get("parameterNotFoundAction") is None:
            faults.required("spec.paramRef.parameterNotFoundAction")
    if spec.get("matchResources") is not None:
        _match(faults, "spec.matchResources", spec["matchResources"])
    if not mutating:
        _actions(faults, "spec.validationActions", list(spec.get("validationActions") or ()))


def _actions(faults: Faults, path: str, actions: list[str]) -> None:
    if not actions:
        faults.required(path, "at least one validation action is required")
    for index, action in enumerate(actions):
        if action not in _ACTIONS:
            faults.not_supported(f"{path}[{index}]", action, _ACTIONS)
        if action in actions[:index]:
            faults.duplicate(f"{path}[{index}]", action)
    if "Deny" in actions and "Warn" in actions:
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the "
            "API response and headers serves no purpose)"
        )
        faults.invalid(path, actions, detail)
