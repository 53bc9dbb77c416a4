"""What NVIDIA's Multi-Instance GPUs can be cut into: profiles, their slices and where each may start.

Names, fractions and counts of instances are those of the NVIDIA MIG User Guide, "Supported MIG Profiles"
(docs.nvidia.com/datacenter/tesla/mig-user-guide). Starts are what `nvidia-smi mig -lgipp` prints, the same on
A100, H100 and H100 NVL; H200 and B200 have the slices of these, and A30 has four of both kinds
(NVIDIA/go-nvml, pkg/nvml/mock/gpus/a30.go). Memory is what `nvidia-smi mig -lgip` prints. Drivers differ by
up to 0.5 GiB, and the least that was found is taken, so that no tenant gets less than it was sold. For B200
only 1g.23gb was found: its wider profiles are given multiples of that, a lower bound. `MigGeometry.measured`
takes what a device at hand reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI
from walras.devices.placement import Shape


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One kind of instance, such as 1g.10gb: its compute and memory slices, MiB, and allowed first slices.

    `maximum` is how many of it an empty device holds. `media` profiles (+me) have the media extensions, of
    which a device has one set.
    """

    name: str
    compute_slices: int
    memory_slices: int
    memory_mib: int
    starts: tuple[int, ...]
    maximum: int
    milli: int  # its part of the device's compute, rounded up
    size_milli: int  # its part of compute or of memory slices, whichever is more, rounded up
    media: bool = False

    @property
    def share(self) -> Shape:
        return Shape(self.milli, self.memory_mib)


@dataclass(frozen=True, eq=False)
class MigGeometry:
    """What one model of GPU can be cut into. `profiles` are in order of their size, the largest first."""

    name: str
    compute_slices: int
    memory_slices: int
    profiles: tuple[MigProfile, ...]

    def __getitem__(self, profile: str) -> MigProfile:
        """The profile of that name. Raises Invalid naming those there are."""
        for each in self.profiles:
            if each.name == profile:
                return each
        known = ", ".join(each.name for each in self.profiles)
        raise Invalid(f'"{profile[:64]}" is no MIG profile of {self.name}; it has {known}')

    def __contains__(self, profile: object) -> bool:
        return any(each.name == profile for each in self.profiles)

    def sold_milli(self, profile: str) -> int:
        """What an instance is sold as, in milli-GPU: its compute slices, rounded down.

        So all instances that a device can hold are never more than the device; `MigProfile.milli` is what to
        ask for to have as much. Raises Invalid for a profile that it has not.
        """
        return self[profile].compute_slices * WHOLE_GPU_MILLI // self.compute_slices

    def measured(self, memory_mib: Mapping[str, int]) -> MigGeometry:
        """The same with the MiB that NVML reports of some profiles (nvmlGpuInstanceProfileInfo)."""
        profiles = tuple(
            replace(each, memory_mib=memory_mib.get(each.name, each.memory_mib)) for each in self.profiles
        )
        return replace(self, profiles=profiles)

    def nearest(self, milli: int, memory_mib: int = 0) -> MigProfile | None:
        """The least profile with at least that share, or None when not even the whole device is enough.

        It never has media extensions, which a share does not ask for. Memory 0 is the share's part, which is
        what comes with the compute.
        """
        enough = [
            each
            for each in self.profiles
            if milli <= each.milli and memory_mib <= each.memory_mib and not each.media
        ]
        return min(enough, key=lambda each: (each.size_milli, each.milli, each.memory_mib), default=None)


