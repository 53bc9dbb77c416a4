"""What a pod asks of GPUs, in the one form that scheduler, bidder and runtime share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from walras.core.errors import Invalid
from walras.core.money import WHOLE_GPU_MILLI
from walras.core.quantity import parse_quantity
from walras.devices.mig_profiles import share_of

WHOLE: Final = "nvidia.com/gpu"
MIG_PREFIX: Final = "nvidia.com/mig-"
MILLI: Final = "walras.dev/milligpu"
MEMORY: Final = "walras.dev/gpu-memory-mib"
DEVICES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """`devices` devices, `milli_gpu` and `memory_mib` on each; memory 0 is the share's part.

    With a `mig_profile` they are that many instances of it, and share and memory are what one is worth at
    least (`mig_profiles.share_of`).
    """

    devices: int
    milli_gpu: int
    memory_mib: int = 0
    mig_profile: str = ""

    @property
    def total_milli(self) -> int:
        return self.devices * self.milli_gpu


def is_gpu_resource(name: str) -> bool:
    """Whether a resource of a container is part of its GPU request."""
    return name in (WHOLE, MILLI, MEMORY) or name.startswith(MIG_PREFIX)


def mig_resource(profile: str) -> str:
    """The resource that NVIDIA's device plugin offers a profile as: it writes .me for +me."""
    return MIG_PREFIX + profile.replace("+", ".")


def profile_of(resource: str) -> str:
    """The profile that a MIG resource stands for."""
    profile = resource.removeprefix(MIG_PREFIX)
    return profile.removesuffix(".me") + "+me" if profile.endswith(".me") else profile


def capacity(resources: Mapping[str, Any]) -> tuple[int, int]:
    """(milli-GPU, memory MiB) of a node's capacity or allocatable, which may say the same in both units."""
    milli = max(
        parse_quantity(resources.get(WHOLE, 0)) * WHOLE_GPU_MILLI, parse_quantity(resources.get(MILLI, 0))
    )
    return milli, parse_quantity(resources.get(MEMORY, 0))


def gpu_request(pod_spec: Mapping[str, Any]) -> GpuRequest | None:
    """The request of a pod's containers together, or None when they ask for no GPU.

    Raises Invalid for a request that no lease can have: two units in one pod, more than one device but not
    whole ones, memory without compute, unknown MIG profiles or two of them, more than DEVICES_MAX devices.
    """
    total: Counter[str] = Counter()
    for container in pod_spec.get("containers") or ():
        resources = container.get("resources") or {}
        asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
        total.update({name: parse_quantity(asked[name]) for name in asked if is_gpu_resource(name)})
    if min(total.values(), default=0) < 0:
        raise Invalid("a GPU request must not be negative")
    asked_mig = sorted(name for name in total if name.startswith(MIG_PREFIX) and total[name])
    whole, milli, memory = total[WHOLE], total[MILLI], total[MEMORY]
    if asked_mig:
        return _mig_request(total, asked_mig)
    if not whole and not milli:
        if memory:
            raise Invalid(f"{MEMORY} needs {MILLI} or {WHOLE} beside it")
        return None
    if whole and milli:
        raise Invalid(f"a pod asks for either {WHOLE} or {MILLI}, not both")
    if milli > WHOLE_GPU_MILLI and milli % WHOLE_GPU_MILLI:
        raise Invalid(f"{MILLI}: {milli} is more than one device but no whole number of devices")
    devices = _bounded(whole or max(1, milli // WHOLE_GPU_MILLI))
    return GpuRequest(devices, min(milli, WHOLE_GPU_MILLI) or WHOLE_GPU_MILLI, -(-memory // devices))


def _mig_request(total: Mapping[str, int], asked: Sequence[str]) -> GpuRequest:
    others = [name for name in (WHOLE, MILLI, MEMORY) if total[name]]
    if others or len(asked) > 1:
        raise Invalid(f"a pod asks for one MIG profile and nothing else, not {', '.join([*asked, *others])}")
    profile = profile_of(asked[0])
    share = share_of(profile)
    return GpuRequest(_bounded(total[asked[0]]), share.milli, share.memory_mib, profile)


def _bounded(devices: int) -> int:
    if devices > DEVICES_MAX:
        raise Invalid(f"{devices} devices are more than the {DEVICES_MAX} that one pod can ask for")
    return devices
