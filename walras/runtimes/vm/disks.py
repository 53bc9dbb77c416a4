"""Which of a container's volumes are disks of its machine: what is mounted where KubeVirt mounts disks."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import msgspec

from walras.runtimes.base import ContainerSpec, Mount, StartError
from walras.runtimes.vm.qemu import Disk
from walras.tenants.virtual.words import DISK_QCOW2, DISKS, DISKS_VARIABLE

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_disk(mount: Mount) -> bool:
    return mount.target.startswith(f"{DISKS}/")


def disks_of(spec: ContainerSpec) -> tuple[Disk, ...]:
    """By name; the variable has their sizes in bytes, 0 for one that is there. Raises StartError."""
    mounts = [each for each in spec.mounts if is_disk(each)]
    if not mounts:
        return ()
    try:
        sizes: Any = msgspec.json.decode(spec.env.get(DISKS_VARIABLE, "{}").encode())
    except (msgspec.DecodeError, RecursionError) as error:
        raise StartError(f"{DISKS_VARIABLE} is no JSON: {error}") from error
    found = []
    for mount in sorted(mounts, key=lambda each: each.target):
        name = mount.target.removeprefix(f"{DISKS}/")
        size = sizes.get(name) if isinstance(sizes, dict) else None
        if not _NAME.fullmatch(name) or type(size) is not int or size < 0:
            raise StartError(f"{mount.target}: {DISKS_VARIABLE} gives no size of a disk {name}")
        is_qcow2 = size == 0 and os.path.lexists(f"{mount.source}/{DISK_QCOW2}")
        found.append(Disk(name, mount.source, size, "qcow2" if is_qcow2 else "raw"))
    return tuple(found)
