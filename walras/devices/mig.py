"""A device in MIG mode: which slices its instances take, what else fits, and where the next one goes best.

A state is an integer: bit i is memory slice i, the bit after the last slice stands for the media extensions.
Compute needs no bits of its own: at the allowed starts, instances that keep off each other's memory slices
never take more compute slices together than the device has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from walras.core.errors import Invalid
from walras.devices.mig_profiles import MigGeometry, MigProfile


class MigInstance(NamedTuple):
    """An instance on one device: `nvidia-smi mig -lgi` prints its start before the colon."""

    profile: str
    start: int


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


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A device in MIG mode. `busy` instances are under lease; `idle` ones are made but nobody's.

    Frozen: each change gives a new device. No change ever overlaps two instances.
    """

    geometry: MigGeometry
    busy: tuple[MigInstance, ...] = ()
    idle: tuple[MigInstance, ...] = ()

    def __post_init__(self) -> None:
        """Raises Invalid where instances overlap or are where none can be."""
        state_of(self.geometry, (*self.busy, *self.idle))

    @property
    def state(self) -> int:
        """What all instances take, busy or idle."""
        return state_of(self.geometry, (*self.busy, *self.idle))

    @property
    def leased(self) -> int:
        """What busy instances take: what is out of reach even if all idle ones were taken apart."""
        return state_of(self.geometry, self.busy)

    def remaining(self) -> dict[str, int]:
        """How many more of each profile can be leased without taking anything apart, one kind at a time."""
        free = zip(self.geometry.profiles, counts(self.geometry, self.state), strict=True)
        made = [instance.profile for instance in self.idle]
        return {each.name: count + made.count(each.name) for each, count in free}

    def remaining_rebuilt(self) -> dict[str, int]:
        """The same if every idle instance may be taken apart."""
        free = zip(self.geometry.profiles, counts(self.geometry, self.leased), strict=True)
        return {each.name: count for each, count in free}

    def choose(self, profile: str, demand: Mapping[str, int] | None = None) -> MigInstance | None:
        """An idle instance of the profile, else the best place for a new one, else None (see `repartition`).

        Of several idle ones it is the one without which most remains possible once they are taken apart.
        Raises Invalid for a profile that the device has not.
        """
        made = [instance for instance in self.idle if instance.profile == profile]
        if made:
            return max(made, key=lambda instance: self._future_with(instance, demand or {}))
        start = best_start(self.geometry, self.state, profile, demand)
        return None if start is None else MigInstance(profile, start)

    def _future_with(self, instance: MigInstance, demand: Mapping[str, int]) -> tuple[int, ...]:
        state = self.leased | state_of(self.geometry, (instance,))
        return (*future(self.geometry, state, demand), instance.start)

    def lease(self, instance: MigInstance) -> MigDevice:
        """With that instance busy, an idle or a new one. Raises Invalid where it overlaps another."""
        idle = tuple(each for each in self.idle if each != instance)
        return replace(self, busy=(*self.busy, instance), idle=idle)

    def release(self, instance: MigInstance) -> MigDevice:
        """With a busy instance idle. Raises Invalid when it is not busy."""
        if instance not in self.busy:
            raise Invalid(f"{instance.profile} at slice {instance.start} is not under lease")
        busy = tuple(each for each in self.busy if each != instance)
        return replace(self, busy=busy, idle=(*self.idle, instance))

    def destroy(self, instance: MigInstance) -> MigDevice:
        """Without an idle instance. Raises Invalid for any other: a busy one is never taken apart."""
        if instance not in self.idle:
            raise Invalid(f"{instance.profile} at slice {instance.start} is not idle")
        return replace(self, idle=tuple(each for each in self.idle if each != instance))
