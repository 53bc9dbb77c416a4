"""The bidder: pending pods that no node fits become bids, at what manifests or the agent's policy say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from walras.core.errors import Invalid, NotFound, WalrasError
from walras.core.quantity import format_mib, parse_duration_ms
from walras.devices.request import MILLI, gpu_request, mig_resource
from walras.exchange.nodes import prospect
from walras.exchange.proxy import Proxy
from walras.exchange.supply import Supply
from walras.kube import validation
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.validation.walras import DEFAULT_POOL
from walras.tenants.events import Recorder
from walras.tenants.fit import Usage, demand_of, node_of, refusals

FLEET: Final = "fleet"
PODS: Final = "pods"
BIDS: Final = "bids.walras.dev"
AGENTS: Final = "agents.walras.dev"
POOLS: Final = "pools.walras.dev"
PRIORITY_CLASSES: Final = "priorityclasses.scheduling.k8s.io"
DEFAULT_TERM: Final = "1m"
FINISHED: Final = ("Succeeded", "Failed")
# How often a bid's price is looked at again that its agent's strategy named.
REPRICE_MS: Final = 5_000


class Bidder:
    """Reconciles the bid of one pod: none if it needs none, one while it waits, an ended one after."""

    def __init__(self, api: API, recorder: Recorder, supply: Supply, proxy: Proxy) -> None:
        self._api = api
        self._recorder = recorder
        self._supply = supply
        self._proxy = proxy

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        if cluster == FLEET:
            return None
        pod = self._api.find(cluster, PODS, namespace, name)
        bid = self._api.find(cluster, BIDS, namespace, name)
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
            await self._place(cluster, pod)
            return self._reprice_ms(cluster, pod)
        elif bid is not None and pod["spec"].get("nodeName") and not bid.get("status", {}).get("lease"):
            # It found a place on a node that the agent had already.
            await self._delete(cluster, bid)
        elif bid is not None and bid.get("status", {}).get("phase", "Pending") in ("Pending", "Refused"):
            await self._reprice(cluster, pod, bid)
            return self._reprice_ms(cluster, pod)
        return None

    def _reprice_ms(self, cluster: str, pod: Object) -> int | None:
        """When to look at the bid's price again: never, where it is the pod's own or does not change."""
        return (
            REPRICE_MS if self._proxy.adapts(cluster) and not names_price(self._api, cluster, pod) else None
        )

    async def _reprice(self, cluster: str, pod: Object, bid: Object) -> None:
        """Bid what the agent's strategy says now, when that is another price."""
        if self._reprice_ms(cluster, pod) is None:
            return
        price = self._proxy.moved(cluster, pod, bid["spec"])
        if price is None:
            return
        metadata = bid["metadata"]

        def change(latest: Object) -> None:
            latest["spec"]["packages"][0]["maxPrice"] = price

        await self._api.edit(cluster, BIDS, metadata["namespace"], metadata["name"], change)

    async def _place(self, cluster: str, pod: Object) -> None:
        try:
            spec = bid_spec(self._api, cluster, pod, self._proxy)
            if spec is None:
                return
            bid = _bid(pod, spec)
            self._check(cluster, bid)
            self._check_fit(pod)
        except WalrasError as error:
            self._recorder.event(cluster, pod, "Warning", "InvalidRequest", error.message)
            return
        await self._api.create(cluster, BIDS, bid)

    def _check(self, cluster: str, bid: Object) -> None:
        """Raises Invalid: labels and a priority class may say what nobody has looked at yet."""
        resource = self._api.registry(cluster)[BIDS]
        causes = validation.validate(resource, bid, None)
        if causes:
            raise validation.invalid(resource, bid["metadata"]["name"], causes)

    def _check_fit(self, pod: Object) -> None:
        """Raises Invalid for a pod that would not fit the node that its own bid wins, whatever it pays."""
        demand = demand_of(pod)
        assert demand.gpu is not None
        if demand.gpu.devices > len(self._supply.devices):
            return  # the market refuses it, and says what there is
        pool = self._api.find(FLEET, POOLS, "", DEFAULT_POOL) or {}
        whole = (pool.get("spec") or {}).get("sharing") == "whole"
        node = prospect(demand.gpu, DEFAULT_POOL, self._supply, whole=whole)
        reasons = refusals(demand, node_of(node), Usage())
        if reasons:
            has = node["status"]["capacity"]
            raise Invalid(
                f"the node that its bid could win would not take it: {', '.join(reasons)}; ask for less "
                f"or for a larger share (with this one come cpu {has['cpu']} and memory {has['memory']})"
            )

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


