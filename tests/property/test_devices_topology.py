"""Placement of gangs against every possible choice of devices."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.devices.placement import Shape, fragmentation
from walras.devices.topology import Affinity, Place, place_gang

WHOLE = Shape(1000, 80)
ROOMS = (WHOLE, WHOLE, WHOLE, Shape(600, 80), Shape(500, 20), Shape(0, 0))
NEEDS = (WHOLE, Shape(500, 20), Shape(300, 10))


class Fleet:
    """Devices by name, and what a gang of them breaks, worked out from its set alone."""

    def __init__(self, rows: list[tuple[int, int, int, Shape]]) -> None:
        self.places = {
            f"d{i:02}": Place(f"n{node}", f"v{nvlink}" if nvlink else "", numa)
            for i, (node, nvlink, numa, _) in enumerate(rows)
        }
        self.rooms = {f"d{i:02}": room for i, (*_, room) in enumerate(rows)}
        self.capacities = dict.fromkeys(self.rooms, WHOLE)

    def place(
        self, needs: dict[str, Shape], devices: int, affinity: Affinity, demand: dict[Shape, int]
    ) -> tuple[str, ...] | None:
        return place_gang(needs, self.rooms, self.capacities, self.places, devices, affinity, demand)

    def allowed(self, gang: tuple[str, ...], affinity: Affinity) -> bool:
        nodes = [self.places[each].node for each in gang]
        domains = {self.places[each].nvlink for each in gang}
        if affinity is Affinity.NODE:
            return len(set(nodes)) == 1
        if affinity is Affinity.SPREAD:
            return len(set(nodes)) == len(nodes)
        if affinity is Affinity.NVLINK:
            return len(gang) == 1 or (len(domains) == 1 and "" not in domains)
        return True

    def cost(
        self, gang: tuple[str, ...], needs: dict[str, Shape], demand: dict[Shape, int]
    ) -> tuple[int, ...]:
        nodes = {self.places[each].node for each in gang}
        on = {node: [each for each in self.rooms if self.places[each].node == node] for node in nodes}
        left = {
            each: self.rooms[each] - needs[each] if each in gang else self.rooms[each] for each in self.rooms
        }
        broken = sum(
            all(self.rooms[each] == WHOLE for each in on[node]) and any(left[each].milli for each in on[node])
            for node in nodes
        )
        growth = sum(
            fragmentation(left[each], demand) - fragmentation(self.rooms[each], demand) for each in gang
        )
        spare = sum(
            each not in gang and each in needs and needs[each].fits(self.rooms[each])
            for node in nodes
            for each in on[node]
        )
        numas = {(self.places[each].node, self.places[each].numa) for each in gang}
        return (
            len(nodes),
            broken,
            growth,
            spare,
            len(numas),
            sum(left[each].milli for each in gang),
            sum(left[each].memory_mib for each in gang),
        )


rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1), st.sampled_from(ROOMS)),
    min_size=1,
    max_size=9,
)
demands = st.dictionaries(st.sampled_from([*NEEDS, Shape(700, 60)]), st.integers(1, 4), max_size=3)


@settings(max_examples=400)
@given(rows, st.data(), st.integers(1, 5), st.sampled_from(Affinity), demands)
def test_a_gang_goes_where_it_breaks_least(
    rows: list[tuple[int, int, int, Shape]],
    data: st.DataObject,
    devices: int,
    affinity: Affinity,
    demand: dict[Shape, int],
) -> None:
    fleet, need = Fleet(rows), data.draw(st.sampled_from(NEEDS))
    eligible = [each for each in fleet.rooms if data.draw(st.integers(0, 5))]
    needs = dict.fromkeys(eligible, need)
    costs = [
        fleet.cost(gang, needs, demand)
        for gang in combinations([each for each in eligible if need.fits(fleet.rooms[each])], devices)
        if fleet.allowed(gang, affinity)
    ]
    found = fleet.place(needs, devices, affinity, demand)
    assert (found is None) == (not costs)
    if found is not None:
        assert len(set(found)) == devices
        assert fleet.allowed(found, affinity)
        assert all(need.fits(fleet.rooms[each]) for each in found)
        assert fleet.cost(found, needs, demand) == min(costs)
        backwards = dict(reversed(list(needs.items())))
        assert fleet.place(backwards, devices, affinity, demand) == found


def fleet(*nodes: int, per_node: int = 8) -> Fleet:
    """Nodes of eight devices in two NUMA nodes, of which the first so many are idle and the others in use."""
    return Fleet(
        [
            (node, node + 1, at * 2 // per_node, WHOLE if at < idle else Shape(0, 0))
            for node, idle in enumerate(nodes)
            for at in range(per_node)
        ]
    )


def nodes_of(world: Fleet, found: tuple[str, ...] | None) -> list[str]:
    assert found is not None
    return sorted({world.places[each].node for each in found})


def whole(world: Fleet, devices: int, affinity: Affinity = Affinity.ANY) -> tuple[str, ...] | None:
    return world.place(dict.fromkeys(world.rooms, WHOLE), devices, affinity, {})


def test_whole_nodes_are_kept_whole() -> None:
    world = fleet(8, 5, 8, 4)
    assert nodes_of(world, whole(world, 4)) == ["n3"]
    assert nodes_of(world, whole(world, 5)) == ["n1"]
    assert nodes_of(world, whole(world, 8)) == ["n0"]
    assert nodes_of(world, whole(world, 16)) == ["n0", "n2"]
    assert nodes_of(world, whole(world, 12)) == ["n0", "n3"]


def test_devices_of_one_numa_node_are_taken_together() -> None:
    world = fleet(8)
    found = whole(world, 4)
    assert found is not None
    assert len({world.places[each].numa for each in found}) == 1


def test_a_gang_with_an_affinity_that_there_is_not_is_refused() -> None:
    world = fleet(5, 4)
    assert whole(world, 9) is not None
    assert whole(world, 10) is None
    assert whole(world, 6, Affinity.NODE) is None
    assert whole(world, 3, Affinity.SPREAD) is None
    assert whole(world, 0) is None


def test_an_nvlink_domain_may_be_a_rack() -> None:
    rack = Fleet([(node, 1 + node // 2, 0, WHOLE) for node in range(4) for _ in range(4)])
    found = whole(rack, 6, Affinity.NVLINK)
    assert nodes_of(rack, found) == ["n0", "n1"]
    assert whole(rack, 9, Affinity.NVLINK) is None


def test_without_nvlink_a_device_is_connected_to_itself_alone() -> None:
    loose = Fleet([(0, 0, 0, WHOLE), (0, 0, 0, WHOLE)])
    assert whole(loose, 1, Affinity.NVLINK) == ("d00",)
    assert whole(loose, 2, Affinity.NVLINK) is None


def test_two_pairs_on_bridges_are_two_domains_of_a_node() -> None:
    """A pair's rest is the node's: the node with less to spare is taken, whatever is spare in the pair."""
    bridged = Fleet([(0, 1 + at // 2, 0, WHOLE) for at in range(4)] + [(1, 3, 0, WHOLE)] * 3)
    assert nodes_of(bridged, whole(bridged, 2, Affinity.NVLINK)) == ["n1"]
    assert whole(bridged, 4, Affinity.NVLINK) is None


def test_a_spread_gang_takes_one_of_each_node_and_breaks_none_that_it_can_spare() -> None:
    world = fleet(8, 1, 3)
    found = whole(world, 2, Affinity.SPREAD)
    assert nodes_of(world, found) == ["n1", "n2"]
