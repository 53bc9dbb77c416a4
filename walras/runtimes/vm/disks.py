"""Which of a container's volumes are disks of its machine: what is mounted where KubeVirt mounts disks."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from walras.runtimes.base import ContainerSpec, Mount, StartError
from walras.runtimes.vm.qemu import Disk
from walras.tenants.virtual.words import DISKS, DISKS_VARIABLE

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_disk(mount: Mount) -> bool:
    return mount.target.startswith(f"{DISKS}/")


def disks_of(spec: ContainerSpec) -> tuple[Disk, ...]:
    """By name; the variable has their sizes in bytes. Raises StartError."""
    mounts = [each for each in spec.mounts if is_disk(each)]
    if not mounts:
        return ()
    try:
        sizes: Any = msgspec.json.decode(spec.env.get(DISKS_VARIABLE, "{}").encode())
    except msgspec.DecodeError as error:
        raise StartError(f"{DISKS_VARIABLE} is no JSON: {error}") from error
    found = []
    for mount in sorted(mounts, key=lambda each: each.target):
        name = mount.target.removeprefix(f"{DISKS}/")
        size = sizes.get(name) if isinstance(sizes, dict) else None
        if not _NAME.fullmatch(name) or not isinstance(size, int) or size <= 0:
            raise StartError(f"{mount.target}: {DISKS_VARIABLE} gives no size of a disk {name}")
        found.append(Disk(name, mount.source, size))
    return tuple(found)
