"""Which pods of lower priority have to go for one that fits nowhere, as kube-scheduler chooses them. Pure.

Follows its plugin DefaultPreemption: as few as possible on one node, those of the highest priority spared
first, disruption budgets kept where they can be; the node where least is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from walras.tenants.demands import Demand
from walras.tenants.fit import Node, Usage, refusals

Key = tuple[str, str]
"""Namespace and name of a pod."""
Admits = Callable[[Node, frozenset[Key]], bool]
"""Whether other pods leave the node to the pod once those named are gone."""


class Placed(NamedTuple):
    """A pod on a node."""

    key: Key
    demand: Demand


@dataclass(slots=True)
class Budget:
    """A disruption budget: how many more of its pods may be disrupted."""

    protects: Callable[[Demand], bool]
    allowed: int


@dataclass(frozen=True, slots=True)
class Sacrifice:
    node: str
    victims: tuple[Placed, ...]


def sacrifice(
    demand: Demand,
    nodes: Sequence[tuple[Node, Usage]],
    on: Mapping[str, Sequence[Placed]],
    budgets: Sequence[Budget] = (),
    *,
    held: frozenset[str] = frozenset(),
    admits: Admits = lambda _node, _gone: True,
) -> Sacrifice | None:
    """The node where the pod fits without some of lower priority, and those; None where there is none.

    `on`: the pods of each node. Those that are leaving count as gone; where they make room, it is waited for.
    """
    found = []
    for node, usage in nodes:
        # On a lease the market decides who gives way; and what an empty node would not do for is past help.
        if node.is_lease or refusals(demand, node, Usage(), held):
            continue
        lower = [pod for pod in on.get(node.name, ()) if pod.demand.priority < demand.priority]
        chosen = _victims(demand, node, usage, lower, budgets, held, admits)
        if chosen is not None:
            found.append((node.name, *chosen))
    if not found:
        return None
    best = min(found, key=_loss)
    return Sacrifice(best[0], tuple(best[1]))


def _victims(
    demand: Demand,
    node: Node,
    usage: Usage,
    lower: Sequence[Placed],
    budgets: Sequence[Budget],
    held: frozenset[str],
    admits: Admits,
) -> tuple[list[Placed], int] | None:
    """Who goes, and how many of them against a budget; None where that does not help, or is not needed."""
    left = usage.copy()
    for pod in lower:
        left.remove(pod.demand)
    staying = [pod for pod in lower if not pod.demand.leaving]
    gone = {pod.key for pod in lower}

    def fits() -> bool:
        return not refusals(demand, node, left, held) and admits(node, frozenset(gone))

    if not staying or not fits():
        return None
    broken, kept = _against(staying, budgets)
    victims, violations = [], 0
    for group, is_broken in ((broken, True), (kept, False)):
        for pod in sorted(group, key=lambda each: (-each.demand.priority, each.key)):
            left.add(pod.demand)
            gone.discard(pod.key)
            if not fits():
                left.remove(pod.demand)
                gone.add(pod.key)
                victims.append(pod)
                violations += is_broken
    return (victims, violations) if victims else None


def _against(pods: Sequence[Placed], budgets: Sequence[Budget]) -> tuple[list[Placed], list[Placed]]:
    """Pods whose disruption no budget allows any more, and the others."""
    left = [budget.allowed for budget in budgets]
    broken: list[Placed] = []
    kept: list[Placed] = []
    for pod in sorted(pods, key=lambda each: (-each.demand.priority, each.key)):
        is_broken = False
        for number, budget in enumerate(budgets):
            if budget.protects(pod.demand):
                left[number] -= 1
                is_broken = is_broken or left[number] < 0
        (broken if is_broken else kept).append(pod)
    return broken, kept


def _loss(candidate: tuple[str, list[Placed], int]) -> tuple[int, int, int, int, str]:
    """Less is better: budgets broken, the highest priority that goes, all priorities, how many go."""
    name, victims, violations = candidate
    priorities = [pod.demand.priority for pod in victims]
    # Priorities may be negative: each counts from the least that there can be.
    return violations, max(priorities), sum(each + (1 << 31) for each in priorities), len(victims), name
