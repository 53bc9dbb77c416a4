"""How many replicas each ReplicaSet of a Deployment should have next. Pure.

Follows Kubernetes' deployment controller (rolling.go, recreate.go): never fewer available pods than
replicas - maxUnavailable, never more pods than replicas + maxSurge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from walras.kube.record import copy
from walras.tenants.objects import Object, status
from walras.tenants.workloads import share_of

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
# Kubernetes' alphabet for names that are safe and say nothing.
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Ten characters that differ where templates do."""
    digest = hashlib.sha256(msgspec.json.encode([template, collisions], order="sorted")).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def same_template(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two pod templates are equal but for the label that tells them apart."""
    return _plain(a) == _plain(b)


def _plain(template: Mapping[str, Any]) -> Object:
    plain: Object = copy(dict(template))
    ((plain.get("metadata") or {}).get("labels") or {}).pop(HASH_LABEL, None)
    return plain


def limits(spec: Mapping[str, Any]) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: surge rounded up, unavailable down, never both 0."""
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = share_of(rolling.get("maxSurge", "25%"), replicas, up=True)
    unavailable = share_of(rolling.get("maxUnavailable", "25%"), replicas, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def scale(spec: Mapping[str, Any], new: Object, old: Sequence[Object], *, gone: bool) -> list[int]:
    """Replicas for the new set, then for each of the old ones.

    `gone`: the old sets have no pods and want none; Recreate waits for that, terminating ones too.
    """
    replicas = spec.get("replicas", 1)
    wants_new, wants_old = new["spec"].get("replicas", 0), [each["spec"].get("replicas", 0) for each in old]
    if (spec.get("strategy") or {}).get("type") == "Recreate":
        return [replicas if gone else wants_new, *([0] * len(old))]
    surge, unavailable = limits(spec)
    room = replicas + surge - wants_new - sum(wants_old)
    scaled_new = min(replicas, wants_new + max(0, room))
    return [scaled_new, *_scale_down(old, wants_old, new, scaled_new, replicas - unavailable)]


def _scale_down(
    old: Sequence[Object], wants: list[int], new: Object, scaled_new: int, available_min: int
) -> list[int]:
    """Old sets may lose the pods that are not available anyway, then as many as the new ones stand in for."""
    wants = list(wants)
    new_available = status(new).get("availableReplicas", 0)
    budget = sum(wants) + scaled_new - available_min - max(0, scaled_new - new_available)
    for unhealthy_first in (True, False):
        for index, each in enumerate(old):
            if budget <= 0:
                return wants
            unhealthy = max(0, wants[index] - status(each).get("availableReplicas", 0))
            cut = min(budget, unhealthy if unhealthy_first else wants[index])
            wants[index] -= cut
            budget -= cut
        # The rest must leave enough that are available.
        available = new_available + sum(
            min(want, status(each).get("availableReplicas", 0)) for want, each in zip(wants, old, strict=True)
        )
        budget = min(budget, available - available_min) if unhealthy_first else 0
    return wants
