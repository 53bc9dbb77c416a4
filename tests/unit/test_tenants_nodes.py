"""Nodes are tainted by their conditions, and the taints go with them."""

from typing import Any

import pytest
from support.world import AGENT, World, pod, tell

from walras.tenants.nodes import taints_of

Object = dict[str, Any]
READY = {"type": "Ready", "status": "True"}


def node(*conditions: Object, **spec: Any) -> Object:
    capacity = {"cpu": "1", "memory": "1Gi", "pods": "16"}
    status = {"capacity": capacity, "allocatable": dict(capacity), "conditions": list(conditions)}
    return {"metadata": {"name": "n1"}, "spec": spec, "status": status}


def keys(made: Object) -> list[str]:
    return [each["key"].removeprefix("node.kubernetes.io/") for each in taints_of(made)]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((READY,), []),
        ((), []),
        (({"type": "Ready", "status": "False"},), ["not-ready"]),
        (({"type": "Ready", "status": "Unknown"},), ["unreachable"]),
        ((READY, {"type": "DiskPressure", "status": "True"}), ["disk-pressure"]),
        ((READY, {"type": "DiskPressure", "status": "False"}), []),
    ],
)
def test_a_condition_is_a_taint(conditions: tuple[Object, ...], expected: list[str]) -> None:
    assert keys(node(*conditions)) == expected


def test_a_node_that_was_made_not_ready_stays_so_until_it_says_more() -> None:
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert keys(node(taints=[taint])) == ["not-ready"]
    assert keys(node(READY, taints=[taint])) == []


def test_taints_of_others_stay_and_come_first() -> None:
    mine = {"key": "mine", "effect": "NoSchedule"}
    evicting = {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}
    stale = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    made = node(READY, taints=[stale, mine, evicting], unschedulable=True)
    cordoned = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    assert taints_of(made) == [mine, evicting, cordoned]


def test_a_node_that_becomes_ready_takes_the_pod_that_waited() -> None:
    async def story(world: World) -> None:
        made = node({"type": "Ready", "status": "False"})
        made["metadata"]["labels"] = {"only": "n1"}
        await world.create("nodes", made)
        await world.settle()
        await world.create("pods", pod("web", nodeSelector={"only": "n1"}))
        await world.settle()
        assert "nodeName" not in world.api.get(AGENT, "pods", "default", "web")["spec"]
        await world.api.edit(AGENT, "nodes", "", "n1", lambda it: it["status"].update(conditions=[READY]))
        await world.settle()
        assert world.api.get(AGENT, "pods", "default", "web")["spec"]["nodeName"] == "n1"

    tell(story)
