"""Who converts the objects of a CustomResourceDefinition, as its spec.conversion says."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from walras.kube.admission.http import CalloutFailed, trust


@dataclass(frozen=True, slots=True)
class Webhook:
    """`client` is a clientConfig; `reviews` are the versions of ConversionReview that it takes."""

    client: Mapping[str, Any] = field(hash=False)
    reviews: tuple[str, ...]
    # Every version that the definition has, served or not, as an apiVersion.
    versions: tuple[str, ...]


def webhook(spec: Mapping[str, Any]) -> Webhook | None:
    """The webhook of a definition's spec; None where versions differ in nothing but their names."""
    conversion = spec.get("conversion") or {}
    if conversion.get("strategy") != "Webhook" or len(spec["versions"]) == 1:
        return None
    given = conversion.get("webhook") or {}
    versions = tuple(f"{spec['group']}/{each['name']}" for each in spec["versions"])
    client = given.get("clientConfig") or {}
    client = {**client, "caBundle": _unless_blank(client.get("caBundle") or "")}
    return Webhook(client, tuple(given.get("conversionReviewVersions") or ()), versions)


def has_broken_authorities(spec: Mapping[str, Any]) -> bool:
    """Whether a definition's spec has a caBundle for its webhook that cannot be read."""
    given = (spec.get("conversion") or {}).get("webhook") or {}
    bundle = (given.get("clientConfig") or {}).get("caBundle") or ""
    if not bundle:
        return False
    try:
        trust(bundle)
    except CalloutFailed:
        return True
    return False


def _unless_blank(ca_bundle: str) -> str:
    """Nothing for what is only spaces."""
    try:
        return ca_bundle if base64.b64decode(ca_bundle).strip() else ""
    except (binascii.Error, ValueError):
        return ca_bundle
