"""MIG devices against an oracle that paints slices, one by one, on a strip."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.errors import Invalid
from walras.devices.mig import (
    MigInstance,
    best_start,
    counts,
    free_starts,
    future,
    state_of,
    tables,
)
from walras.devices.mig_device import MigDevice
from walras.devices.mig_profiles import GEOMETRIES, MigGeometry
from walras.devices.repartition import repartition

# First slices and widths, written down again by hand: sevenths as on an H100, quarters as on an A30.
SEVENTHS = {
    "1g": ([0, 1, 2, 3, 4, 5, 6], 1),
    "1g wide": ([0, 2, 4, 6], 2),
    "2g": ([0, 2, 4], 2),
    "3g": ([0, 4], 4),
    "4g": ([0], 4),
    "7g": ([0], 8),
}
QUARTERS = {"1g": ([0, 1, 2, 3], 1), "2g": ([0, 2], 2), "4g": ([0], 4)}
WIDE = ("1g.10gb on A100-40GB", "1g.20gb", "1g.24gb", "1g.35gb", "1g.45gb")

geometries = st.sampled_from(sorted(GEOMETRIES))


def kind(geometry: str, profile: str) -> tuple[list[int], int]:
    if geometry == "A30":
        return QUARTERS[profile[:2]]
    wide = profile in WIDE or f"{profile} on {geometry}" in WIDE
    return SEVENTHS["1g wide" if wide else profile[:2]]


def painted(geometry: str, instances: list[MigInstance]) -> list[str] | None:
    """The strip with each slice's owner, or None where two would own one, or two the media extensions."""
    strip = [""] * (4 if geometry == "A30" else 8)
    for instance in instances:
        starts, width = kind(geometry, instance.profile)
        if instance.start not in starts:
            return None
        for at in range(instance.start, instance.start + width):
            if strip[at]:
                return None
            strip[at] = instance.profile
    return None if sum(each.profile.endswith("+me") for each in instances) > 1 else strip


def every_place(geometry: str) -> list[MigInstance]:
    return [
        MigInstance(each.name, start)
        for each in GEOMETRIES[geometry].profiles
        for start in kind(geometry, each.name)[0]
    ]


def everything_possible(geometry: str) -> list[list[MigInstance]]:
    """Every set of instances that a device can have."""
    found: list[list[MigInstance]] = [[]]
    for place in every_place(geometry):
        found += [[*others, place] for others in found if painted(geometry, [*others, place]) is not None]
    return found


@st.composite
def devices(draw: st.DrawFn) -> tuple[str, MigDevice]:
    """A device in a state that painting allows, some of its instances idle."""
    name = draw(geometries)
    made: list[MigInstance] = []
    for place in draw(st.lists(st.sampled_from(every_place(name)), max_size=8)):
        if painted(name, [*made, place]) is not None:
            made.append(place)
    busy = [each for each in made if draw(st.booleans())]
    idle = tuple(each for each in made if each not in busy)
    return name, MigDevice(GEOMETRIES[name], tuple(busy), idle)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_set_of_instances_that_fits_its_slices_fits_the_compute(name: str) -> None:
    """No more compute slices than there are: that is why states need not count them."""
    geometry = GEOMETRIES[name]
    for instances in everything_possible(name):
        assert sum(geometry[each.profile].compute_slices for each in instances) <= geometry.compute_slices
        assert sum(geometry[each.profile].memory_mib for each in instances) <= geometry.profiles[0].memory_mib


@given(geometries, st.data())
def test_a_state_is_refused_exactly_when_painting_fails(name: str, data: st.DataObject) -> None:
    geometry = GEOMETRIES[name]
    instances = st.builds(
        MigInstance, st.sampled_from([each.name for each in geometry.profiles]), st.integers(-1, 8)
    )
    wanted = data.draw(st.lists(instances, max_size=4))
    if painted(name, wanted) is None:
        with pytest.raises(Invalid, match=r"cannot start at|overlaps another"):
            MigDevice(geometry, tuple(wanted))
    else:
        assert MigDevice(geometry, tuple(wanted)).leased == state_of(geometry, wanted)


def more(name: str, made: list[MigInstance], profile: str) -> int:
    """The most further instances of a profile, by trying every set of starts."""
    starts = kind(name, profile)[0]
    return max(
        size
        for size in range(len(starts) + 1)
        for chosen in combinations(starts, size)
        if painted(name, [*made, *(MigInstance(profile, start) for start in chosen)]) is not None
    )


