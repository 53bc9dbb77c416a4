"""The scheduler's part: on which nodes a pod's claims can be met, and what is written when it goes to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from walras.core.errors import Invalid, WalrasError
from walras.devices.request import GpuRequest
from walras.kube.api import API
from walras.kube.transaction import Transaction
from walras.tenants.claims.asks import Ask, Asked, read
from walras.tenants.claims.beside import Claimed, beside_limits
from walras.tenants.claims.effort import STEPS_MAX, Effort
from walras.tenants.claims.extended import UNNAMED, Extended, extended_of, provided_by
from walras.tenants.claims.pod import (
    DEVICE_CLASSES,
    FINALIZER,
    RESOURCE_CLAIMS,
    SLICES,
    can_be_reserved,
    claims_of,
    consumer,
    is_allocated,
    is_reserved,
    reserve,
)
from walras.tenants.claims.pools import Pools, in_selector
from walras.tenants.claims.result import allocation, taken_by
from walras.tenants.claims.search import Pick, Search, Taken
from walras.tenants.demands import Demand, by_claims
from walras.tenants.fit import Among, Node, Usage
from walras.tenants.objects import NAMESPACES, PODS, Object, finalizers, labels, status
from walras.tenants.view import ClusterView

ClaimKey = tuple[str, str]
"""Namespace and name."""

ADMIN_LABEL: Final = "resource.kubernetes.io/admin-access"
UNAVAILABLE: Final = "cannot allocate all claims"


class Placing:
    """One pass over a cluster's pods."""

    def __init__(self, api: API, cluster: str, transaction: Transaction, view: ClusterView) -> None:
        self._api, self._cluster, self._transaction, self._view = api, cluster, transaction, view
        self._taken: Taken | None = None
        self._claimed: Claimed | None = None
        self._spent = 0

    @property
    def is_spent(self) -> bool:
        """Whether it has taken so long that other clusters should have their turn."""
        return self._spent >= STEPS_MAX

    def plan(self, pod: Object, demand: Demand, among: Among | None) -> Plan | None:
        """None where it has no claims. Raises Invalid where no node can do, in kube-scheduler's words."""
        namespace = pod["metadata"]["namespace"]
        found = claims_of(pod, lambda name: self._find(namespace, name))
        # A pod may call one claim by several names.
        claims = {_key(claim): claim for claim in found.values()}
        asked = []
        for claim in claims.values():
            if not is_allocated(claim):
                asked.append(read(claim, self._class))
            elif not is_reserved(claim, pod) and not can_be_reserved(claim):
                raise Invalid("resourceclaim in use")
        extended = extended_of(pod, self._classes, provided_by(self._view.nodes.values()))
        if extended is not None:
            asked.append(read(extended.claim, self._class))
        if not claims and extended is None:
            return None
        if any(_administers(each) for each in asked) and not self._may_administer(namespace):
            raise Invalid(f'admin access to devices is for namespaces with the label {ADMIN_LABEL}: "true"')
        return Plan(self, pod, demand, claims, asked, among, extended)

    def search(
        self, asked: list[Asked], node: Node, gpu: GpuRequest | None, effort: Effort
    ) -> list[list[Pick]] | None:
        """`gpu` is what the same pod asks for by its limits. Raises Invalid."""
        if self._view.pools is None:
            self._view.pools = Pools(self._api.list(self._cluster, SLICES))
        pools, usage = self._view.pools.on(node), self._view.usage.get(node.name, Usage())
        limits = usage.gpus if gpu is None else [*usage.gpus, gpu]
        taken = beside_limits(self._held(), node, limits, pools)
        before = effort.spent
        try:
            return Search(asked, pools, taken, effort).run()
        finally:
            self._spent += effort.spent - before

    def _held(self) -> Taken:
        """What all claims of the cluster hold, as they are or are on their way to.

        What one gives back is free when that is on the disk.
        """
        if self._taken is None:
            found = {_key(claim): claim for claim in self._api.list(self._cluster, RESOURCE_CLAIMS)}
            for record in self._api.state.latest_of(self._cluster, RESOURCE_CLAIMS):
                if is_allocated(record.object):
                    found[_key(record.object)] = record.object
            self._taken = taken_by(found.values())
        return self._taken

    def look(self, nodes: Iterable[tuple[Node, Usage]]) -> None:
        """Notes what claims hold of the leases among the nodes, for pods that ask by limits."""
        for node, usage in nodes:
            if node.is_lease:
                if self._claimed is None:
                    self._claimed = Claimed(self._held())
                usage.claimed = self._claimed.on(node)

    def write(self, pod: Object, claims: Iterable[ClaimKey], allocated: Mapping[ClaimKey, Object]) -> None:
        """Stages the allocations, and that the pod may use its claims.

        What is staged is what was looked at: nothing comes in between, and a commit that is overtaken fails.
        """
        for key in claims:

            def change(latest: Object, key: ClaimKey = key) -> None:
                if key in allocated:
                    latest.setdefault("status", {})["allocation"] = allocated[key]
                    if FINALIZER not in finalizers(latest):
                        latest["metadata"]["finalizers"] = [*finalizers(latest), FINALIZER]
                reserve(latest, pod)

            self._transaction.edit(self._cluster, RESOURCE_CLAIMS, *key, change)
        for given in allocated.values():
            self._hold(given)

    def _hold(self, given: Object) -> None:
        assert self._taken is not None, "what is allocated was searched for"
        fresh = taken_by([{"status": {"allocation": given}}])
        self._taken.devices |= fresh.devices
        for device, part in fresh.parts.items():
            self._taken.add(device, part)
        if self._claimed is not None:
            self._claimed.add(fresh.devices, {device: self._taken.parts[device] for device in fresh.parts})

    def write_extended(self, pod: Object, extended: Extended, allocated: Object) -> None:
        """Stages the claim of extended resources, and in the pod's status whose devices it holds."""
        metadata = {**extended.claim["metadata"], "finalizers": [FINALIZER]}
        del metadata["name"]
        status_ = {"allocation": allocated, "reservedFor": [consumer(pod)]}
        claim = {"metadata": metadata, "spec": extended.claim["spec"], "status": status_}
        made = self._transaction.create(self._cluster, RESOURCE_CLAIMS, claim)
        self._hold(allocated)
        said = {
            "resourceClaimName": made["metadata"]["name"],
            "requestMappings": [dict(each) for each in extended.mappings],
        }
        self._transaction.edit(
            self._cluster, PODS, pod["metadata"]["namespace"], pod["metadata"]["name"],
            lambda latest: latest.setdefault("status", {}).update(extendedResourceClaimStatus=said),
        )  # fmt: skip

    def new_uid(self) -> str:
        return self._api.ids.uid()

    def _find(self, namespace: str, name: str) -> Object | None:
        return self._transaction.peek(self._cluster, RESOURCE_CLAIMS, namespace, name)

    def _class(self, name: str) -> Object | None:
        return self._api.find(self._cluster, DEVICE_CLASSES, "", name)

    def _classes(self) -> Iterable[Object]:
        return self._api.list(self._cluster, DEVICE_CLASSES)

    def _may_administer(self, namespace: str) -> bool:
        found = self._api.find(self._cluster, NAMESPACES, "", namespace)
        return found is not None and labels(found).get(ADMIN_LABEL) == "true"


