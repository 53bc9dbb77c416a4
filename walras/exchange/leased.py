"""A lease's devices as ResourceSlices of the agent's cluster, so that resource claims can ask for them.

They are published as NVIDIA's driver would, emulated ones too: what manifests ask for has to be found. The
attribute `emulated` says what they are.
"""

from __future__ import annotations

from typing import Any, Final

from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.classes import mig_attributes, slice_names
from walras.devices.models import DOMAIN
from walras.exchange.holding import Holding
from walras.exchange.slices import attribute_of
from walras.exchange.supply import Supply
from walras.kube.record import Object
from walras.market.types import Device, Share
from walras.tenants.claims.beside import MEMORY, MILLI

# As many as a ResourceSlice may list.
DEVICES_PER_SLICE: Final = 128
# By these a version is told from a text.
_VERSIONS: Final = ("cudaComputeCapability",)


def leased_slices(holding: Holding, supply: Supply) -> list[Object]:
    """The slices of the pool that the lease's node has for itself."""
    by_id = {device.id: device for device in supply.devices}
    names = slice_names((by_id[each.device].index, str(each.mig or "")) for each in holding.shares)
    devices = [
        _device(name, share, by_id[share.device]) for name, share in zip(names, holding.shares, strict=True)
    ]
    parts = [devices[at : at + DEVICES_PER_SLICE] for at in range(0, len(devices), DEVICES_PER_SLICE)]
    pool = {"name": holding.node, "generation": 1, "resourceSliceCount": len(parts)}
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": name},
            "spec": {"driver": DOMAIN, "nodeName": holding.node, "pool": pool, "devices": part},
        }
        for name, part in zip(slice_titles(holding), parts, strict=True)
    ]


def slice_titles(holding: Holding) -> list[str]:
    """The names of the lease's slices."""
    count = -(-len(holding.shares) // DEVICES_PER_SLICE)
    return [f"{holding.node}-{DOMAIN}-{number}" for number in range(count)]


def _device(name: str, share: Share, device: Device) -> dict[str, Any]:
    memory = f"{share.memory_mib}Mi"
    if share.mig is not None:
        assert device.mig is not None
        attributes = mig_attributes(device.attributes, device.mig, share.mig)
        return {
            "name": name,
            "attributes": {key: _attribute(key, value) for key, value in attributes.items()},
            "capacity": {MEMORY: {"value": memory}},
        }
    attributes = {**device.attributes, "type": "gpu", "memoryMiB": share.memory_mib}
    return {
        "name": name,
        "attributes": {key: _attribute(key, value) for key, value in attributes.items()},
        # Several claims may have a part each. Who asks for none asks for a whole device: a share is not that.
        "allowMultipleAllocations": True,
        "capacity": {
            MILLI: {"value": str(share.milli), "requestPolicy": _policy(str(WHOLE_GPU_MILLI), "1")},
            MEMORY: {"value": memory, "requestPolicy": _policy(memory, "1Mi")},
        },
    }


def _policy(default: str, least: str) -> dict[str, Any]:
    return {"default": default, "validRange": {"min": least}}


def _attribute(key: str, value: object) -> dict[str, object]:
    return {"version": value} if key in _VERSIONS else dict(attribute_of(value))