def _milli(slices: int, of: int) -> int:
    return -(-slices * WHOLE_GPU_MILLI // of)


def _profile(
    name: str, memory_slices: int, memory_mib: int, starts: tuple[int, ...], of: tuple[int, int]
) -> MigProfile:
    compute, media = int(name.partition("g.")[0]), name.endswith("+me")
    milli = _milli(compute, of[0])
    size = max(milli, _milli(memory_slices, of[1]))
    maximum = 1 if media else len(starts)
    return MigProfile(name, compute, memory_slices, memory_mib, starts, maximum, milli, size, media)


def _sevenths(name: str, labels: tuple[int, int, int, int], memory: tuple[int, int, int, int]) -> MigGeometry:
    """Seven compute and eight memory slices. Labels and MiB are of 1, 2, 4 and 8 memory slices."""
    (gb1, gb2, gb4, gb8), (mib1, mib2, mib4, mib8), of = labels, memory, (7, 8)
    return MigGeometry(
        name,
        *of,
        (
            _profile(f"7g.{gb8}gb", 8, mib8, (0,), of),
            _profile(f"4g.{gb4}gb", 4, mib4, (0,), of),
            _profile(f"3g.{gb4}gb", 4, mib4, (0, 4), of),
            _profile(f"2g.{gb2}gb", 2, mib2, (0, 2, 4), of),
            _profile(f"1g.{gb2}gb", 2, mib2, (0, 2, 4, 6), of),
            _profile(f"1g.{gb1}gb+me", 1, mib1, (0, 1, 2, 3, 4, 5, 6), of),
            _profile(f"1g.{gb1}gb", 1, mib1, (0, 1, 2, 3, 4, 5, 6), of),
        ),
    )


_A30: Final = MigGeometry(
    "A30",
    4,
    4,
    (
        _profile("4g.24gb", 4, 23344, (0,), (4, 4)),
        _profile("2g.12gb+me", 2, 11672, (0, 2), (4, 4)),
        _profile("2g.12gb", 2, 11672, (0, 2), (4, 4)),
        _profile("1g.6gb+me", 1, 5836, (0, 1, 2, 3), (4, 4)),
        _profile("1g.6gb", 1, 5836, (0, 1, 2, 3), (4, 4)),
    ),
)
_A100_40: Final = _sevenths("A100-40GB", (5, 10, 20, 40), (4864, 9856, 19968, 40192))
_A100_80: Final = _sevenths("A100-80GB", (10, 20, 40, 80), (9728, 19968, 40192, 80384))
_H100_80: Final = _sevenths("H100-80GB", (10, 20, 40, 80), (9984, 20096, 40448, 81152))
_H100_94: Final = _sevenths("H100-94GB", (12, 24, 47, 94), (11008, 22144, 47488, 95360))
_H100_96: Final = _sevenths("H100-96GB", (12, 24, 48, 96), (11264, 23552, 47616, 95232))
_H200: Final = _sevenths("H200-141GB", (18, 35, 71, 141), (16384, 33280, 71424, 143360))
_B200: Final = _sevenths("B200-180GB", (23, 45, 90, 180), (20992, 41984, 83968, 167936))

GEOMETRIES: Final[Mapping[str, MigGeometry]] = {
    each.name: each for each in (_A30, _A100_40, _A100_80, _H100_80, _H100_94, _H100_96, _H200, _B200)
}
_OF_MODEL: Final[Mapping[str, MigGeometry]] = {
    "A30": _A30,
    "A100-40GB": _A100_40,
    "A100": _A100_80,
    "A100-PCIe": _A100_80,
    "H100": _H100_80,
    "H100-PCIe": _H100_80,
    "H100-NVL": _H100_94,
    "H20": _H100_96,
    "GH200": _H100_96,
    "H200": _H200,
    "B200": _B200,
}


def geometry_of(model: str) -> MigGeometry | None:
    """What a model (its short name, `Model.name`) can be cut into, or None when it has no MIG."""
    return _OF_MODEL.get(model)


def _least_shares() -> Mapping[str, Shape]:
    shares: dict[str, Shape] = {}
    for geometry in GEOMETRIES.values():
        for each in geometry.profiles:
            known = shares.get(each.name, each.share)
            shares[each.name] = Shape(known.milli, min(known.memory_mib, each.memory_mib))
    return shares


_SHARES: Final = _least_shares()


def share_of(profile: str) -> Shape:
    """Milli-GPU and MiB that a profile is worth on any model that has it (the least memory of these).

    Seven sevenths rounded up are 1001 milli: what fits a device in MIG mode is told by its geometry, not by a
    sum of shares. Raises Invalid for a name that no model has.
    """
    share = _SHARES.get(profile)
    if share is None:
        raise Invalid(f'"{profile[:64]}" is not a known MIG profile; known are {", ".join(_SHARES)}')
    return share
