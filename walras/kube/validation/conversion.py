"""How a CustomResourceDefinition has its objects converted: spec.conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.conversion.config import has_broken_authorities
from walras.kube.crd import is_established
from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.webhooks import webhook_service, webhook_url

Object = Mapping[str, Any]

# Upstream names the fields as its internal type has them.
_CLIENT: Final = "spec.conversion.webhookClientConfig"
_REVIEWS: Final = "spec.conversion.conversionReviewVersions"
_KNOWN: Final = ("v1", "v1beta1")


def conversion(faults: Faults, obj: Object, old: Object | None) -> None:
    """The conversion of a definition, and what it was before."""
    given = _of(obj)
    strategy, webhook = given.get("strategy") or "", given.get("webhook") or {}
    faults.one_of("spec.conversion.strategy", strategy, ("None", "Webhook"))
    client, reviews = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if strategy == "Webhook":
        if (obj.get("spec") or {}).get("preserveUnknownFields"):
            detail = "must be None if spec.preserveUnknownFields is true"
            faults.invalid("spec.conversion.strategy", strategy, detail)
        if client is None:
            faults.required(_CLIENT, "required when strategy is set to Webhook")
        else:
            _client(faults, client, lenient=_may_be_broken(old))
        before = (_of(old).get("webhook") or {}).get("conversionReviewVersions") or []
        _reviews(faults, reviews, is_strict=not before or any(each in _KNOWN for each in before))
        return
    detail = "should not be set when strategy is not set to Webhook"
    if client is not None:
        faults.forbidden(_CLIENT, detail)
    if reviews:
        faults.forbidden(_REVIEWS, detail)


def _of(obj: Object | None) -> Object:
    return ((obj or {}).get("spec") or {}).get("conversion") or {}


def _client(faults: Faults, client: Object, *, lenient: bool) -> None:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        faults.required(_CLIENT, "exactly one of url or service is required")
    elif url is not None:
        webhook_url(faults, url, f"{_CLIENT}.url")
    else:
        webhook_service(faults, service or {}, f"{_CLIENT}.service")
    bundle = client.get("caBundle") or ""
    if not lenient and has_broken_authorities({"conversion": {"webhook": {"clientConfig": client}}}):
        detail = "unable to load root certificates: unable to parse bytes as PEM block"
        faults.invalid(f"{_CLIENT}.caBundle", bundle, detail)


def _may_be_broken(old: Object | None) -> bool:
    """Whether authorities that cannot be read are taken: they were there, or nothing was served yet."""
    return old is None or not is_established(old) or has_broken_authorities(old.get("spec") or {})


def _reviews(faults: Faults, given: list[str], *, is_strict: bool) -> None:
    if not given:
        faults.required(_REVIEWS)
        return
    seen: set[str] = set()
    for index, version in enumerate(given):
        if version in seen:
            faults.invalid(f"{_REVIEWS}[{index}]", version, "duplicate version")
            continue
        seen.add(version)
        faults.each(f"{_REVIEWS}[{index}]", version, names.dns1035_label(version))
    if is_strict and not seen.intersection(_KNOWN):
        faults.invalid(_REVIEWS, given, f"must include at least one of {', '.join(_KNOWN)}")