class Plan:
    """One pod's claims over the nodes; stands among what else keeps it from one."""

    def __init__(
        self,
        placing: Placing,
        pod: Object,
        demand: Demand,
        claims: Mapping[ClaimKey, Object],
        asked: list[Asked],
        among: Among | None,
        extended: Extended | None,
    ) -> None:
        self._placing, self._pod, self._claims, self._asked = placing, pod, claims, asked
        self._demand = demand
        self._among, self._extended = among, extended
        self._effort = Effort()
        self._picks: dict[str, list[list[Pick]]] = {}
        self._places = [
            selector
            for claim in claims.values()
            if (selector := (status(claim).get("allocation") or {}).get("nodeSelector")) is not None
        ]

    def refusal(self, node: Node) -> str:
        """Why the claims cannot be met there; "" where they can."""
        if self._among is not None and (why := self._among.refusal(node)):
            return why
        if not all(in_selector(place, node) for place in self._places):
            return "resourceclaim not available on the node"
        if not self._asked:
            return ""
        try:
            picks = self._placing.search(self._asked, node, self._demand.gpu, self._effort)
        except WalrasError as error:
            return error.message
        if picks is None:
            return UNAVAILABLE
        self._picks[node.name] = picks
        return ""

    def score(self, node: Node) -> tuple[int, int]:
        return self._among.score(node) if self._among is not None else (0, 0)

    def stage(self, node: str) -> None:
        """Stages what the pod gets on a node that was not refused."""
        found = zip(self._asked, self._picks.get(node, ()), strict=True) if self._asked else ()
        allocated = {
            _key(asked.raw): allocation(asked, picks, node, self._placing.new_uid) for asked, picks in found
        }
        unnamed = allocated.pop((self._pod["metadata"]["namespace"], UNNAMED), None)
        self._placing.write(self._pod, self._claims, allocated)
        if self._extended is not None and unnamed is not None:
            self._placing.write_extended(self._pod, self._extended, unnamed)

    @property
    def demand(self) -> Demand:
        """The pod's demand without what its claims bring."""
        return by_claims(self._demand, self._extended.resources if self._extended else ())


def _key(claim: Mapping[str, Any]) -> ClaimKey:
    return claim["metadata"]["namespace"], claim["metadata"]["name"]


def _administers(asked: Asked) -> bool:
    every: list[Ask] = [ask for alternatives in asked.requests for ask in alternatives]
    return any(ask.admin for ask in every)
