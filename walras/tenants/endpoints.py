"""Keeps Endpoints and EndpointSlices: what is behind each Service, and behind Endpoints that others wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from walras.core.errors import AlreadyExists, NotFound
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants import backends
from walras.tenants.backends import Backend, Group
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    NODES,
    PODS,
    SERVICES,
    Object,
    deleting,
    labels,
    owner_reference,
)
from walras.tenants.workloads import takes_pods

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
SLICES_BY: Final = "endpointslice-controller.k8s.io"
MIRRORED_BY: Final = "endpointslicemirroring-controller.k8s.io"
_ENDPOINTS_MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
_ENDPOINTS_BY: Final = "endpoint-controller"
_HEADLESS: Final = "service.kubernetes.io/headless"
_SKIP_MIRROR: Final = "endpointslice.kubernetes.io/skip-mirror"
_OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
_NOT_MIRRORED: Final = (
    "endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration",
)  # fmt: skip
_LEADER: Final = "control-plane.alpha.kubernetes.io/leader"


class EndpointsController:
    """Keys are names of Services, which Endpoints share."""

    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(SERVICES, self._changed),
            self._api.subscribe(ENDPOINTS, self._changed),
            self._api.subscribe(ENDPOINT_SLICES, self._slice_changed),
            self._api.subscribe(PODS, self._pod_changed),
        ]

    def _add(self, cluster: str, namespace: str, name: str) -> None:
        self._manager.add(self, Key(cluster, namespace, name))

    def _changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        self._add(change.cluster, metadata["namespace"], metadata["name"])

    def _slice_changed(self, change: Change) -> None:
        if labels(change.object).get(MANAGED_BY) in (SLICES_BY, MIRRORED_BY):
            name = labels(change.object).get(SERVICE_NAME)
            if name:
                self._add(change.cluster, change.object["metadata"]["namespace"], name)

    def _pod_changed(self, change: Change) -> None:
        if not self._api.has_cluster(change.cluster):
            return
        pods = (change.object,) if change.old is None else (change.object, change.old)
        namespace = change.object["metadata"]["namespace"]
        for service in self._api.list(change.cluster, SERVICES, namespace):
            if any(backends.selects(service, pod) for pod in pods):
                self._add(change.cluster, namespace, service["metadata"]["name"])

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        if not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        service = self._api.find(cluster, SERVICES, namespace, name)
        try:
            if service is None or deleting(service):
                self._drop(transaction, cluster, namespace, name)
            elif service["spec"].get("selector") and service["spec"].get("type") != "ExternalName":
                self._publish(transaction, cluster, service)
            else:
                self._mirror(transaction, cluster, namespace, name)
        except (NotFound, AlreadyExists):
            # Something changed on its way to the disk; the next look sees it.
            return 1
        await transaction.commit()
        return None

    def _slices(self, cluster: str, namespace: str, name: str, manager: str) -> list[Object]:
        return [
            each
            for each in self._api.list(cluster, ENDPOINT_SLICES, namespace)
            if labels(each).get(SERVICE_NAME) == name
            and labels(each).get(MANAGED_BY) == manager
            and not deleting(each)
        ]

    def _drop(self, transaction: Transaction, cluster: str, namespace: str, name: str) -> None:
        """A Service that is gone takes its Endpoints along; its slices have it for an owner."""
        found = self._api.find(cluster, ENDPOINTS, namespace, name)
        if found is not None and labels(found).get(_ENDPOINTS_MANAGED_BY) == _ENDPOINTS_BY:
            transaction.delete(cluster, ENDPOINTS, namespace, name)
        for each in self._slices(cluster, namespace, name, MIRRORED_BY):
            transaction.delete(cluster, ENDPOINT_SLICES, namespace, each["metadata"]["name"])

    def _publish(self, transaction: Transaction, cluster: str, service: Object) -> None:
        metadata = service["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        pods = [pod for pod in self._api.list(cluster, PODS, namespace) if backends.selects(service, pod)]
        self._write_endpoints(transaction, cluster, service, pods)
        headless = service["spec"].get("clusterIP") == "None"
        described = {
            **{key: value for key, value in labels(service).items() if key not in (MANAGED_BY, _HEADLESS)},
            **({_HEADLESS: ""} if headless else {}),
            SERVICE_NAME: name,
            MANAGED_BY: SLICES_BY,
        }
        wanted = backends.groups(service, pods, lambda node: self._api.find(cluster, NODES, "", node))
        self._write_slices(transaction, cluster, service, wanted, {"labels": described})
        # Endpoints of its own make those of others superfluous.
        for each in self._slices(cluster, namespace, name, MIRRORED_BY):
            transaction.delete(cluster, ENDPOINT_SLICES, namespace, each["metadata"]["name"])

    def _write_endpoints(
        self, transaction: Transaction, cluster: str, service: Object, pods: Sequence[Object]
    ) -> None:
        metadata = service["metadata"]
        subsets, over = backends.subsets(service, pods)
        described = {**labels(service), _ENDPOINTS_MANAGED_BY: _ENDPOINTS_BY}
        if service["spec"].get("clusterIP") == "None":
            described[_HEADLESS] = ""

        def write(latest: Object) -> None:
            latest["metadata"]["labels"] = described
            annotations = {
                key: value
                for key, value in (latest["metadata"].get("annotations") or {}).items()
                if key != _OVER_CAPACITY
            }
            _set(
                latest["metadata"],
                "annotations",
                {**annotations, **({_OVER_CAPACITY: "truncated"} if over else {})},
            )
            _set(latest, "subsets", subsets)

        namespace, name = metadata["namespace"], metadata["name"]
        if self._api.find(cluster, ENDPOINTS, namespace, name) is not None:
            transaction.edit(cluster, ENDPOINTS, namespace, name, write)
            return
        fresh: Object = {"metadata": {"name": name, "namespace": namespace}}
        write(fresh)
        transaction.create(cluster, ENDPOINTS, fresh)

    def _mirror(self, transaction: Transaction, cluster: str, namespace: str, name: str) -> None:
        """For a Service without a selector: slices that say what its Endpoints do."""
        found = self._api.find(cluster, ENDPOINTS, namespace, name)
        annotations = (found["metadata"].get("annotations") or {}) if found is not None else {}
        skipped = found is None or labels(found).get(_SKIP_MIRROR) == "true" or _LEADER in annotations
        if found is None or skipped or labels(found).get(_ENDPOINTS_MANAGED_BY) == _ENDPOINTS_BY:
            for each in self._slices(cluster, namespace, name, MIRRORED_BY):
                transaction.delete(cluster, ENDPOINT_SLICES, namespace, each["metadata"]["name"])
            return
        described = {
            "labels": {**labels(found), SERVICE_NAME: name, MANAGED_BY: MIRRORED_BY},
            "annotations": {key: value for key, value in annotations.items() if key not in _NOT_MIRRORED},
        }
        self._write_slices(transaction, cluster, found, backends.mirrored(found), described)

    def _write_slices(
        self,
        transaction: Transaction,
        cluster: str,
        owner: Object,
        wanted: Mapping[Group, Sequence[Backend]],
        described: Object,
    ) -> None:
        metadata = owner["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        present = self._slices(cluster, namespace, name, described["labels"][MANAGED_BY])
        by_group: dict[Group, list[Object]] = {}
        for each in present:
            by_group.setdefault(_group(each), []).append(each)
        for group, found in by_group.items():
            if group not in wanted:
                for each in found:
                    transaction.delete(cluster, ENDPOINT_SLICES, namespace, each["metadata"]["name"])
        for group, members in wanted.items():
            slices = by_group.get(group, [])
            spread = backends.spread(members, [_keys(each) for each in slices]) or [[]]
            for position, held in enumerate(spread):
                if position >= len(slices):
                    fresh = _fresh(owner, group)
                    _fill(fresh, held, described)
                    transaction.create(cluster, ENDPOINT_SLICES, fresh)
                    continue
                where = (cluster, ENDPOINT_SLICES, namespace, slices[position]["metadata"]["name"])
                # One stays though empty, to say that there is nothing.
                if held or (position == 0 and not members):
                    transaction.edit(*where, partial(_fill, held=held, described=described))
                else:
                    transaction.delete(*where)


def _fresh(owner: Object, group: Group) -> Object:
    metadata = owner["metadata"]
    return {
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
            "ownerReferences": [owner_reference(owner)],
        },
        "addressType": group.address_type,
        "ports": backends.slice_ports(group.ports),
    }


def _fill(piece: Object, held: Sequence[Backend], described: Object) -> None:
    for field in ("labels", "annotations"):
        if field in described:
            _set(piece["metadata"], field, described[field])
    piece["endpoints"] = [backend.endpoint for backend in held]


def _group(piece: Mapping[str, Any]) -> Group:
    ports = tuple(
        (port.get("name", ""), port.get("port", 0), port.get("protocol", "TCP"), port.get("appProtocol", ""))
        for port in piece.get("ports") or ()
    )
    return Group(str(piece.get("addressType")), ports)


def _keys(piece: Mapping[str, Any]) -> list[str]:
    """The keys of the endpoints that a slice holds, in its order."""
    mirrored = labels(piece).get(MANAGED_BY) == MIRRORED_BY
    return [
        str((each.get("addresses") or [""])[0] if mirrored else (each.get("targetRef") or {}).get("uid"))
        for each in piece.get("endpoints") or ()
    ]


def _set(target: Object, field: str, value: Any) -> None:
    if value:
        target[field] = value
    else:
        target.pop(field, None)
