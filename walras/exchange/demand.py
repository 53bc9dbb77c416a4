"""The bidder: pending pods that no node fits become bids, which follow prices and speeds until decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from walras.core.errors import Invalid, NotFound, WalrasError
from walras.exchange import podbid
from walras.exchange.book import Pool, current_pool, usable
from walras.exchange.claimed import extended_for
from walras.exchange.nodes import lease_node, prospect
from walras.exchange.proxy import Proxy
from walras.exchange.sharing import Leads
from walras.exchange.supply import Supply
from walras.kube import validation
from walras.kube.api import API
from walras.kube.record import Object
from walras.tenants.claims.pod import RESOURCE_CLAIMS, claim_names, is_allocated, is_generated
from walras.tenants.demands import Demand, by_claims, demand_of, taken_by
from walras.tenants.events import Recorder
from walras.tenants.fit import Node, Usage, node_of, refusals
from walras.tenants.objects import NAMESPACES, NODES, labels
from walras.tenants.relations import Relation, relates

FLEET: Final = "fleet"
PODS: Final = "pods"
BIDS: Final = "bids.walras.dev"
AGENTS: Final = "agents.walras.dev"
POOLS: Final = "pools.walras.dev"
FINISHED: Final = ("Succeeded", "Failed")
# How often a bid's price is looked at again that its agent's strategy named.
REPRICE_MS: Final = 5_000
# Said of a pod whose claims are not there yet: when they are, existing nodes are looked at first.
_NO_CLAIM: Final = 'resourceclaim "'


# In the JSON of a pod with a node, and perhaps of others.
_HAS_NODE: Final = b'"nodeName":"'


class Bidder:
    """Reconciles the bid of one pod: none if it needs none, one while it waits, an ended one after."""

    def __init__(self, api: API, recorder: Recorder, supply: Supply, proxy: Proxy) -> None:
        self._api = api
        self._recorder = recorder
        self._supply = supply
        self._proxy = proxy
        self._leads = Leads()

    def forget(self, cluster: str, namespace: str, name: str) -> None:
        """The pod is gone."""
        self._leads.leave((cluster, namespace), name)

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        if cluster == FLEET:
            return None
        pod = self._api.find(cluster, PODS, namespace, name)
        bid = self._api.find(cluster, BIDS, namespace, name)
        if pod is None or not _waits(pod):
            self._leads.leave((cluster, namespace), name)
        if bid is not None and not _owned_by_pod(bid, name):
            return None
        if pod is None or (bid is not None and not _owned_by(bid, pod["metadata"]["uid"])):
            # The bid of a pod that is gone, perhaps with a new pod of the same name in its place.
            if bid is not None:
                await self._delete(cluster, bid)
            return None if pod is None else 0
        if _is_over(pod):
            await self._end(cluster, bid)
        elif bid is None and _waits(pod):
            if not self._leads.lead((cluster, namespace), name, self._open_claims(cluster, pod)):
                return REPRICE_MS
            await self._place(cluster, pod)
            return self._reprice_ms(cluster, pod)
        elif bid is not None and pod["spec"].get("nodeName") and not bid.get("status", {}).get("lease"):
            # It found a place on a node that the agent had already.
            await self._delete(cluster, bid)
        elif bid is not None and bid.get("status", {}).get("phase", "Pending") in ("Pending", "Refused"):
            # As after a start, when nobody knows who bids.
            self._leads.lead((cluster, namespace), name, self._open_claims(cluster, pod))
            await self._revise(cluster, pod, bid)
            return self._reprice_ms(cluster, pod)
        return None

    def _open_claims(self, cluster: str, pod: Object) -> set[str]:
        """The pod's claims that hold nothing yet and that other pods may name too."""
        namespace = pod["metadata"]["namespace"]
        named = {claim or "" for name, claim in claim_names(pod) if not is_generated(pod, name)}
        found = (self._api.find(cluster, RESOURCE_CLAIMS, namespace, claim) for claim in named)
        return {claim["metadata"]["name"] for claim in found if claim and not is_allocated(claim)}

    def _reprice_ms(self, cluster: str, pod: Object) -> int | None:
        """When to look at the bid's price again: never, where it is the pod's own or does not change."""
        adapts = self._proxy.adapts(cluster) and not podbid.names_price(self._api, cluster, pod)
        return REPRICE_MS if adapts else None

    async def _revise(self, cluster: str, pod: Object, bid: Object) -> None:
        """Bid by the pool's present speeds and at what the agent's strategy says now, where that changed."""
        pool = current_pool(self._api, self._supply.devices)
        try:
            packages = podbid.resplit(self._api, cluster, pod, bid["spec"], self._proxy, pool, self._supply)
            if packages is None and self._reprice_ms(cluster, pod) is not None:
                packages = podbid.reprice(cluster, pod, bid["spec"], self._proxy, pool)
        except WalrasError:
            return  # the market refuses what it cannot read, and says so
        if packages is None:
            return
        metadata = bid["metadata"]

        def change(latest: Object) -> None:
            if latest["spec"] == bid["spec"]:
                latest["spec"]["packages"] = packages

        await self._api.edit(cluster, BIDS, metadata["namespace"], metadata["name"], change)

    async def _place(self, cluster: str, pod: Object) -> None:
        try:
            pool = current_pool(self._api, self._supply.devices)
            spec = podbid.bid_spec(self._api, cluster, pod, self._proxy, pool, self._supply)
            if spec is None:
                return
            bid = _bid(pod, spec)
            self._check(cluster, bid)
            self._check_fit(cluster, pod, spec["packages"], pool)
        except WalrasError as error:
            self._leads.leave((cluster, pod["metadata"]["namespace"]), pod["metadata"]["name"])
            self._recorder.event(cluster, pod, "Warning", "InvalidRequest", error.message)
            return
        await self._api.create(cluster, BIDS, bid)

    def _check(self, cluster: str, bid: Object) -> None:
        """Raises Invalid: labels and a priority class may say what nobody has looked at yet."""
        resource = self._api.registry(cluster)[BIDS]
        causes = validation.validate(resource, bid, None)
        if causes:
            raise validation.invalid(resource, bid["metadata"]["name"], causes)

    def _check_fit(self, cluster: str, pod: Object, packages: Sequence[Object], pool: Pool) -> None:
        """Raises Invalid for a pod that would not fit any node that its own bid can win, whatever it pays."""
        demand = demand_of(pod)
        extended = extended_for(self._api, cluster, pod)
        if extended is not None:
            demand = by_claims(demand, extended.resources)
        said = ""
        models = {
            (device.model, number): (device, package)
            for number, package in enumerate(packages)
            for device in usable(package, pool)
        }
        for device, package in models.values():
            lease = prospect(podbid.request_of(package), [device], pool, self._supply)
            node = lease_node(lease, self._supply, 0)
            reasons, has = refusals(demand, node_of(node), Usage()), node["status"]["capacity"]
            if not reasons and relates(demand):
                reasons = self._kept_away(cluster, demand, node_of(node))
            if not reasons:
                return
            said = (
                f"the node that its bid could win would not take it: {', '.join(reasons)}; ask for less "
                f"or for a larger share (with this one come cpu {has['cpu']} and memory {has['memory']})"
            )
        if said:  # else there is no such device: the market refuses it, and says what there is
            raise Invalid(said)

    def _kept_away(self, cluster: str, demand: Demand, node: Node) -> list[str]:
        """Why other pods of the agent would keep this one from a node of its own."""
        nodes = {each["metadata"]["name"]: node_of(each) for each in self._api.list(cluster, NODES)}
        placed = ((pod, pod["spec"]["nodeName"]) for pod in pods_with_nodes(self._api, cluster))
        peers = [(taken_by(pod), nodes[where]) for pod, where in placed if where in nodes]

        def labels_of(namespace: str) -> Mapping[str, str]:
            found = self._api.find(cluster, NAMESPACES, "", namespace)
            return labels(found) if found is not None else {}

        why = Relation(demand, [*nodes.values(), node], peers, labels_of).refusal(node)
        return [why] if why else []

    async def _end(self, cluster: str, bid: Object | None) -> None:
        if bid is None or bid.get("status", {}).get("phase") == "Ended":
            return
        metadata = bid["metadata"]

        def ended(latest: Object) -> None:
            latest.setdefault("status", {})["phase"] = "Ended"

        await self._api.edit(cluster, BIDS, metadata["namespace"], metadata["name"], ended)

    async def _delete(self, cluster: str, bid: Object) -> None:
        metadata = bid["metadata"]
        try:
            await self._api.delete(cluster, BIDS, metadata["namespace"], metadata["name"])
        except NotFound:
            return


