"""The ResourceClaims of a pod: which they are, and whether they are there for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from walras.core.errors import Invalid
from walras.tenants.claims.extended import UNNAMED
from walras.tenants.objects import Object, controller_of, deleting, status, uid

RESOURCE_CLAIMS: Final = "resourceclaims.resource.k8s.io"
CLAIM_TEMPLATES: Final = "resourceclaimtemplates.resource.k8s.io"
DEVICE_CLASSES: Final = "deviceclasses.resource.k8s.io"
SLICES: Final = "resourceslices.resource.k8s.io"
FINALIZER: Final = "resource.kubernetes.io/delete-protection"
POD_CLAIM_ANNOTATION: Final = "resource.kubernetes.io/pod-claim-name"
# As resource.k8s.io has it.
RESERVED_MAX: Final = 256


class NotMade(Invalid):
    """A claim of a template is still to be made: a controller does that, and the scheduler waits."""


def claim_names(pod: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The pod's name of each claim that it needs with the claim's own; None for one not made yet."""
    statuses = status(pod).get("resourceClaimStatuses") or ()
    made = {each["name"]: each.get("resourceClaimName") for each in statuses}
    for each in pod["spec"].get("resourceClaims") or ():
        if each.get("resourceClaimName"):
            yield each["name"], each["resourceClaimName"]
        elif each["name"] not in made:
            yield each["name"], None
        elif made[each["name"]]:
            yield each["name"], made[each["name"]]
    extended = status(pod).get("extendedResourceClaimStatus") or {}
    if extended.get("resourceClaimName"):
        yield UNNAMED, extended["resourceClaimName"]


def is_generated(pod: Mapping[str, Any], pod_claim: str) -> bool:
    """Whether the claim is made from a template, for this pod alone."""
    return any(
        each["name"] == pod_claim and each.get("resourceClaimTemplateName")
        for each in pod["spec"].get("resourceClaims") or ()
    )


def claims_of(pod: Mapping[str, Any], find: Callable[[str], Object | None]) -> dict[str, Object]:
    """The pod's claims by the pod's names of them; `find` knows a claim of its namespace by its own.

    Raises Invalid, in kube-scheduler's words, where one is not there for the pod.
    """
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    found = {}
    for pod_claim, claim_name in claim_names(pod):
        if claim_name is None:
            raise NotMade(f'pod "{namespace}/{name}": ResourceClaim not created yet')
        claim = find(claim_name)
        if claim is None:
            raise Invalid(f'resourceclaim "{claim_name}" not found')
        if deleting(claim):
            raise Invalid(f'resourceclaim "{claim_name}" is being deleted')
        if is_generated(pod, pod_claim) and not is_for(claim, pod):
            raise Invalid(
                f"ResourceClaim {namespace}/{claim_name} was not created for Pod {namespace}/{name} (Pod is "
                "not owner)"
            )
        found[pod_claim] = claim
    return found


def is_for(claim: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether the claim was made for the pod."""
    owner = controller_of(claim)
    return owner is not None and owner.get("uid") == uid(pod)


def is_allocated(claim: Mapping[str, Any]) -> bool:
    return status(claim).get("allocation") is not None


def is_reserved(claim: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether the pod may use what the claim holds."""
    return any(each.get("uid") == uid(pod) for each in status(claim).get("reservedFor") or ())


def can_be_reserved(claim: Mapping[str, Any]) -> bool:
    return len(status(claim).get("reservedFor") or ()) < RESERVED_MAX


def consumer(pod: Mapping[str, Any]) -> Object:
    """The pod as an entry of `status.reservedFor`."""
    return {"resource": "pods", "name": pod["metadata"]["name"], "uid": uid(pod)}


def reserve(claim: Object, pod: Mapping[str, Any]) -> None:
    """Enters the pod, in place, if it is not there."""
    if not is_reserved(claim, pod):
        held = claim.setdefault("status", {}).setdefault("reservedFor", [])
        held.append(consumer(pod))
