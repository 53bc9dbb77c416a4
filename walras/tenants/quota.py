"""How many objects an agent's cluster may hold."""

from __future__ import annotations

from collections.abc import Callable

from walras.kube.api import API
from walras.kube.verbs import default_quota
from walras.tenants.objects import AGENTS, FLEET


def object_quota(api: API) -> Callable[[str], int]:
    """The `spec.controlPlane.quota.objects` of the agent whose cluster it is, as it is when asked."""

    def quota(cluster: str) -> int:
        agent = api.find(FLEET, AGENTS, "", cluster) or {}
        declared = (agent.get("spec") or {}).get("controlPlane") or {}
        return int((declared.get("quota") or {}).get("objects", default_quota(cluster)))

    return quota