def bid_spec(api: API, cluster: str, pod: Object, proxy: Proxy) -> Object | None:
    """The `spec` of the bid for a pod, or None when it asks for no GPU. Raises Invalid."""
    request = gpu_request(pod["spec"])
    if request is None:
        return None
    if request.mig_profile:
        raise Invalid(
            f"no device here is partitioned, so {mig_resource(request.mig_profile)} is not for sale; "
            f"ask for {MILLI}: {request.milli_gpu} instead"
        )
    said = _said(api, cluster, pod)
    package: Object = {
        "pool": said.get("walras.dev/pool", "default"),
        "devices": request.devices,
        "milliGPU": request.milli_gpu,
        "term": said.get("walras.dev/term", DEFAULT_TERM),
    }
    parse_duration_ms(package["term"])
    if request.memory_mib:
        package["memory"] = format_mib(request.memory_mib)
    if "walras.dev/selector" in said:
        package["selector"] = said["walras.dev/selector"]
    spec: Object = {"class": said.get("walras.dev/class") or _class_of(pod), "packages": [package]}
    if "walras.dev/restart-cost" in said:
        spec["restartCost"] = said["walras.dev/restart-cost"]
    if "walras.dev/deadline" in said:
        spec["deadline"] = said["walras.dev/deadline"]
    if priority := _priority(api, cluster, pod):
        spec["priority"] = priority
    package["maxPrice"] = said.get("walras.dev/max-price") or proxy.price(cluster, pod, spec)
    return spec


def names_price(api: API, cluster: str, pod: Object) -> bool:
    """Whether the pod or its PriorityClass says what it pays at most."""
    return bool(_said(api, cluster, pod).get("walras.dev/max-price"))


def _said(api: API, cluster: str, pod: Object) -> Mapping[str, str]:
    """What the pod says of its worth: its PriorityClass' annotations, then its labels and annotations."""
    said: dict[str, str] = {}
    priority_class = pod["spec"].get("priorityClassName")
    if priority_class:
        found = api.find(cluster, PRIORITY_CLASSES, "", priority_class)
        said.update((found or {}).get("metadata", {}).get("annotations") or {})
    metadata = pod["metadata"]
    said.update(metadata.get("labels") or {})
    said.update(metadata.get("annotations") or {})
    return said


def _priority(api: API, cluster: str, pod: Object) -> int:
    """The pod's own, else that of its PriorityClass, else 0."""
    if "priority" in pod["spec"]:
        return int(pod["spec"]["priority"])
    name = pod["spec"].get("priorityClassName")
    found = api.find(cluster, PRIORITY_CLASSES, "", name) if name else None
    return int((found or {}).get("value", 0))


def _class_of(pod: Object) -> str:
    owners = {
        owner.get("kind") for owner in pod["metadata"].get("ownerReferences") or () if owner.get("controller")
    }
    if "Job" in owners:
        return "batch"
    return "latency" if "ReplicaSet" in owners else "standard"


def _waits(pod: Object) -> bool:
    """Pending in its cluster because the scheduler found no node that fits."""
    if pod["spec"].get("nodeName") or pod["metadata"].get("deletionTimestamp"):
        return False
    return any(
        condition.get("type") == "PodScheduled"
        and condition.get("status") == "False"
        and condition.get("reason") == "Unschedulable"
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
