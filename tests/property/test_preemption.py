"""Whoever is preempted, it helps, spares whom it can, and touches nobody of equal priority."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.tenants.demands import Demand
from walras.tenants.fit import Node, Usage, refusals
from walras.tenants.preemption import Placed, sacrifice


def demand(name: str, cpu: int, priority: int, *, leaving: bool = False) -> Demand:
    return Demand(name, {"cpu": cpu}, None, {}, {}, (), namespace="d", priority=priority, leaving=leaving)


PODS = st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 5), st.booleans()), max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(PODS, min_size=1, max_size=3), st.integers(1, 6), st.integers(-1, 6))
def test_victims_are_enough_needed_and_lower(nodes: Any, cpu: int, priority: int) -> None:
    wanted = demand("new", cpu, priority)
    on, room = {}, []
    for number, pods in enumerate(nodes):
        name, usage = f"n{number}", Usage()
        on[name] = [
            Placed(("d", f"{name}-{i}"), demand(f"{name}-{i}", size, rank, leaving=gone))
            for i, (size, rank, gone) in enumerate(pods)
        ]
        for each in on[name]:
            usage.add(each.demand)
        room.append((Node(name, {}, (), {"cpu": 6, "pods": 20}, ()), usage))
    chosen = sacrifice(wanted, room, on)
    if chosen is None:
        return
    node, usage = next(each for each in room if each[0].name == chosen.node)
    gone = {each.key for each in chosen.victims}
    assert gone
    assert all(each.demand.priority < priority and not each.demand.leaving for each in chosen.victims)
    left = usage.copy()
    for each in on[chosen.node]:
        if each.key in gone or (each.demand.leaving and each.demand.priority < priority):
            left.remove(each.demand)
    assert not refusals(wanted, node, left)
    for each in chosen.victims:
        left.add(each.demand)
        assert refusals(wanted, node, left), "nobody goes for nothing"
        left.remove(each.demand)