@given(devices())
def test_what_fits_is_what_can_be_painted(drawn: tuple[str, MigDevice]) -> None:
    name, device = drawn
    made = [*device.busy, *device.idle]
    for each in device.geometry.profiles:
        free = [
            start
            for start in kind(name, each.name)[0]
            if painted(name, [*made, MigInstance(each.name, start)]) is not None
        ]
        assert list(free_starts(device.geometry, device.state, each.name)) == free
        idle = sum(instance.profile == each.name for instance in device.idle)
        assert device.remaining()[each.name] == more(name, made, each.name) + idle
        assert device.remaining_rebuilt()[each.name] == more(name, list(device.busy), each.name)


@given(devices(), st.data())
def test_the_best_place_leaves_the_most(drawn: tuple[str, MigDevice], data: st.DataObject) -> None:
    name, device = drawn
    profiles = [each.name for each in device.geometry.profiles]
    profile = data.draw(st.sampled_from(profiles))
    demand = data.draw(st.none() | st.dictionaries(st.sampled_from(profiles), st.integers(1, 9), max_size=3))
    made = [*device.busy, *device.idle]
    ranks = {}
    for start in kind(name, profile)[0]:
        after = [*made, MigInstance(profile, start)]
        if painted(name, after) is not None:
            left = [more(name, after, each) for each in profiles]
            served = sum(
                min(count, (demand or {}).get(each.name, 0)) * each.size_milli
                for each, count in zip(device.geometry.profiles, left, strict=True)
            )
            ranks[start] = (served, *left, start)
    expected = max(ranks, key=lambda start: ranks[start]) if ranks else None
    assert best_start(device.geometry, device.state, profile, demand) == expected
    if not any(instance.profile == profile for instance in device.idle):
        chosen = device.choose(profile, demand)
        assert chosen == (None if expected is None else MigInstance(profile, expected))


@given(geometries, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=30))
def test_no_history_of_leases_oversells_a_device(name: str, history: list[tuple[int, int]]) -> None:
    """Lease, release, destroy and repartition at random; the strip never has two owners of a slice."""
    device, profiles = MigDevice(GEOMETRIES[name]), [each.name for each in GEOMETRIES[name].profiles]
    for action, which in history:
        before = device
        if action < 5:
            instance = device.choose(profiles[which % len(profiles)])
            device = device.lease(instance) if instance else device
        elif action < 7 and device.busy:
            device = device.release(device.busy[which % len(device.busy)])
        elif action == 7 and device.idle:
            device = device.destroy(device.idle[which % len(device.idle)])
        else:
            plan = repartition(device, [profiles[which % len(profiles)]])
            device = plan.apply(device) if plan else device
            assert set(before.busy) <= set(device.busy)
        assert painted(name, [*device.busy, *device.idle]) is not None


@settings(max_examples=250)
@given(devices(), st.data())
def test_a_repartition_destroys_as_few_idle_instances_as_can_be(
    drawn: tuple[str, MigDevice], data: st.DataObject
) -> None:
    name, device = drawn
    profiles = st.sampled_from([each.name for each in device.geometry.profiles])
    wanted = data.draw(st.lists(profiles, min_size=1, max_size=3))
    demand = data.draw(st.none() | st.dictionaries(profiles, st.integers(1, 5), max_size=2))
    plan = repartition(device, wanted, demand)
    ranks = []
    for starts in product(*(kind(name, profile)[0] for profile in wanted)):
        target = [MigInstance(profile, start) for profile, start in zip(wanted, starts, strict=True)]
        if len(set(target)) < len(target) or painted(name, [*device.busy, *target]) is None:
            continue
        kept = [each for each in device.idle if each not in target and painted(name, [*target, each])]
        made = [each for each in target if each not in device.idle]
        left = future(
            device.geometry, state_of(device.geometry, [*device.busy, *target, *kept]), demand or {}
        )
        destroyed = len(device.idle) - len(kept) - (len(target) - len(made))
        ranks.append((destroyed, len(made), *(-each for each in left)))
    assert (plan is None) == (not ranks)
    if plan is not None:
        after = plan.apply(device)
        assert sorted(each.profile for each in (*plan.reuse, *plan.create)) == sorted(wanted)
        assert set(plan.destroy) <= set(device.idle)
        assert plan.slow == bool(plan.destroy)
        left = future(device.geometry, after.state, demand or {})
        assert (len(plan.destroy), len(plan.create), *(-each for each in left)) == min(ranks)


@pytest.mark.parametrize("name", ["H100-80GB", "A30"])
def test_tables_answer_as_the_functions_do(name: str) -> None:
    geometry = GEOMETRIES[name]
    answers = tables(geometry)
    for instances in everything_possible(name):
        state = state_of(geometry, instances)
        assert answers.more[state] == counts(geometry, state)
        for at, each in enumerate(geometry.profiles):
            start = best_start(geometry, state, each.name)
            if start is None:
                assert answers.start[state][at] == answers.after[state][at] == -1
            else:
                assert answers.start[state][at] == start
                after = state_of(geometry, [*instances, MigInstance(each.name, start)])
                assert answers.after[state][at] == after


