"""A lease as a Node of the agent's cluster, with exactly the capacity that was won."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Final

import msgspec

from walras.core.clock import rfc3339
from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.mig import MigInstance
from walras.devices.request import MEMORY, MILLI, WHOLE, GpuRequest, mig_resource
from walras.exchange.book import Pool, mig_share
from walras.exchange.holding import BID_LABEL, LEASE_LABEL, Holding
from walras.exchange.supply import Supply
from walras.kube.record import Object
from walras.market.types import Device, Share
from walras.runtimes.gpus.machine import Access
from walras.tenants.nodestatus import node_status

NODES: Final = "nodes"
DEVICES_ANNOTATION: Final = "walras.dev/devices"
DRAIN_TAINT: Final = "walras.dev/draining"
PODS_PER_LEASE: Final = 16
# What pods of one lease may reserve; what each takes is bounded where it runs.
DISK_PER_LEASE: Final = "100Gi"


def cpu_milli(holding: Holding, supply: Supply) -> int:
    """Thousandths of a host core that go with the lease."""
    return max(1, supply.cpu_milli_per_device * holding.milli // WHOLE_GPU_MILLI)


def device_rows(holding: Holding, supply: Supply, access: Sequence[Access] = ()) -> str:
    """The annotation from which the runtime tells what programs on the node are given.

    `access` is what each share's card or instance is called and reached by; emulated devices have none.
    """
    by_id = {device.id: device for device in supply.devices}
    rows = []
    for at, share in enumerate(holding.shares):
        row: Object = {
            "device": share.device,
            "index": by_id[share.device].index,
            "milliGPU": share.milli,
            "memoryMiB": share.memory_mib,
            **({"mig": str(share.mig)} if share.mig else {}),
            "enforcement": holding.enforcement,
        }
        if access:
            row |= {"uuid": access[at].uuid, "files": list(access[at].files)}
        rows.append(row)
    return msgspec.json.encode(rows).decode()


def lease_node(holding: Holding, supply: Supply, now_ms: int, access: Sequence[Access] = ()) -> Object:
    """The Node for a lease that begins now; see `device_rows`."""
    by_id = {device.id: device for device in supply.devices}
    capacity = {
        "cpu": f"{cpu_milli(holding, supply)}m",
        "memory": f"{max(64, supply.memory_mib_per_device * holding.milli // WHOLE_GPU_MILLI)}Mi",
        "ephemeral-storage": DISK_PER_LEASE,
        "pods": str(PODS_PER_LEASE),
        **_gpu_capacity(holding.shares),
    }
    product = str(by_id[holding.shares[0].device].attributes.get("productName", ""))
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": holding.node,
            "labels": {
                "kubernetes.io/hostname": holding.node,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "walras-lease",
                "walras.dev/pool": holding.pool,
                LEASE_LABEL: holding.name,
                BID_LABEL: holding.bid,
                "walras.dev/enforcement": holding.enforcement,
                "nvidia.com/gpu.product": product.replace(" ", "-"),
            },
            "annotations": {
                DEVICES_ANNOTATION: device_rows(holding, supply, access),
                "walras.dev/lease-namespace": holding.namespace,
            },
        },
        "spec": {"providerID": f"walras://{holding.pool}/{holding.id}"},
        "status": node_status(
            holding.node,
            capacity,
            rfc3339(now_ms),
            reason="LeaseActive",
            message=f"lease {holding.name} is active",
            os_image="Walras lease",
        ),
    }


def _gpu_capacity(shares: Sequence[Share]) -> dict[str, str]:
    """What pods may ask for: instances of the MIG profile, else the same milli-GPU in whatever unit."""
    cuts = [share.mig.profile for share in shares if share.mig]
    if cuts:
        return {mig_resource(profile): str(count) for profile, count in Counter(cuts).items()}
    capacity = {
        MILLI: str(sum(share.milli for share in shares)),
        MEMORY: str(sum(share.memory_mib for share in shares)),
    }
    if all(share.milli == WHOLE_GPU_MILLI for share in shares):
        capacity[WHOLE] = str(len(shares))
    return capacity


def prospect(request: GpuRequest, devices: Sequence[Device], pool: Pool, supply: Supply) -> Holding:
    """The lease that a request would win on devices like those: what its pod has to fit.

    Where they are fewer than it asks for they are taken more than once.
    """
    milli = WHOLE_GPU_MILLI if pool.whole else request.milli_gpu
    cut = None
    if request.mig_profile:
        milli, cut = mig_share(request.mig_profile, pool), MigInstance(request.mig_profile, 0)
    shares = tuple(
        Share(device.id, milli, request.memory_mib or device.memory_mib * milli // WHOLE_GPU_MILLI, cut)
        for device in islice(cycle(devices), request.devices)
    )
    return Holding(
        id="",
        agent="",
        namespace="",
        name="",
        node="lease",
        bid="",
        job_class="standard",
        pool=pool.name,
        shares=shares,
        price_micros=0,
        worth_micros=0,
        restart_cost_micros=0,
        term_ms=0,
        enforcement=supply.enforcement_of(shares),
        phase="Active",
        start_ms=0,
        end_ms=0,
        hold="",
        term_start_ms=0,
    )


def drain(node: Object) -> None:
    """Mark a Node as going away: nothing more is bound to it and its pods are told to leave."""
    node.setdefault("spec", {})["unschedulable"] = True
    taints = node["spec"].setdefault("taints", [])
    if not any(taint.get("key") == DRAIN_TAINT for taint in taints):
        taints.append({"key": DRAIN_TAINT, "effect": "NoExecute"})
    for condition in node.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            condition.update(reason="LeaseDraining", message="the lease ends; pods are drained")
