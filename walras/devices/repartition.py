"""How to make room for MIG profiles by taking idle instances apart: the slow path, in minutes.

An instance can only be destroyed when no process uses it, and node agents that advertise instances have to be
told (NVIDIA MIG User Guide, "Destroying GPU Instances"; NVIDIA/mig-parted). So whatever exists is used first,
and what is under lease is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from walras.devices.mig import MigInstance, free_starts, future, state_of
from walras.devices.mig_device import MigDevice


@dataclass(frozen=True, slots=True)
class Repartition:
    """First `destroy`, then `create`; `reuse` are idle and stay. Wanted are `reuse` and `create` together."""

    reuse: tuple[MigInstance, ...]
    destroy: tuple[MigInstance, ...]
    create: tuple[MigInstance, ...]

    @property
    def slow(self) -> bool:
        """Whether anything has to be taken apart."""
        return bool(self.destroy)

    def apply(self, device: MigDevice) -> MigDevice:
        """The device with all that was wanted under lease."""
        for instance in self.destroy:
            device = device.destroy(instance)
        for instance in (*self.reuse, *self.create):
            device = device.lease(instance)
        return device


def repartition(
    device: MigDevice, wanted: Sequence[str], demand: Mapping[str, int] | None = None
) -> Repartition | None:
    """How to have an instance of each profile wanted, or None when leases leave no room for them.

    Exact: of all ways it is one that destroys fewest instances, then creates fewest, then leaves most
    possible (as `mig.best_start` counts it). Raises Invalid for a profile that the device has not.
    """
    geometry = device.geometry
    profiles = sorted(wanted, key=lambda name: (-geometry[name].size_milli, name))
    best: tuple[tuple[int, ...], tuple[MigInstance, ...]] | None = None
    stack: list[tuple[int, tuple[MigInstance, ...]]] = [(device.leased, ())]
    while stack:
        state, chosen = stack.pop()
        if len(chosen) == len(profiles):
            rank = _rank(device, state, chosen, demand or {})
            best = min(best, (rank, chosen)) if best else (rank, chosen)
            continue
        profile = profiles[len(chosen)]
        # Equals go upwards, so that each set of places is looked at once.
        least = chosen[-1].start + 1 if chosen and chosen[-1].profile == profile else 0
        for start in free_starts(geometry, state, profile):
            if start >= least:
                instance = MigInstance(profile, start)
                stack.append((state | state_of(geometry, (instance,)), (*chosen, instance)))
    return _plan(device, best[1]) if best else None


def _rank(
    device: MigDevice, state: int, chosen: tuple[MigInstance, ...], demand: Mapping[str, int]
) -> tuple[int, ...]:
    plan = _plan(device, chosen)
    kept = set(device.idle) - set(plan.destroy)
    state |= state_of(device.geometry, kept - set(plan.reuse))
    left = (-each for each in future(device.geometry, state, demand))
    return (len(plan.destroy), len(plan.create), *left, *(-instance.start for instance in chosen))


def _plan(device: MigDevice, chosen: tuple[MigInstance, ...]) -> Repartition:
    reuse = tuple(instance for instance in chosen if instance in device.idle)
    create = tuple(instance for instance in chosen if instance not in device.idle)
    made = state_of(device.geometry, create)
    in_the_way = (
        instance
        for instance in device.idle
        if instance not in reuse and state_of(device.geometry, (instance,)) & made
    )
    return Repartition(reuse, tuple(in_the_way), create)
