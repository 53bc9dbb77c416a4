"""Pods of higher priority take the place of lower ones: as few as possible, and on no lease."""

from __future__ import annotations

from typing import Any

from support.world import AGENT, World, condition, lease_node, pod, tell

from walras.tenants.demands import Demand, demand_of
from walras.tenants.fit import Node, Usage
from walras.tenants.preemption import Budget, Placed, sacrifice

Object = dict[str, Any]


def asking(name: str, cpu: str, priority: int = 0, **spec: Any) -> Object:
    return pod(name, limits={"cpu": cpu}, priority=priority, **spec)


def placed(name: str, cpu: str, priority: int = 0, *, leaving: bool = False) -> Placed:
    made = asking(name, cpu)
    if leaving:
        made["metadata"]["deletionTimestamp"] = "now"
    return Placed(("default", name), demand_of(made, priority))


def choice(
    demand: Demand, on: dict[str, list[Placed]], *budgets: Budget, cpu: str = "2"
) -> tuple[str, list[str]] | None:
    """The node and the names of those that go."""
    nodes = []
    for name, pods in on.items():
        usage = Usage()
        for each in pods:
            usage.add(each.demand)
        nodes.append((Node(name, {}, (), {"cpu": int(cpu) * 1000, "pods": 10}, ()), usage))
    found = sacrifice(demand, nodes, on, budgets)
    return None if found is None else (found.node, sorted(each.key[1] for each in found.victims))


HIGH = demand_of(asking("high", "1"), 100)


def test_the_lowest_goes_and_only_as_many_as_needed() -> None:
    assert choice(HIGH, {"n": [placed("a", "1", 10), placed("b", "1", 5)]}) == ("n", ["b"])
    big = demand_of(asking("big", "2"), 100)
    assert choice(big, {"n": [placed("a", "1", 10), placed("b", "1", 5)]}) == ("n", ["a", "b"])


def test_equals_stay_and_what_an_empty_node_could_not_do_is_not_tried() -> None:
    assert choice(HIGH, {"n": [placed("a", "2", 100)]}) is None
    assert choice(demand_of(asking("huge", "3"), 100), {"n": [placed("a", "2")]}) is None


def test_the_node_that_loses_least_is_chosen() -> None:
    on = {
        "n1": [placed("a", "2", 50)],
        "n2": [placed("b", "2", 10)],
        "n3": [placed("c", "1", 10), placed("d", "1", 9)],
    }
    assert choice(HIGH, on) == ("n3", ["d"])


def test_room_that_is_being_made_is_waited_for() -> None:
    assert choice(HIGH, {"n": [placed("a", "2", 5, leaving=True)]}) is None


def test_a_budget_that_allows_nothing_is_kept_where_another_way_is() -> None:
    budget = Budget(lambda demand: demand.name == "a", 0)
    assert choice(HIGH, {"n": [placed("a", "1", 5), placed("b", "1", 10)]}, budget) == ("n", ["b"])
    # There is no other: a budget is a wish, as in Kubernetes.
    assert choice(HIGH, {"n": [placed("a", "2", 5)]}, budget) == ("n", ["a"])


def on_base(world: World) -> set[str]:
    pods = world.pods()
    return {each["metadata"]["name"] for each in pods if each["spec"].get("nodeName") == "base"}


def test_the_victim_is_told_gets_its_grace_and_then_makes_room() -> None:
    async def story(world: World) -> None:
        await world.create("pods", asking("low", "2", 1))
        await world.settle()
        await world.create("pods", asking("high", "2", 10))
        await world.create("pods", asking("other", "2", 5))
        await world.settle()
        low = world.api.get(AGENT, "pods", "default", "low")
        assert low["metadata"]["deletionGracePeriodSeconds"] == 30
        assert condition(low, "DisruptionTarget") == "True"
        assert world.events("Preempted")
        high = world.api.get(AGENT, "pods", "default", "high")
        assert high["status"]["nominatedNodeName"] == "base"
        await world.remove(low)
        # The room is for whom it was made.
        assert on_base(world) == {"high"}
        assert "nominatedNodeName" not in world.api.get(AGENT, "pods", "default", "high")["status"]

    tell(story)


def test_each_of_several_gets_room_of_its_own() -> None:
    async def story(world: World) -> None:
        for name in ("a", "b"):
            await world.create("pods", asking(name, "1", 1))
        await world.settle()
        for name in ("x", "y"):
            await world.create("pods", asking(name, "1", 10))
        await world.settle()
        assert all(
            "deletionTimestamp" in world.api.get(AGENT, "pods", "default", name)["metadata"] for name in "ab"
        )
        for name in ("a", "b"):
            await world.remove(world.api.get(AGENT, "pods", "default", name))
        assert on_base(world) == {"x", "y"}

    tell(story)


def test_who_never_preempts_waits() -> None:
    async def story(world: World) -> None:
        await world.create("pods", asking("low", "2", 1))
        await world.settle()
        await world.create("pods", asking("high", "2", 10, preemptionPolicy="Never"))
        await world.settle()
        assert "deletionTimestamp" not in world.api.get(AGENT, "pods", "default", "low")["metadata"]

    tell(story)


def test_on_a_lease_the_market_decides_who_gives_way() -> None:
    async def story(world: World) -> None:
        await world.api.create(AGENT, "nodes", lease_node("lease-1", bid="low"))
        await world.create("pods", pod("low", limits={"nvidia.com/gpu": "1"}, priority=1))
        await world.settle()
        await world.create("pods", pod("high", limits={"nvidia.com/gpu": "1"}, priority=10))
        await world.settle()
        assert "deletionTimestamp" not in world.api.get(AGENT, "pods", "default", "low")["metadata"]
        assert "nominatedNodeName" not in world.api.get(AGENT, "pods", "default", "high")["status"]

    tell(story)
