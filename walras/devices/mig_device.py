"""A device in MIG mode with the instances on it, under lease or idle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from walras.core.errors import Invalid
from walras.devices.mig import MigInstance, best_start, counts, future, state_of
from walras.devices.mig_profiles import MigGeometry


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

        Of several idle ones it is the one that leaves most possible once the others are taken apart.
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
