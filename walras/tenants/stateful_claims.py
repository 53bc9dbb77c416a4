"""The volume claims of a stateful set's pods: their names, and who owns them when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from walras.kube.record import copy
from walras.tenants.objects import Object, owner_reference, owners, uid

_RETAIN: Final = "Retain"
_DELETE: Final = "Delete"


def claim_name(template: Mapping[str, Any], set_name: str, ordinal: int) -> str:
    return f"{template['metadata']['name']}-{set_name}-{ordinal}"


def claims_of(owner: Object, ordinal: int) -> list[Object]:
    """The claims that the set's templates ask for at this ordinal."""
    metadata, made = owner["metadata"], []
    selected = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    for template in owner["spec"].get("volumeClaimTemplates") or ():
        described = template.get("metadata") or {}
        claim: Object = {
            "metadata": {
                "name": claim_name(template, metadata["name"], ordinal),
                "namespace": metadata["namespace"],
                "labels": {**(described.get("labels") or {}), **selected},
            },
            "spec": copy(template.get("spec") or {}),
            "status": {"phase": "Pending"},
        }
        if described.get("annotations"):
            claim["metadata"]["annotations"] = dict(described["annotations"])
        made.append(claim)
    return made


def mount(owner: Object, pod: Object, ordinal: int) -> None:
    """Puts the set's claims among the pod's volumes in place, instead of volumes of the same names."""
    templates = owner["spec"].get("volumeClaimTemplates") or ()
    if not templates:
        return
    names = {template["metadata"]["name"] for template in templates}
    own: list[Object] = [
        {
            "name": template["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(template, owner["metadata"]["name"], ordinal)},
        }
        for template in templates
    ]
    others = [each for each in pod["spec"].get("volumes") or () if each["name"] not in names]
    pod["spec"]["volumes"] = [*own, *others]


def is_stale(claim: Object, pod_name: str, pod_uid: str) -> bool:
    """Whether the claim still goes with an earlier pod of this name; a new one waits for that."""
    return any(
        each.get("kind") == "Pod" and each.get("name") == pod_name and each.get("uid") != pod_uid
        for each in owners(claim)
    )


def owned(claim: Object, owner: Object, pod: Object, *, in_range: bool) -> list[Object] | None:
    """The owner references that the retention policy wants on a claim; None where they are right.

    `in_range`: the set still wants a pod of this ordinal. A claim that another controller has is left alone.
    """
    present = [dict(each) for each in owners(claim)]
    foreign = [each for each in present if not _is(each, owner) and not _is(each, pod)]
    if _stale(present, owner) or _stale(present, pod):
        return None
    wanted = list(foreign)
    if not any(each.get("controller") for each in foreign):
        wanted += [owner_reference(each) for each in _wants(owner, pod, in_range=in_range)]
    return wanted if _uids(wanted) != _uids(present) else None


def _wants(owner: Object, pod: Object, *, in_range: bool) -> list[Object]:
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    scaled, deleted = policy.get("whenScaled", _RETAIN), policy.get("whenDeleted", _RETAIN)
    if scaled == _DELETE and not in_range:
        return [pod]
    return [owner] if deleted == _DELETE else []


def _is(reference: Mapping[str, Any], obj: Object) -> bool:
    return (reference.get("kind"), reference.get("name")) == (obj["kind"], obj["metadata"]["name"])


def _stale(references: Sequence[Mapping[str, Any]], obj: Object) -> bool:
    return any(_is(each, obj) and each.get("uid") != uid(obj) for each in references)


def _uids(references: Sequence[Mapping[str, Any]]) -> set[tuple[Any, bool]]:
    return {(each.get("uid"), bool(each.get("controller"))) for each in references}
