"""KubeVirt's subresources.kubevirt.io: what is done with machines beside their objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from walras.kube.registry import Resource

GROUP: Final = "subresources.kubevirt.io"
VERSION: Final = "v1"
MACHINES: Final = "virtualmachines"
INSTANCES: Final = "virtualmachineinstances"
# What connections lead into, by GET; everything else is a PUT.
STREAMS: Final = ("console", "portforward")
ACTS: Final[Mapping[str, tuple[str, ...]]] = {
    MACHINES: ("portforward", "restart", "start", "stop"),
    INSTANCES: ("console", "pause", "portforward", "softreboot", "unpause"),
}
# The verb that each takes.
VERBS: Final[Mapping[str, str]] = {
    act: "get" if act in STREAMS else "update" for acts in ACTS.values() for act in acts
}


def resources() -> tuple[Resource, ...]:
    """The rows of discovery: subresources of what is stored in another group, as KubeVirt has them."""
    return tuple(
        Resource(GROUP, VERSION, "", plural, "", True, {"type": "object"}, verbs=(), subresources=acts)
        for plural, acts in ACTS.items()
    )
