"""What every cluster begins with: namespaces with their accounts, device classes, its base node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from walras.kube import defaults, preparing
from walras.kube.registry_builtin import for_agents
from walras.kube.transaction import Transaction
from walras.tenants.claims.classes import device_classes
from walras.tenants.claims.pod import DEVICE_CLASSES
from walras.tenants.namespaces import account, root_ca
from walras.tenants.nodestatus import node_status
from walras.tenants.objects import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, Object

# Namespaces that nobody may delete. That of the system is a cluster's own: tools tell clusters by its uid.
_SHARED_NAMESPACES: Final = ("default", "kube-public")
SYSTEM: Final = "kube-system"
_LEASES: Final = "kube-node-lease"
AGENT_UID: Final = "walras.dev/agent-uid"
BASE_NODE: Final = "base"
BASE_CAPACITY: Final = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "100Gi", "pods": "110"}


def base_node(agent_uid: str, now: str) -> Object:
    """The node for pods without a GPU, which every agent has. It remembers whose cluster this is."""
    return {
        "metadata": {
            "name": BASE_NODE,
            "annotations": {AGENT_UID: agent_uid},
            "labels": {
                "kubernetes.io/hostname": BASE_NODE,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "walras-base",
            },
        },
        "spec": {"providerID": "walras://base"},
        "status": node_status(
            BASE_NODE,
            BASE_CAPACITY,
            now,
            reason="WalrasReady",
            message="the control plane runs pods here",
            os_image="Walras base",
        ),
    }


def furniture(ca_pem: str) -> Iterator[tuple[str, Object]]:
    """(resource, object) of what every cluster begins with, for all of them to share."""
    namespaces = for_agents()[NAMESPACES]
    for name in _SHARED_NAMESPACES:
        namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        defaults.apply(namespaces, namespace)
        preparing.prepare(namespaces, namespace)
        yield NAMESPACES, namespace
    for name in (*_SHARED_NAMESPACES, SYSTEM):
        yield SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", **account(name)}
        yield CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **root_ca(name, ca_pem)}
    for each in device_classes():
        metadata = {**each["metadata"], "generation": 1}
        kind = {"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass"}
        yield DEVICE_CLASSES, {**kind, **each, "metadata": metadata}


def furnish(transaction: Transaction, cluster: str, ca_pem: str) -> None:
    """Stages what a new cluster begins with and does not share."""
    transaction.create(cluster, NAMESPACES, {"metadata": {"name": SYSTEM}})
    transaction.create(cluster, NAMESPACES, {"metadata": {"name": _LEASES}})
    transaction.create(cluster, SERVICE_ACCOUNTS, account(_LEASES))
    transaction.create(cluster, CONFIG_MAPS, root_ca(_LEASES, ca_pem))
