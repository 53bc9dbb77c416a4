"""Mutating- and ValidatingWebhookConfigurations (pkg/apis/admissionregistration/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from walras.kube.admission import expressions
from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import label_selector
from walras.kube.validation.rulesets import conditions, one_of, rule

Object = Mapping[str, Any]

# Of AdmissionReview and of ConversionReview alike.
REVIEWS: Final = ("v1", "v1beta1")
_FAILURES: Final = ("Fail", "Ignore")
_MATCHES: Final = ("Equivalent", "Exact")
_REINVOCATIONS: Final = ("IfNeeded", "Never")
_NO_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")
_FORM: Final = "; desired format: https://host[/path]"


def webhooks(faults: Faults, obj: Object, old: Object | None) -> None:
    """A Mutating- or ValidatingWebhookConfiguration."""
    seen: set[str] = set()
    before = [_conditions_of(each) for each in (old or {}).get("webhooks") or ()]
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        _hook(faults, hook, path, with_conditions=_conditions_of(hook) not in before)
        if hook.get("name") in seen:
            faults.duplicate(f"{path}.name", hook["name"])
        seen.add(hook.get("name", ""))


def _conditions_of(hook: Object) -> Any:
    return hook.get("matchConditions") or []


def _hook(faults: Faults, hook: Object, path: str, *, with_conditions: bool) -> None:
    name = hook.get("name", "")
    if not name:
        faults.required(f"{path}.name")
    else:
        said = names.dns_subdomain(name)
        if said:
            faults.each(f"{path}.name", name, said)
        elif name.count(".") < 2:
            faults.invalid(
                f"{path}.name", name, "should be a domain with at least three segments separated by dots"
            )
    for index, each in enumerate(hook.get("rules") or ()):
        rule(faults, each, f"{path}.rules[{index}]")
    one_of(faults, hook, "failurePolicy", _FAILURES, path)
    one_of(faults, hook, "matchPolicy", _MATCHES, path)
    if hook.get("sideEffects") is None:
        faults.required(f"{path}.sideEffects", f"must specify one of {', '.join(_NO_SIDE_EFFECTS)}")
    else:
        one_of(faults, hook, "sideEffects", _NO_SIDE_EFFECTS, path)
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        faults.invalid(f"{path}.timeoutSeconds", timeout, detail)
    for field in ("namespaceSelector", "objectSelector"):
        if hook.get(field) is not None:
            label_selector(faults, f"{path}.{field}", hook[field])
    one_of(faults, hook, "reinvocationPolicy", _REINVOCATIONS, path)
    webhook_client(faults, hook.get("clientConfig") or {}, f"{path}.clientConfig")
    if with_conditions:
        conditions(
            faults, hook.get("matchConditions") or (), f"{path}.matchConditions", expressions.condition
        )
    reviews = hook.get("admissionReviewVersions") or []
    why = f"must specify one of {', '.join(REVIEWS)}"
    review_versions(faults, reviews, f"{path}.admissionReviewVersions", missing=why)


def review_versions(
    faults: Faults, given: list[str], path: str, *, missing: str = "", is_strict: bool = True
) -> None:
    """The versions of its review that a webhook takes; if `is_strict`, one that the server knows as well.

    `missing` is what to say besides where there are none.
    """
    if not given:
        faults.required(path, missing)
        return
    seen: set[str] = set()
    for index, version in enumerate(given):
        if version in seen:
            faults.invalid(f"{path}[{index}]", version, "duplicate version")
            continue
        seen.add(version)
        faults.each(f"{path}[{index}]", version, names.dns1035_label(version))
    if is_strict and not seen.intersection(REVIEWS):
        faults.invalid(path, given, f"must include at least one of {', '.join(REVIEWS)}")


def webhook_client(faults: Faults, client: Object, path: str) -> None:
    """Where a webhook's clientConfig leads: a URL or a Service."""
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        faults.required(path, "exactly one of url or service is required")
    elif url is not None:
        _url(faults, url, f"{path}.url")
    else:
        _service(faults, service or {}, f"{path}.service")


def _url(faults: Faults, url: str, path: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        faults.required(path, f"url must be a valid URL: {error}{_FORM}")
        return
    if parts.scheme != "https":
        faults.invalid(path, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}")
    if not parts.netloc:
        faults.invalid(path, "", f"host must be specified{_FORM}")
    user, at, _ = parts.netloc.rpartition("@")
    if at:
        faults.invalid(path, user, "user information is not permitted in the URL")
    if parts.fragment:
        faults.invalid(path, parts.fragment, "fragments are not permitted in the URL")
    if parts.query:
        faults.invalid(path, parts.query, "query parameters are not permitted in the URL")


def _service(faults: Faults, service: Object, path: str) -> None:
    for field in ("name", "namespace"):
        if not service.get(field):
            faults.required(f"{path}.{field}")
    port = service.get("port", 443)
    said = names.port_number(port)
    if said:
        faults.invalid(f"{path}.port", port, f"port is not valid: {', '.join(said)}")
    where = service.get("path")
    if not where or where == "/":
        return
    if where == "//":
        faults.invalid(f"{path}.path", where, "segment[0] may not be empty")
        return
    if not where.startswith("/"):
        faults.invalid(f"{path}.path", where, "must start with a '/'")
    for index, step in enumerate(where[1:].removesuffix("/").split("/")):
        if not step:
            faults.invalid(f"{path}.path", where, f"segment[{index}] may not be empty")
            continue
        for failure in names.dns_subdomain(step):
            faults.invalid(f"{path}.path", where, f"segment[{index}]: {failure}")