def pods_with_nodes(api: API, cluster: str) -> Iterator[Object]:
    """The cluster's pods that are on nodes; what waits, perhaps thousands, is not even decoded."""
    collection = api.state.collection(cluster, PODS)
    for record in collection.listed() if collection else ():
        if _HAS_NODE in record.raw and record.object["spec"].get("nodeName"):
            yield record.object


def _bid(pod: Object, spec: Object) -> Object:
    metadata = pod["metadata"]
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "ownerReferences": [owner],
        },
        "spec": spec,
        "status": {"phase": "Pending"},
    }


def _waits(pod: Object) -> bool:
    """Pending in its cluster because the scheduler found no node that fits, its claims being there."""
    if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    return any(
        condition.get("type") == "PodScheduled"
        and condition.get("status") == "False"
        and condition.get("reason") == "Unschedulable"
        and _NO_CLAIM not in condition.get("message", "")
        for condition in pod.get("status", {}).get("conditions") or ()
    )


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in FINISHED


def _owned_by_pod(bid: Object, name: str) -> bool:
    return any(
        owner.get("kind") == "Pod" and owner.get("name") == name
        for owner in bid["metadata"].get("ownerReferences") or ()
    )


def _owned_by(bid: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in bid["metadata"].get("ownerReferences") or ())
