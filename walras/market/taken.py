"""What is taken of each device at one time: sums, shares, and the instances that it is cut into."""

from __future__ import annotations

from collections.abc import Iterable

from walras.devices.mig import MigInstance, taken
from walras.devices.mig_profiles import MigGeometry
from walras.devices.placement import EMPTY, Shape
from walras.market.ground import Ground
from walras.market.types import Share


class Taken:
    """Shares that are counted in and out. Those on devices that are gone do not count.

    Instances may overlap: where room is kept for later, what it is kept from is counted too.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.sums = dict.fromkeys(ground.capacity, EMPTY)
        self._cuts: dict[str, tuple[MigInstance, ...]] = {}
        self._shared: dict[str, int] = {}  # milli-GPU that is not taken by instances

    def copy(self) -> Taken:
        """One of its own, as this one is now."""
        found = Taken.__new__(Taken)
        found._ground, found.sums = self._ground, dict(self.sums)
        found._cuts, found._shared = dict(self._cuts), dict(self._shared)
        return found

    def add(self, shares: Iterable[Share]) -> None:
        for share in shares:
            if share.device in self.sums:
                self.sums[share.device] += Shape(share.milli, share.memory_mib)
                if share.mig is None:
                    self._shared[share.device] = self._shared.get(share.device, 0) + share.milli
                else:
                    self._cuts[share.device] = (*self.cuts(share.device), share.mig)

    def remove(self, shares: Iterable[Share]) -> None:
        for share in shares:
            if share.device in self.sums:
                self.sums[share.device] -= Shape(share.milli, share.memory_mib)
                if share.mig is None:
                    self._shared[share.device] -= share.milli
                else:
                    cuts = list(self.cuts(share.device))
                    cuts.remove(share.mig)
                    self._cuts[share.device] = tuple(cuts)

    @property
    def any_cut(self) -> bool:
        """Whether any device was ever cut here."""
        return bool(self._cuts)

    def cuts(self, device: str) -> tuple[MigInstance, ...]:
        """The instances on a device."""
        return self._cuts.get(device, ())

    def state(self, device: str) -> int:
        """What they take of it, as in `walras.devices.mig`."""
        geometry = self._ground.devices[device].mig
        return mask(geometry, self.cuts(device)) if geometry else 0

    def shared_milli(self, device: str) -> int:
        """How much of it is taken otherwise than as instances."""
        return self._shared.get(device, 0)


def mask(geometry: MigGeometry, cuts: Iterable[MigInstance]) -> int:
    """What instances take together, be they in each other's way or not."""
    state = 0
    for cut in cuts:
        state |= taken(geometry, geometry[cut.profile], cut.start)
    return state
