"""The row of a node."""

from __future__ import annotations

from typing import Any, Final

from walras.kube.tables.columns import (
    NONE,
    UNKNOWN,
    age,
    condition,
    name,
    spec,
    status,
)

Object = dict[str, Any]

_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_ROLE: Final = "kubernetes.io/role"


def _state(node: Object) -> str:
    ready = condition(status(node), "Ready").get("status")
    text = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return f"{text},SchedulingDisabled" if spec(node).get("unschedulable") else text


def _roles(node: Object) -> str:
    roles = set()
    for key, value in ((node.get("metadata") or {}).get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _address(node: Object, kind: str) -> str:
    addresses = status(node).get("addresses") or ()
    return next((held["address"] for held in addresses if held.get("type") == kind), NONE)


def cells(node: Object, now_ms: int) -> list[Any]:
    info = status(node).get("nodeInfo") or {}
    kernel = info.get("kernelVersion") or UNKNOWN
    if info.get("architecture"):
        kernel += f" ({info['architecture']})"
    return [
        name(node),
        _state(node),
        _roles(node),
        age(node, now_ms),
        info.get("kubeletVersion", ""),
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        kernel,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]
