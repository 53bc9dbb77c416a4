"""Makes the ResourceClaims that pods ask for by template, and says in the pods' status which they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from walras.core.errors import NotFound, WalrasError
from walras.kube.api import API, Change
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.claims.pod import (
    CLAIM_TEMPLATES,
    POD_CLAIM_ANNOTATION,
    RESOURCE_CLAIMS,
    can_be_reserved,
    claim_names,
    is_allocated,
    is_for,
    is_generated,
    is_reserved,
    reserve,
)
from walras.tenants.controller import Key, Manager
from walras.tenants.events import Recorder
from walras.tenants.objects import PODS, Object, deleting, finished, status, uid

COMPONENT: Final = "resource_claim"
# So much of the pod's and the claim's name is in a generated one.
_BASE_MAX: Final = 57


class ClaimTemplateController:
    """Keys are pods."""

    def __init__(self, api: API, manager: Manager, recorder: Recorder) -> None:
        self._api = api
        self._manager = manager
        self._recorder = recorder

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(PODS, self._pod_changed),
            self._api.subscribe(CLAIM_TEMPLATES, self._template_changed),
            self._api.subscribe(RESOURCE_CLAIMS, self._claim_changed),
        ]

    def _pod_changed(self, change: Change) -> None:
        pod = change.object
        if change.type != "DELETED" and (_needs_claims(pod) or _is_bound(pod)):
            self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _template_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            return
        for pod in self._api.list(change.cluster, PODS, change.namespace):
            if change.name in _templates(pod).values() and _needs_claims(pod):
                self._manager.add(self, Key(change.cluster, change.namespace, pod["metadata"]["name"]))

    def _claim_changed(self, change: Change) -> None:
        """One that was made for a pod may be gone while the pod still needs it."""
        if change.type != "DELETED":
            return
        for owner in change.object["metadata"].get("ownerReferences") or ():
            if owner.get("kind") == "Pod" and owner.get("controller"):
                self._manager.add(self, Key(change.cluster, change.namespace, owner["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        pod = self._api.find(cluster, PODS, namespace, name)
        if pod is not None and _is_bound(pod):
            await self._reserve(cluster, pod)
        if pod is None or not _needs_claims(pod):
            return None
        transaction = self._api.transaction()
        made: dict[str, str] = {}
        for pod_claim, template in _templates(pod).items():
            if self._has(cluster, pod, pod_claim):
                continue
            try:
                made[pod_claim] = self._make(transaction, cluster, pod, pod_claim, template)
            except WalrasError as error:
                self._recorder.event(
                    cluster, pod, "Warning", "FailedResourceClaimCreation",
                    f"PodResourceClaim {pod_claim}: {error.message}", component=COMPONENT,
                )  # fmt: skip
                if isinstance(error, NotFound):
                    # It is looked at again when there is such a template.
                    return None
                raise
        if made:
            transaction.edit(cluster, PODS, namespace, name, lambda latest: _note(latest, made))
            await transaction.commit()
        return None

    async def _reserve(self, cluster: str, pod: Object) -> None:
        """A pod that was bound past the scheduler may use what its claims hold."""
        namespace, transaction = pod["metadata"]["namespace"], self._api.transaction()
        for pod_claim, name in claim_names(pod):
            claim = self._api.find(cluster, RESOURCE_CLAIMS, namespace, name or "")
            if claim is None or (is_generated(pod, pod_claim) and not is_for(claim, pod)):
                continue
            if is_allocated(claim) and not is_reserved(claim, pod) and can_be_reserved(claim):
                transaction.edit(cluster, RESOURCE_CLAIMS, namespace, name or "", partial(reserve, pod=pod))
        await transaction.commit()

    def _has(self, cluster: str, pod: Object, pod_claim: str) -> bool:
        """Whether its status names a claim that is the pod's, or says that it needs none."""
        for each in status(pod).get("resourceClaimStatuses") or ():
            if each["name"] == pod_claim:
                name = each.get("resourceClaimName")
                claim = self._api.find(cluster, RESOURCE_CLAIMS, pod["metadata"]["namespace"], name or "")
                return not name or (claim is not None and is_for(claim, pod))
        return False

    def _make(
        self, transaction: Transaction, cluster: str, pod: Object, pod_claim: str, template: str
    ) -> str:
        """The name of the claim. Raises NotFound without the template, and what admission refuses."""
        namespace = pod["metadata"]["namespace"]
        found = self._api.find(cluster, CLAIM_TEMPLATES, namespace, template)
        if found is None:
            raise NotFound(
                f'resource claim template "{template}": resourceclaimtemplate.resource.k8s.io "{template}" '
                "not found"
            )
        made = transaction.make(cluster, RESOURCE_CLAIMS, _claim(pod, pod_claim, found))
        return str(made["metadata"]["name"])


def _is_bound(pod: Object) -> bool:
    return bool(
        pod["spec"].get("resourceClaims")
        and pod["spec"].get("nodeName")
        and not finished(pod)
        and not deleting(pod)
    )


def _needs_claims(pod: Object) -> bool:
    """Whether it has templates and may still run."""
    return bool(_templates(pod)) and not finished(pod) and not deleting(pod)


def _templates(pod: Mapping[str, Any]) -> dict[str, str]:
    return {
        each["name"]: each["resourceClaimTemplateName"]
        for each in pod["spec"].get("resourceClaims") or ()
        if each.get("resourceClaimTemplateName")
    }


def _claim(pod: Object, pod_claim: str, template: Object) -> Object:
    described = (template["spec"].get("metadata")) or {}
    metadata: Object = {
        "generateName": _base(pod["metadata"]["name"], pod_claim),
        "namespace": pod["metadata"]["namespace"],
        "annotations": {**(described.get("annotations") or {}), POD_CLAIM_ANNOTATION: pod_claim},
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": pod["metadata"]["name"],
                "uid": uid(pod),
                "controller": True,
            }
        ],
    }
    if described.get("labels"):
        metadata["labels"] = dict(described["labels"])
    return {"metadata": metadata, "spec": copy(template["spec"].get("spec") or {})}


def _base(pod: str, claim: str) -> str:
    """As upstream: where both names are too long together, each keeps its part of the room."""
    base = f"{pod}-{claim}-"
    if len(base) <= _BASE_MAX:
        return base
    return f"{pod[: len(pod) * _BASE_MAX // len(base)]}-{claim[: len(claim) * _BASE_MAX // len(base)]}"


def _note(pod: Object, made: Mapping[str, str]) -> None:
    before = status(pod).get("resourceClaimStatuses") or ()
    kept = [each for each in before if each["name"] not in made]
    added = [{"name": name, "resourceClaimName": claim} for name, claim in made.items()]
    pod.setdefault("status", {})["resourceClaimStatuses"] = [*kept, *added]
