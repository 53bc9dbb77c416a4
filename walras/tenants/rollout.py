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
DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
MAX: Final = "deployment.kubernetes.io/max-replicas"
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


def replicas_annotations(spec: Mapping[str, Any]) -> dict[str, str]:
    """What a set with pods remembers of the deployment's size: from which it was scaled."""
    replicas, (surge, _) = spec.get("replicas", 1), limits(spec)
    return {DESIRED: str(replicas), MAX: str(replicas + surge)}


def _remembered(replica_set: Object, annotation: str) -> int | None:
    text = (replica_set["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def proportional(spec: Mapping[str, Any], new: Object, old: Sequence[Object]) -> list[int] | None:
    """Replicas for the new set and the old ones when the deployment was scaled in the middle of a rollout.

    Each gets its part of what is added or taken away, and the largest what is left over; None where the
    deployment was not scaled, or there is nothing to divide.
    """
    sets = [new, *old]
    sizes = [int(each["spec"].get("replicas", 0)) for each in sets]
    active = [number for number, size in enumerate(sizes) if size]
    replicas = int(spec.get("replicas", 1))
    before = [_remembered(sets[number], DESIRED) for number in active]
    if len(active) < 2 or all(each in (None, replicas) for each in before):
        return None
    surge, _ = limits(spec)
    most = replicas + surge if replicas else 0
    add = most - sum(sizes)
    # The largest first; of equals the newest when pods are added, the oldest when they are taken away.
    order = sorted(active, key=lambda number: (-sizes[number], number if add > 0 else -number))
    parts = dict.fromkeys(order, 0)
    for number in order:
        left = add - sum(parts.values())
        was = _remembered(sets[number], MAX) or most or 1
        part = -sizes[number] if not replicas else _rounded(sizes[number] * most, was) - sizes[number]
        parts[number] = min(part, left) if add > 0 else max(part, left)
    parts[order[0]] += add - sum(parts.values())
    return [max(0, size + parts.get(number, 0)) for number, size in enumerate(sizes)]


def _rounded(dividend: int, divisor: int) -> int:
    """The quotient, halves up."""
    return (2 * dividend + divisor) // (2 * divisor)
