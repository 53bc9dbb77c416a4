"""States of a device in MIG mode: what its instances take, what else fits, where the next one goes best.

A state is an integer: bit i is memory slice i, the bit after the last slice stands for the media extensions.
Compute needs no bits of its own: at the allowed starts, instances that keep off each other's memory slices
never take more compute slices together than the device has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from walras.core.errors import Invalid
from walras.devices.mig_profiles import MigGeometry, MigProfile


class MigInstance(NamedTuple):
    """An instance on one device: `nvidia-smi mig -lgi` prints its start before the colon."""

    profile: str
    start: int

    def __str__(self) -> str:
        """As in `1g.10gb@4`."""
        return f"{self.profile}@{self.start}"


def taken(geometry: MigGeometry, profile: MigProfile, start: int) -> int:
    """The state of a device with nothing but that instance."""
    slices = ((1 << profile.memory_slices) - 1) << start
    return slices | profile.media << geometry.memory_slices


@lru_cache(maxsize=1024)
def _placements(geometry: MigGeometry, profile: str) -> tuple[tuple[int, int], ...]:
    found = geometry[profile]
    return tuple((start, taken(geometry, found, start)) for start in found.starts)


def state_of(geometry: MigGeometry, instances: Iterable[MigInstance]) -> int:
    """What instances take together. Raises Invalid where one is at no allowed start, or two overlap."""
    state = 0
    for instance in instances:
        mask = dict(_placements(geometry, instance.profile)).get(instance.start)
        if mask is None:
            raise Invalid(f"{geometry.name}: {instance.profile} cannot start at slice {instance.start}")
        if state & mask:
            raise Invalid(f"{geometry.name}: {instance.profile} at slice {instance.start} overlaps another")
        state |= mask
    return state


def free_starts(geometry: MigGeometry, state: int, profile: str) -> tuple[int, ...]:
    """Where one more instance can be made. Raises Invalid for a profile that the device has not."""
    return tuple(start for start, mask in _placements(geometry, profile) if not state & mask)


@lru_cache(maxsize=8192)
def counts(geometry: MigGeometry, state: int) -> tuple[int, ...]:
    """How many more of each profile fit, one kind at a time, in the order of `geometry.profiles`."""
    return tuple(
        min(each.maximum, len(free_starts(geometry, state, each.name))) for each in geometry.profiles
    )


def best_start(
    geometry: MigGeometry, state: int, profile: str, demand: Mapping[str, int] | None = None
) -> int | None:
    """The start that keeps most possible, or None where none is free. Raises Invalid for an unknown profile.

    With `demand` (how many of each profile are wanted) it leaves room for most of that, one kind at a time
    and counted in `size_milli`; then, and without it, for most of the largest profile, of the second largest
    and so on; then it is the last start.
    """
    if not demand:
        return _best_start(geometry, state, profile)
    return _best(geometry, state, profile, demand)


@lru_cache(maxsize=65536)
def _best_start(geometry: MigGeometry, state: int, profile: str) -> int | None:
    return _best(geometry, state, profile, {})


def _best(geometry: MigGeometry, state: int, profile: str, demand: Mapping[str, int]) -> int | None:
    free = [(start, mask) for start, mask in _placements(geometry, profile) if not state & mask]
    if not free:
        return None
    return max((*future(geometry, state | mask, demand), start) for start, mask in free)[-1]


def future(geometry: MigGeometry, state: int, demand: Mapping[str, int]) -> tuple[int, ...]:
    """What a state still allows, to compare: the more, the better."""
    left = counts(geometry, state)
    served = sum(
        min(count, demand.get(each.name, 0)) * each.size_milli
        for each, count in zip(geometry.profiles, left, strict=True)
    )
    return (served, *left)


class MigTables(NamedTuple):
    """All answers by state and by profile (in the order of `geometry.profiles`), for loops that are compiled.

    start[state][profile] is the best start or -1; after[state][profile] the state with an instance there, or
    -1; more[state][profile] how many more fit. A state that no instances make has rows all the same.
    """

    start: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    more: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=64)
def tables(geometry: MigGeometry) -> MigTables:
    """The answers of `best_start` and `counts` for every state: 512 rows for an H100, 32 for an A30."""
    start, after = [], []
    states = range(1 << (geometry.memory_slices + 1))
    for state in states:
        best = [best_start(geometry, state, each.name) for each in geometry.profiles]
        start.append(tuple(-1 if at is None else at for at in best))
        after.append(
            tuple(
                -1 if at is None else state | taken(geometry, each, at)
                for each, at in zip(geometry.profiles, best, strict=True)
            )
        )
    return MigTables(tuple(start), tuple(after), tuple(counts(geometry, state) for state in states))
