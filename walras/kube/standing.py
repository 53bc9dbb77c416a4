"""What every cluster has from its first moment beside its roles: made once, stored in none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from walras.kube import services
from walras.kube.access import bootstrap
from walras.kube.record import Object
from walras.kube.registry_builtin import for_all

# Where kube-apiserver puts its groups in discovery.
_GROUP_PRIORITIES: Final = {
    "": 18000, "admissionregistration.k8s.io": 16700, "apiextensions.k8s.io": 16700, "apps": 17800,
    "authentication.k8s.io": 17700, "authorization.k8s.io": 17600, "autoscaling": 17500, "batch": 17400,
    "certificates.k8s.io": 17300, "coordination.k8s.io": 16500, "discovery.k8s.io": 16200,
    "events.k8s.io": 17750, "flowcontrol.apiserver.k8s.io": 16100, "networking.k8s.io": 17200,
    "node.k8s.io": 16300, "policy": 17100, "rbac.authorization.k8s.io": 17000, "resource.k8s.io": 16200,
    "scheduling.k8s.io": 16600, "storage.k8s.io": 16800,
}  # fmt: skip
_VERSION_PRIORITIES: Final = {
    ("", "v1"): 1, ("autoscaling", "v2"): 30, ("flowcontrol.apiserver.k8s.io", "v1"): 21,
    ("resource.k8s.io", "v1"): 21,
}  # fmt: skip
_VERSION_PRIORITY: Final = 15
# Groups of CustomResourceDefinitions, and of Walras' own kinds.
_OTHER: Final = (1000, 100)
_AUTOMANAGED: Final = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
_PRIORITY_CLASSES: Final = {
    "system-cluster-critical": (
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if "
        "necessary.",
    ),
    "system-node-critical": (
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
}
# Where a kube-apiserver is unless somebody says otherwise.
PORT: Final = 6443
_COMPONENTS: Final = ("controller-manager", "etcd-0", "scheduler")
# What the pods of a runtime take beside their containers, by its handler.
Overheads = Mapping[str, Mapping[str, str]]
NONE: Final[Overheads] = MappingProxyType({})


def records(
    created: str, handlers: Overheads = NONE, server: tuple[str, int] = ("", PORT)
) -> bootstrap.Table:
    """By resource and (namespace, name), all made at the time `created`, for all clusters to share.

    `handlers`: runtimes that pods may choose, each by a RuntimeClass of its name. `server`: the address and
    the port that this server is at.
    """
    return bootstrap.recorded([*_objects(created), *_runtime_classes(handlers), *_service(*server)], created)


def _service(host: str, port: int) -> Iterator[tuple[str, Object]]:
    """The Service by which pods find the API, and the address behind it if others can reach that."""
    named = {"name": "kubernetes", "namespace": "default"}
    address = str(services.RANGE[1])
    yield (
        "services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**named, "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
                "clusterIP": address,
                "clusterIPs": [address],
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster",
            },
            "status": {"loadBalancer": {}},
        },
    )
    if not _is_reachable(host):
        return
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    yield (
        "endpoints",
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {**named, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [{"addresses": [{"ip": host}], "ports": ports}],
        },
    )
    yield (
        "endpointslices.discovery.k8s.io",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                **named, "generation": 1, "labels": {"kubernetes.io/service-name": "kubernetes"}
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )  # fmt: skip


def _is_reachable(host: str) -> bool:
    """Whether it is an address that an endpoint may have."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.version == 4 and not (
        address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast
    )


def _runtime_classes(handlers: Overheads) -> Iterator[tuple[str, Object]]:
    for handler, overhead in handlers.items():
        made: Object = {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": handler},
            "handler": handler,
        }
        if overhead:
            made["overhead"] = {"podFixed": dict(overhead)}
        yield "runtimeclasses.node.k8s.io", made


def _objects(created: str) -> Iterator[tuple[str, Object]]:
    for group, version in for_all().group_versions():
        if group != "apiregistration.k8s.io":
            yield "apiservices.apiregistration.k8s.io", _api_service(group, version, created)
    for name, (value, description) in _PRIORITY_CLASSES.items():
        yield (
            "priorityclasses.scheduling.k8s.io",
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": name, "generation": 1},
                "value": value,
                "description": description,
                "preemptionPolicy": "PreemptLowerPriority",
            },
        )
    ready = _condition("Ready", "", "Kubernetes default Service CIDR is ready", created)
    yield (
        "servicecidrs.networking.k8s.io",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [str(services.RANGE)]},
            "status": {"conditions": [ready]},
        },
    )
    for name in _COMPONENTS:
        # They are this process: whoever gets an answer can see that they run.
        yield (
            "componentstatuses",
            {
                "apiVersion": "v1",
                "kind": "ComponentStatus",
                "metadata": {"name": name},
                "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}],
            },
        )


def _api_service(group: str, version: str, created: str) -> Object:
    minimum, priority = _OTHER
    if group in _GROUP_PRIORITIES:
        minimum = _GROUP_PRIORITIES[group]
        priority = _VERSION_PRIORITIES.get((group, version), _VERSION_PRIORITY)
    available = _condition("Available", "Local", "Local APIServices are always available", created)
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": _AUTOMANAGED},
        "spec": {
            **({"group": group} if group else {}),
            "version": version,
            "groupPriorityMinimum": minimum,
            "versionPriority": priority,
        },
        "status": {"conditions": [available]},
    }


def _condition(kind: str, reason: str, message: str, since: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message}
