"""Placement against plain enumeration."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from walras.devices.placement import (
    EXACT_PARTS,
    Fill,
    Shape,
    cheapest_cover,
    dominant_milli,
    fragmentation,
    place,
)

shapes = st.builds(Shape, st.integers(1, 1000), st.integers(0, 1000))
parts = st.tuples(shapes, st.integers(0, 50))


def total(items: list[Shape]) -> Shape:
    return Shape(sum(item.milli for item in items), sum(item.memory_mib for item in items))


@given(st.builds(Shape, st.integers(0, 1500), st.integers(0, 1500)), st.lists(parts, max_size=8))
def test_the_cheapest_cover_is_the_cheapest_of_all_subsets(
    needed: Shape, choices: list[tuple[Shape, int]]
) -> None:
    covers = [
        sum(choices[i][1] for i in chosen)
        for size in range(len(choices) + 1)
        for chosen in combinations(range(len(choices)), size)
        if needed.fits(total([choices[i][0] for i in chosen]))
    ]
    found = cheapest_cover(needed, choices)
    assert (found is None) == (not covers)
    if found is not None:
        assert needed.fits(total([choices[i][0] for i in found]))
        assert sum(choices[i][1] for i in found) == min(covers)


@given(shapes, st.lists(parts, min_size=EXACT_PARTS + 1, max_size=30))
def test_a_cover_of_many_parts_covers_and_has_none_to_spare(
    needed: Shape, choices: list[tuple[Shape, int]]
) -> None:
    found = cheapest_cover(needed, choices)
    assert (found is not None) == needed.fits(total([shape for shape, _ in choices]))
    for spare in found or ():
        assert not needed.fits(total([choices[i][0] for i in found or () if i != spare]))


@given(
    st.lists(shapes, min_size=1, max_size=5),
    shapes,
    st.integers(1, 3),
    st.dictionaries(shapes, st.integers(1, 5), max_size=4),
)
def test_placement_takes_the_devices_whose_fragmentation_grows_least(
    free: list[Shape], need: Shape, devices: int, demand: dict[Shape, int]
) -> None:
    rooms = {f"d{i}": room for i, room in enumerate(free)}

    def growth(device: str) -> int:
        room = rooms[device]
        left = Shape(room.milli - need.milli, room.memory_mib - need.memory_mib)
        return fragmentation(left, demand) - fragmentation(room, demand)

    fitting = [name for name, room in rooms.items() if need.fits(room)]
    found = place(dict.fromkeys(rooms, need), rooms, devices, demand)
    assert (found is None) == (len(fitting) < devices)
    if found is not None:
        assert len(set(found)) == devices
        assert set(found) <= set(fitting)
        cheapest = min(sum(growth(name) for name in chosen) for chosen in combinations(fitting, devices))
        assert sum(growth(name) for name in found) == cheapest


@given(st.integers(1, 40), st.lists(st.integers(1, 40), max_size=4))
def test_how_full_a_device_gets_is_the_best_of_all_fillings(size: int, others: list[int]) -> None:
    sizes = [Shape(each, 0) for each in (size, *others)]
    sums = {size}
    for _ in range(40):
        sums |= {done + shape.milli for done in sums for shape in sizes if done + shape.milli <= 40}
    assert Fill(Shape(40, 0), sizes).full(Shape(size, 0)) == max(sums)


def test_a_share_that_tiles_the_device_strands_nothing() -> None:
    empty = Fill(Shape(1000, 80), [])
    assert empty.ratio(Shape(250, 20)) == (250 * 1000, 250 * 1000)
    assert empty.full(Shape(810, 0)) == 810
    assert empty.full(Shape(330, 0)) == 990
    assert Fill(Shape(1000, 80), [Shape(190, 0)]).full(Shape(810, 0)) == 1000


def test_memory_counts_where_it_is_the_scarcer() -> None:
    assert dominant_milli(Shape(100, 40), Shape(1000, 80)) == 500
    assert dominant_milli(Shape(600, 40), Shape(1000, 80)) == 600
    assert dominant_milli(Shape(600, 0), Shape(1000, 0)) == 600


def test_the_fuller_device_is_taken_on_equal_fragmentation() -> None:
    rooms = {"empty": Shape(1000, 80), "half": Shape(500, 40)}
    assert place(dict.fromkeys(rooms, Shape(250, 20)), rooms, 1, {}) == ("half",)


def test_a_whole_device_is_kept_for_the_bid_that_wants_one() -> None:
    rooms = {"whole": Shape(1000, 80), "used": Shape(600, 80)}
    demand = {Shape(1000, 80): 1, Shape(500, 10): 1}
    assert place(dict.fromkeys(rooms, Shape(500, 10)), rooms, 1, demand) == ("used",)
