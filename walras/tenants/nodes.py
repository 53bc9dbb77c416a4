"""Taints nodes by their conditions, and takes the taints off again: who is not ready gets no new pods.

As Kubernetes' node lifecycle controller taints with NoSchedule; nobody is evicted here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import NODES, Object, condition

_PREFIX: Final = "node.kubernetes.io/"
# By condition and its status.
_BY_CONDITION: Final[Mapping[tuple[str, str], str]] = {
    ("Ready", "False"): "not-ready",
    ("Ready", "Unknown"): "unreachable",
    ("MemoryPressure", "True"): "memory-pressure",
    ("DiskPressure", "True"): "disk-pressure",
    ("PIDPressure", "True"): "pid-pressure",
    ("NetworkUnavailable", "True"): "network-unavailable",
}
_NOT_READY: Final = (f"{_PREFIX}not-ready", "NoSchedule")
_OURS: Final = frozenset(_PREFIX + each for each in (*_BY_CONDITION.values(), "unschedulable"))


def wanted(node: Mapping[str, Any]) -> list[Object]:
    """The taints that the node's conditions ask for."""
    names = [
        name
        for (kind, value), name in _BY_CONDITION.items()
        if (found := condition(node, kind)) is not None and found.get("status") == value
    ]
    if condition(node, "Ready") is None and any(_key(each) == _NOT_READY for each in _present(node)):
        # Given at its creation, until it says more of itself.
        names.append("not-ready")
    if (node.get("spec") or {}).get("unschedulable"):
        names.append("unschedulable")
    return [{"key": _PREFIX + name, "effect": "NoSchedule"} for name in names]


def taints_of(node: Mapping[str, Any]) -> list[Object]:
    """What the node's taints should be: those of others, and ours as its conditions say."""
    present, asked = _present(node), wanted(node)
    kept = [each for each in present if not _is_ours(each) or _key(each) in map(_key, asked)]
    return [*kept, *(each for each in asked if _key(each) not in map(_key, kept))]


def _present(node: Mapping[str, Any]) -> list[Object]:
    return list((node.get("spec") or {}).get("taints") or ())


def _key(taint: Mapping[str, Any]) -> tuple[Any, Any]:
    return taint.get("key"), taint.get("effect")


def _is_ours(taint: Mapping[str, Any]) -> bool:
    return taint.get("key") in _OURS and taint.get("effect") == "NoSchedule"


class NodeTaintController:
    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(NODES, self._changed)]

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED" and _differs(change.object):
            self._manager.add(self, Key(change.cluster, "", change.object["metadata"]["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace

        def taint(latest: Object) -> None:
            taints = taints_of(latest)
            if taints:
                latest.setdefault("spec", {})["taints"] = taints
            else:
                (latest.get("spec") or {}).pop("taints", None)

        try:
            await self._api.edit(cluster, NODES, "", name, taint)
        except NotFound:
            return None
        return None


def _differs(node: Mapping[str, Any]) -> bool:
    return taints_of(node) != _present(node)
