"""A disk that runs out for all pods: which of them has to go.

As the kubelet's eviction manager does for nodefs.available, but by what pods take alone: priorities of agents
say nothing to each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Less than both is little: so much of the disk, and so many bytes.
PART: Final = 10
BYTES: Final = 10 << 30
_COUNTLESS: Final = 1 << 62
# Cluster and uid.
Pod = tuple[str, str]


class Disk:
    """What each pod takes of it beyond what it asked for. One at a time is told to go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beyond: dict[Pod, int] = {}
        self._going: Pod | None = None

    def note(self, pod: Pod, used_bytes: int | None, asked_bytes: int) -> None:
        """What the pod takes; None for more than could be counted."""
        self._beyond[pod] = (_COUNTLESS if used_bytes is None else used_bytes) - asked_bytes

    def forget(self, pod: Pod) -> None:
        """The pod has given back what it took."""
        self._beyond.pop(pod, None)
        if self._going == pod:
            self._going = None

    @property
    def is_tight(self) -> bool:
        """Whether it is better looked at often."""
        little, available = self._sizes()
        return available < 2 * little

    def goes(self, pod: Pod) -> str:
        """Why the pod has to go, as the kubelet says it; "" when it is not the one."""
        little, available = self._sizes()
        beyond = self._beyond.get(pod, 0)
        if available >= little or self._going or beyond <= 0 or beyond < max(self._beyond.values()):
            return ""
        self._going = pod
        return (
            "The node was low on resource: ephemeral-storage. "
            f"Threshold quantity: {quantity(little)}, available: {quantity(available)}. "
        )

    def _sizes(self) -> tuple[int, int]:
        """How much is little, and how much there is."""
        disk = os.statvfs(self._path)
        return min(disk.f_blocks * disk.f_frsize // PART, BYTES), disk.f_bavail * disk.f_frsize


def larger(used: Mapping[str, int | None], asked: Mapping[str, int]) -> str:
    """Which containers take more than they asked for, as the kubelet says it."""
    said = [
        f"Container {name} was using {quantity(taken)}, request is {quantity(asked.get(name, 0))}, "
        "has larger consumption of ephemeral-storage. "
        for name, taken in used.items()
        if taken is not None and taken > asked.get(name, 0)
    ]
    return "".join(said)


def quantity(size_bytes: int) -> str:
    """In Ki, rounded up."""
    return f"{-(-size_bytes // 1024)}Ki" if size_bytes else "0"
