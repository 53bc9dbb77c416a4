"""Disks out of images, KubeVirt's containerDisk: a machine's own copy of the one file in an image's /disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from walras.core.errors import BadRequest
from walras.runtimes.base import DiskImages, NoRuntime
from walras.runtimes.logs import path_part
from walras.runtimes.pulling import Puller
from walras.runtimes.records import Record
from walras.tenants.virtual.words import DISK_QCOW2, DISK_RAW, DISKS

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = Mapping[str, Any]
# Of each, from its making to its end.
BYTES_MAX: Final = 16 << 30
_CONTAINER: Final = "container"
_DIRECTORY: Final = "/disk"
_QCOW2: Final = b"QFI\xfb"


def of(pod: Object) -> Iterator[Object]:
    """The volumes of type image that are mounted where machines have their disks, and nowhere else."""
    spec = pod["spec"]
    containers = (*spec.get("initContainers", ()), *spec["containers"])
    mounts = [mount for container in containers for mount in container.get("volumeMounts") or ()]
    for volume in spec.get("volumes") or ():
        targets = [str(each["mountPath"]) for each in mounts if each["name"] == volume["name"]]
        if volume.get("image") and targets and all(each.startswith(f"{DISKS}/") for each in targets):
            yield volume


async def fetch(worker: PodWorker) -> bool:
    """Makes the copies that are not there yet; False when the pod is to end before.

    Raises WalrasError, OSError.
    """
    places = worker.services.places
    base = places.pod(worker.cluster, worker.ref.uid) / "volumes"
    for volume in of(worker.pod):
        directory = base / path_part(str(volume["name"]))
        if not directory.exists() and not await _one(worker, volume, directory):
            return False
    return True


async def _one(worker: PodWorker, volume: Object, directory: Path) -> bool:
    if worker.services.disk.is_tight:
        # Until the pod runs, what is copied for it is held against nobody.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    source = volume["image"]
    asked = {"image": source.get("reference"), "imagePullPolicy": source.get("pullPolicy")}
    images = _images(worker)
    record = Record(str(volume["name"]), str(asked["image"]))
    image_id = await Puller(worker, asked, record, lambda: None).ready(images)
    if not image_id:
        return False
    fresh = directory.with_name(f".{directory.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    made = fresh / DISK_RAW
    await images.copy_out(worker.ref, image_id, _DIRECTORY, made, BYTES_MAX)
    with made.open("rb") as file:
        is_qcow2 = file.read(len(_QCOW2)) == _QCOW2
    owner = worker.services.places.owner_of(worker.cluster)
    if owner >= 0:
        os.chown(made, owner, owner)
    if is_qcow2:
        made.rename(fresh / DISK_QCOW2)
    fresh.rename(directory)
    return True


def _images(worker: PodWorker) -> DiskImages:
    try:
        found = worker.services.runtime.traits(replace(worker.ref, handler=_CONTAINER)).images
    except NoRuntime:
        found = None
    if not isinstance(found, DiskImages):
        raise BadRequest("disks of images need the container runtime, which this server does not have")
    return found
