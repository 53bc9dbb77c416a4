"""How a CustomResourceDefinition has its objects converted: spec.conversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.conversion.config import has_broken_authorities
from walras.kube.crd import is_established
from walras.kube.validation.faults import Faults
from walras.kube.validation.webhooks import REVIEWS, review_versions, webhook_client

Object = Mapping[str, Any]

# Upstream names the fields as its internal type has them.
_CLIENT: Final = "spec.conversion.webhookClientConfig"
_REVIEWS: Final = "spec.conversion.conversionReviewVersions"


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
            webhook_client(faults, client, _CLIENT)
            if not _may_be_broken(old) and has_broken_authorities(obj["spec"]):
                detail = "unable to load root certificates: unable to parse bytes as PEM block"
                faults.invalid(f"{_CLIENT}.caBundle", client["caBundle"], detail)
        before = (_of(old).get("webhook") or {}).get("conversionReviewVersions") or []
        is_strict = not before or any(each in REVIEWS for each in before)
        review_versions(faults, reviews, _REVIEWS, is_strict=is_strict)
        return
    detail = "should not be set when strategy is not set to Webhook"
    if client is not None:
        faults.forbidden(_CLIENT, detail)
    if reviews:
        faults.forbidden(_REVIEWS, detail)


def _of(obj: Object | None) -> Object:
    return ((obj or {}).get("spec") or {}).get("conversion") or {}


def _may_be_broken(old: Object | None) -> bool:
    """Whether authorities that cannot be read are taken: they were there, or nothing was served yet."""
    return old is None or not is_established(old) or has_broken_authorities(old.get("spec") or {})