def h100() -> MigGeometry:
    return GEOMETRIES["H100-80GB"]


def test_a_small_instance_goes_where_the_large_ones_cannot() -> None:
    device = MigDevice(h100())
    for start in (6, 5, 4):
        instance = device.choose("1g.10gb")
        assert instance == MigInstance("1g.10gb", start)
        device = device.lease(instance)
    assert device.remaining() == {
        "7g.80gb": 0,
        "4g.40gb": 1,
        "3g.40gb": 1,
        "2g.20gb": 2,
        "1g.20gb": 2,
        "1g.10gb+me": 1,
        "1g.10gb": 4,
    }


def test_three_sevenths_take_half_the_memory_so_two_fill_a_device() -> None:
    device = MigDevice(h100(), busy=(MigInstance("3g.40gb", 0), MigInstance("3g.40gb", 4)))
    assert set(device.remaining().values()) == {0}
    assert counts(h100(), device.state) == (0,) * 7


def test_an_instance_that_nobody_may_want_is_not_kept_possible() -> None:
    """Beside a 2g.20gb the other half is left to a 3g.40gb, unless more of 2g.20gb are what is wanted."""
    device = MigDevice(h100(), busy=(MigInstance("2g.20gb", 0),))
    assert device.choose("1g.10gb") == MigInstance("1g.10gb", 3)
    assert device.choose("1g.10gb", {"2g.20gb": 2}) == MigInstance("1g.10gb", 6)


def test_one_set_of_media_extensions_is_sold_once() -> None:
    a30 = MigDevice(GEOMETRIES["A30"], busy=(MigInstance("1g.6gb+me", 3),))
    assert a30.choose("2g.12gb+me") is None
    assert a30.choose("2g.12gb") == MigInstance("2g.12gb", 0)


def test_an_idle_instance_is_used_again_before_one_is_made() -> None:
    device = MigDevice(h100(), idle=(MigInstance("1g.10gb", 0), MigInstance("1g.10gb", 6)))
    assert device.choose("1g.10gb") == MigInstance("1g.10gb", 6)
    leased = device.lease(MigInstance("1g.10gb", 6))
    assert leased.idle == (MigInstance("1g.10gb", 0),)
    assert leased.release(MigInstance("1g.10gb", 6)).state == device.state


def test_of_idle_instances_the_one_is_leased_that_is_least_in_the_way() -> None:
    idle = (MigInstance("1g.10gb", 1), MigInstance("1g.10gb", 6))
    device = MigDevice(h100(), busy=(MigInstance("1g.10gb", 0),), idle=idle)
    assert device.choose("1g.10gb") == MigInstance("1g.10gb", 1)


def test_room_for_a_large_instance_is_made_of_idle_small_ones() -> None:
    small = tuple(MigInstance("1g.10gb", start) for start in range(7))
    device = MigDevice(h100(), busy=small[:2], idle=small[2:])
    assert device.choose("3g.40gb") is None
    plan = repartition(device, ["3g.40gb"])
    assert plan is not None
    assert plan.slow
    assert plan.create == (MigInstance("3g.40gb", 4),)
    assert plan.destroy == small[4:]
    assert repartition(MigDevice(h100(), busy=small), ["1g.10gb"]) is None


def test_one_instance_taken_apart_and_two_made_is_better_than_two_taken_apart_and_one_made() -> None:
    media = MigInstance("1g.10gb+me", 4)
    device = MigDevice(h100(), idle=(MigInstance("1g.20gb", 0), MigInstance("1g.10gb", 2), media))
    plan = repartition(device, ["1g.10gb+me", "3g.40gb"])
    assert plan is not None
    assert plan.destroy == (media,)
    assert plan.create == (MigInstance("3g.40gb", 4), MigInstance("1g.10gb+me", 3))


def test_what_is_leased_is_never_taken_apart() -> None:
    device = MigDevice(h100(), busy=(MigInstance("7g.80gb", 0),))
    with pytest.raises(Invalid, match="is not idle"):
        device.destroy(MigInstance("7g.80gb", 0))
    with pytest.raises(Invalid, match="is not under lease"):
        device.release(MigInstance("1g.10gb", 0))
    with pytest.raises(Invalid, match="overlaps"):
        device.lease(MigInstance("1g.10gb", 0))
    with pytest.raises(Invalid, match="no MIG profile"):
        device.choose("1g.5gb")
