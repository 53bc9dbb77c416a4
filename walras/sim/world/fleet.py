"""Devices of a pool by model: what jobs ask of them, at which price, and how fast they run there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from walras.core.errors import Invalid
from walras.devices.classes import SPEED_UNIT, speed_milli
from walras.devices.models import MODELS
from walras.market.types import Device, Package, Share
from walras.sim.world.workload import Job, Speeds

NODE_GPUS: Final = 8
MEMORY_MIB: Final = 16_384  # of a model that is not known

ASKING: Final = ("speeds", "any", "own")
"""How jobs ask for devices of several speeds. speeds: as a server bids for pods, a package for each speed of
the pool, the fastest first, priced by it. any: one package, whatever comes, priced by the slowest. own: a
package for each model, the one on which the job itself is fastest first, priced by that."""


def mixed(models: Mapping[str, int], speeds: Mapping[str, int] | None = None) -> tuple[Device, ...]:
    """So many devices of each model, on nodes of eight of one model.

    speeds: of the pool, by model, as `spec.speeds` of a Pool. Raises Invalid for a speed that cannot be.
    """
    return tuple(
        Device(
            f"{model}-{number}",
            f"{model}-{number // NODE_GPUS}",
            model,
            number % NODE_GPUS,
            MODELS[model].memory_mib if model in MODELS else MEMORY_MIB,
            speed_milli=speed_milli(model, speeds),
        )
        for model, count in models.items()
        for number in range(count)
    )


class Fleet:
    """The devices as they are when nothing fails. alike: of one model, as fast as the reference."""

    def __init__(self, devices: Iterable[Device], asking: str = ASKING[0]) -> None:
        """Raises Invalid for a way to ask that there is not."""
        if asking not in ASKING:
            raise Invalid(f'"{asking}" is no way to ask for devices; there are {", ".join(ASKING)}')
        self._asking = asking
        self._devices = {device.id: device for device in devices}
        self.models = Counter(device.model for device in self._devices.values())
        self._speed_of = {device.model: device.speed_milli for device in self._devices.values()}
        self.alike = len(self.models) <= 1 and set(self._speed_of.values()) <= {SPEED_UNIT}
        self._offers = lru_cache(maxsize=1024)(self._offers_of)
        self._mean = lru_cache(maxsize=1024)(self._mean_of)

    @property
    def mean_speed_milli(self) -> int:
        """Of all devices, in the pool's own figures, rounded down; at least 1."""
        return self._mean(())

    def offers(self, job: Job) -> tuple[tuple[Package, ...], tuple[int, ...]]:
        """The packages of a job's bid without prices, and for each the speed that its price goes by."""
        fewest = job.gpus_min if job.gpus_min < job.gpus else 0
        return self._offers(job.gpus, job.milli, job.term_ms, fewest, job.speeds)

    def rate_milli(self, job: Job, shares: tuple[Share, ...], milli: int) -> int:
        """How much work a job does in a ms on these shares, in thousandths of a ms of the reference device:
        on each as much as on the slowest of them. At least 1. milli: the sum of the shares."""
        if self.alike and not job.speeds:
            return milli
        speeds = dict(job.speeds) or self._speed_of
        slowest = min(speeds.get(self._devices[share.device].model, 0) for share in shares)
        return max(1, milli * slowest // SPEED_UNIT)

    def parts(self, shares: Iterable[Share]) -> tuple[tuple[str, int], ...]:
        """Of each model, the milli-GPU of these shares."""
        return tuple(self.by_model((share.device, share.milli) for share in shares).items())

    def by_model(self, amounts: Iterable[tuple[str, int]]) -> Counter[str]:
        """Amounts of devices, added up by their model."""
        found: Counter[str] = Counter()
        for device, amount in amounts:
            found[self._devices[device].model] += amount
        return found

    def mean_speed_of(self, job: Job) -> int:
        """Over all devices, how fast a job runs there, 0 where it cannot; rounded down, at least 1."""
        return self._mean(job.speeds)

    def _mean_of(self, own: Speeds) -> int:
        speeds = dict(own) or self._speed_of
        whole = sum(speeds.get(model, 0) * count for model, count in self.models.items())
        return max(1, whole // max(1, self.models.total()))

    def _offers_of(
        self, gpus: int, milli: int, term_ms: int, fewest: int, own: Speeds
    ) -> tuple[tuple[Package, ...], tuple[int, ...]]:
        said = dict(own)
        usable = [model for model in self.models if not own or said.get(model, 0) > 0]
        speeds = said if own and self._asking == "own" else self._speed_of
        if self._asking == "any":
            slowest = min((speeds[model] for model in usable), default=SPEED_UNIT)
            groups = [(slowest, usable)]
        elif self._asking == "own":
            groups = [(speeds[model], [model]) for model in usable]
        else:
            each = sorted({speeds[model] for model in usable})
            groups = [(speed, [model for model in usable if speeds[model] == speed]) for speed in each]
        groups = groups or [(SPEED_UNIT, [])]
        groups.sort(key=lambda group: -group[0])
        packages = tuple(
            Package(gpus, milli, 0, term_ms, 0, self._eligible(models), fewest) for _, models in groups
        )
        return packages, tuple(speed for speed, _ in groups)

    def _eligible(self, models: Iterable[str]) -> frozenset[str] | None:
        """The devices of these models by name, None for all."""
        chosen = set(models)
        if chosen == self.models.keys():
            return None
        return frozenset(name for name, device in self._devices.items() if device.model in chosen)
