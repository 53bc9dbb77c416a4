"""The status of a node of Walras: ready, with all of its capacity to give."""

from __future__ import annotations

from collections.abc import Mapping

from walras.tenants.objects import Object


def node_status(
    name: str, capacity: Mapping[str, str], now: str, *, reason: str, message: str, os_image: str
) -> Object:
    """The `status` of a Node that is ready for the reason given; all run on this machine."""
    return {
        "capacity": dict(capacity),
        "allocatable": dict(capacity),
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
        ],
        "addresses": [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": "127.0.0.1"},
        ],
        "nodeInfo": {
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
            "kernelVersion": "",
            "osImage": os_image,
            "containerRuntimeVersion": "process://1",
            "kubeletVersion": "v1.36.3-walras",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }
