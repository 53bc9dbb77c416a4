"""Where a gang goes: together on a node, together on NVLink, spread, or wherever it breaks least.

A whole node that is idle is worth more to the next gang than as many devices scattered. So placements are
compared by, in this order: nodes touched; idle nodes taken in part; growth of fragmentation on the devices
(Weng et al., USENIX ATC 2023, as in `placement`); room left on the nodes touched; NUMA nodes touched; what is
left on the devices. Each is a sum over parts, so dynamic programming over NUMA nodes and nodes is exact.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from walras.devices.placement import Demand, Shape, fragmentation


class Affinity(StrEnum):
    """What a gang asks of the devices' places."""

    ANY = "any"
    NODE = "node"  # all on one node
    NVLINK = "nvlink"  # all in one NVLink domain, be it a node's or a rack's
    SPREAD = "spread"  # each on a node of its own


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is. `nvlink` names its NVLink domain, "" when it has none; `numa` counts on its node."""

    node: str
    nvlink: str = ""
    numa: int = 0


class Cost(NamedTuple):
    """What a placement breaks, compared from the first to the last: the less, the better."""

    nodes: int = 0
    broken_nodes: int = 0  # idle before, with something left after
    fragmentation: int = 0  # growth, in milli-GPU
    spare: int = 0  # devices of the nodes touched that would have done but are not taken
    numas: int = 0
    left_milli: int = 0
    left_memory_mib: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


class _Member(NamedTuple):
    """A device as far as its cost goes: equal ones are interchangeable."""

    numa: int
    need: Shape
    room: Shape


class _Node(NamedTuple):
    """Devices of a node that a gang may take.

    `total` is how many the node has in all when all are idle, else 0; `fitting` how many would do, be they in
    the same NVLink domain or not.
    """

    members: tuple[_Member, ...]
    total: int
    fitting: int


_Option = tuple[Cost, tuple[int, ...]]  # positions of the members taken
_Table = list[_Option]  # by how many are taken


def place_gang(
    needs: Mapping[str, Shape],
    rooms: Mapping[str, Shape],
    capacities: Mapping[str, Shape],
    places: Mapping[str, Place],
    devices: int,
    affinity: Affinity = Affinity.ANY,
    demand: Demand | None = None,
) -> tuple[str, ...] | None:
    """`devices` distinct devices of least Cost for a gang, or None when not enough have that affinity.

    `needs` has the eligible devices with what is taken on each; `rooms` what is free and `capacities` what
    there is on every device of the nodes. The same input always gives the same devices, sorted by name.
    """
    fitting = sorted(device for device, need in needs.items() if need.fits(rooms[device]))
    whole = _idle_nodes(rooms, capacities, places)
    on_node = Counter(places[device].node for device in fitting)
    tables: dict[_Node, _Table] = {}

    def table_of(members: Sequence[str]) -> _Table:
        rows = tuple(_Member(places[each].numa, needs[each], rooms[each]) for each in members)
        name = places[members[0]].node
        node = _Node(rows, whole[name], on_node[name])
        if node not in tables:
            tables[node] = _table(node, demand or {})
        return tables[node]

    best: tuple[Cost, tuple[str, ...]] | None = None
    for group in _groups(fitting, places, affinity):
        if len(group) >= devices > 0:
            nodes = _by(group, lambda device: places[device].node)
            parts = [(members, table_of(members)) for members in nodes]
            found = _spread(parts, devices) if affinity is Affinity.SPREAD else _pack(parts, devices)
            if found is not None and (best is None or found < best):
                best = found
    return tuple(sorted(best[1])) if best else None


def _groups(devices: Sequence[str], places: Mapping[str, Place], affinity: Affinity) -> list[list[str]]:
    """Sets of devices of which one has to hold the whole gang."""
    if affinity is Affinity.NODE:
        return _by(devices, lambda device: places[device].node)
    if affinity is Affinity.NVLINK:
        # Without NVLink a device is connected to itself alone.
        return _by(devices, lambda device: (places[device].nvlink, "" if places[device].nvlink else device))
    return [list(devices)]


def _by(devices: Iterable[str], key: Callable[[str], object]) -> list[list[str]]:
    groups: defaultdict[object, list[str]] = defaultdict(list)
    for device in devices:
        groups[key(device)].append(device)
    return list(groups.values())


def _idle_nodes(
    rooms: Mapping[str, Shape], capacities: Mapping[str, Shape], places: Mapping[str, Place]
) -> dict[str, int]:
    """How many devices each node has, or 0 where one of them is in use."""
    count: dict[str, int] = {}
    for device, room in rooms.items():
        node = places[device].node
        idle = room == capacities[device] and count.get(node, 1) > 0
        count[node] = count.get(node, 0) + 1 if idle else 0
    return count


def _table(node: _Node, demand: Demand) -> _Table:
    """The least cost of taking 0, 1, 2, ... devices of a node."""
    table: _Table = [(Cost(), ())]
    numas = sorted({member.numa for member in node.members})
    for numa in numas:
        own = sorted(
            (_device_cost(member, demand), position)
            for position, member in enumerate(node.members)
            if member.numa == numa
        )
        taken: _Option = (Cost(numas=1), ())
        of_numa: _Table = [(Cost(), ())]
        for cost, position in own:
            taken = (taken[0].plus(cost), (*taken[1], position))
            of_numa.append(taken)
        table = _merge(table, of_numa)
    return [table[0], *((cost.plus(_node_cost(node, taken)), taken) for cost, taken in table[1:])]


def _device_cost(member: _Member, demand: Demand) -> Cost:
    left = member.room - member.need
    growth = fragmentation(left, demand) - fragmentation(member.room, demand)
    return Cost(fragmentation=growth, left_milli=left.milli, left_memory_mib=left.memory_mib)


def _node_cost(node: _Node, taken: tuple[int, ...]) -> Cost:
    used_up = all(node.members[at].need.milli == node.members[at].room.milli for at in taken)
    broken = node.total > 0 and not (used_up and len(taken) == node.total)
    return Cost(nodes=1, broken_nodes=int(broken), spare=node.fitting - len(taken))


def _merge(one: _Table, other: _Table) -> _Table:
    """The least cost of each number of devices out of two tables together."""
    merged: list[_Option | None] = [None] * (len(one) + len(other) - 1)
    for mine, (cost, taken) in enumerate(one):
        for its, (more, also) in enumerate(other):
            option = (cost.plus(more), (*taken, *also))
            known = merged[mine + its]
            merged[mine + its] = option if known is None or option < known else known
    return [option for option in merged if option is not None]


def _spread(parts: Sequence[tuple[list[str], _Table]], devices: int) -> tuple[Cost, tuple[str, ...]] | None:
    ones = sorted((table[1][0], members[table[1][1][0]]) for members, table in parts)[:devices]
    if len(ones) < devices:
        return None
    total = Cost()
    for cost, _ in ones:
        total = total.plus(cost)
    return total, tuple(device for _, device in ones)


def _pack(parts: Sequence[tuple[list[str], _Table]], devices: int) -> tuple[Cost, tuple[str, ...]] | None:
    """The least cost over nodes. There are enough devices; the fewest nodes come first in Cost."""
    sizes = sorted((len(members) for members, _ in parts), reverse=True)
    fewest, covered = 0, 0
    while covered < devices:
        covered += sizes[fewest]
        fewest += 1
    best: dict[int, tuple[Cost, tuple[str, ...]]] = {0: (Cost(), ())}
    alike: defaultdict[int, int] = defaultdict(int)
    for members, table in parts:
        alike[id(table)] += 1
        # No more nodes than that are touched, so of nodes that are alike no more can be needed.
        if alike[id(table)] > fewest:
            continue
        grown = dict(best)
        for done, (cost, names) in best.items():
            for count in range(1, min(len(table), devices - done + 1)):
                more, positions = table[count]
                if cost.nodes < fewest:
                    option = (cost.plus(more), (*names, *(members[at] for at in positions)))
                    if done + count not in grown or option < grown[done + count]:
                        grown[done + count] = option
        best = grown
    return best[devices]
