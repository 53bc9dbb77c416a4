"""Why specs fail that do: what they want that this cluster is not to have, or does not have yet."""

from __future__ import annotations

import re
from typing import Final

_WHY: Final = (
    (r"KubeletManagedEtcHosts|[Pp]od failure policy", "mounts a hostPath, which agents do not get"),
    (r"recreate evicted statefulset", "wants two pods with one host port to collide: every pod has its own"),
    (r"ImageVolume", "volumes of type image are not there"),
    (r"ResourceSlice|Node Lifecycle", "an agent makes no nodes and no ResourceSlices: leases do"),
    (r"sysctls", "sysctls are not set"),
    (r"node-pod communication", "runs a pod on the node's own network, which agents do not get"),
    (r"NodePort", "ports of nodes are not opened"),
    (r"HostPort|hostPort", "host ports are not opened: every pod has its own"),
    (r"pointing to API Server", "the server of this run is on loopback, which no endpoint may name"),
    (r"rollback without unnecessary", "wants two nodes"),
    (r"SchedulerPreemption", "puts a resource of its own on a node, whose status agents do not write"),
    (r"compacted away", "history is kept by the number of changes: within ten minutes no token expires"),
)


def why(name: str) -> str:
    """In words, for a spec of that name; "" where nothing is known."""
    return next((said for pattern, said in _WHY if re.search(pattern, name)), "")
