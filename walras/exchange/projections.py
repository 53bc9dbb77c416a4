"""What is seen of leases in their clusters, Nodes and GPULeases: made true at a start, cleared away later."""

from __future__ import annotations

from typing import Final

from walras.core.clock import parse_rfc3339
from walras.exchange import leasing
from walras.exchange.effects import Effects
from walras.exchange.holding import LEASES
from walras.exchange.nodes import NODES
from walras.exchange.supply import Supply
from walras.kube.record import Object

# How long an ended lease can be looked at.
ENDED_KEPT_MS: Final = 600_000


def reconcile(fx: Effects, supply: Supply) -> None:
    """Stage what makes Nodes and GPULeases those of the leases that there are."""
    nodes = {(holding.agent, holding.node) for holding in fx.holdings.values()}
    for cluster, node in list(fx.api.everywhere(NODES)):
        name = node["metadata"]["name"]
        if name.startswith("lease-") and (cluster, name) not in nodes:
            fx.delete(cluster, NODES, "", name)
    names = {(holding.agent, holding.namespace, holding.name) for holding in fx.holdings.values()}
    for cluster, lease in list(fx.api.everywhere(LEASES)):
        metadata = lease["metadata"]
        if (cluster, metadata["namespace"], metadata["name"]) in names:
            continue
        if lease.get("status", {}).get("phase") != "Ended":
            fx.edit(cluster, LEASES, metadata["namespace"], metadata["name"], _mark_ended)
    for holding in list(fx.holdings.values()):
        its_node = fx.node(holding)
        if its_node is not None and supply.has(holding.shares, holding.uuids):
            leasing.publish(fx, holding, supply, its_node)
        fx.keep(holding)


def prune(fx: Effects, now_ms: int) -> None:
    """Stage the deletion of GPULeases that ended some time ago; what they cost stays in the usage table."""
    for cluster, lease in list(fx.api.everywhere(LEASES)):
        over = lease.get("status", {}).get("phase") == "Ended"
        if over and now_ms - parse_rfc3339(lease["spec"]["end"]) > ENDED_KEPT_MS:
            metadata = lease["metadata"]
            fx.delete(cluster, LEASES, metadata["namespace"], metadata["name"])


def _mark_ended(lease: Object) -> None:
    lease.setdefault("status", {})["phase"] = "Ended"
