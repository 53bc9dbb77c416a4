"""Disks of machines that come out of images, with a real engine."""

from __future__ import annotations

import asyncio
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
from support.networked import ACME, World, networked
from support.runtimes import Kind, kinds, vm

from walras.runtimes.base import DiskImages, ImageError, PodRef
from walras.runtimes.engine.runtime import ContainerRuntime
from walras.runtimes.engine.service import Service
from walras.tenants.virtual.words import DISKS, DISKS_VARIABLE

CONTAINER: Kind = next(each for each in kinds() if each.name == "container")
pytestmark = pytest.mark.skipif(bool(CONTAINER.missing), reason=CONTAINER.missing)
IMAGE = "localhost/disk:1"
ANY = PodRef(ACME, "base", "u", "p")
WORDS = b"words on a disk\n"


def imported(world: World, name: str, files: Mapping[str, bytes]) -> DiskImages:
    """Where the engine's images are, with one that has these files and nothing else."""
    runtime = world.runtimes["container"]
    assert isinstance(runtime, ContainerRuntime) and isinstance(runtime.service, Service)
    text = BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))
    subprocess.run(
        ["podman", "import", "-", name], input=text.getvalue(), env=runtime.service.environment(), check=True,
        capture_output=True,
    )  # fmt: skip
    return runtime.images


def test_the_one_file_of_a_folder_is_copied_whole_and_no_larger_than_may_be(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        data = WORDS + bytes(5 << 20) + b"end"
        images = await asyncio.to_thread(imported, world, IMAGE, {"disk/x.img": data, "other/y": b"no"})
        found = await images.find(ANY, IMAGE, ())
        into = tmp_path / "copy"
        await images.copy_out(ANY, found, "/disk", into, 1 << 30)
        assert into.read_bytes() == data
        # What is zeros takes no room.
        assert into.stat().st_blocks * 512 < 4 << 20
        with pytest.raises(ImageError, match="more than 1000 bytes"):
            await images.copy_out(ANY, found, "/disk", tmp_path / "large", 1000)
        with pytest.raises(ImageError, match="cannot be read"):
            await images.copy_out(ANY, found, "/none", tmp_path / "none", 1 << 30)
        empty = await asyncio.to_thread(imported, world, "localhost/empty:1", {"disk/sub/x": b"x"})
        await empty.copy_out(
            ANY,
            await empty.find(ANY, "localhost/empty:1", ()),
            "/disk",
            tmp_path / "sub",
            9,
        )
        assert not await left(world)

    networked(tmp_path, story, more=(CONTAINER,))


async def left(world: World) -> bytes:
    """Containers that the engine still has."""
    runtime = world.runtimes["container"]
    assert isinstance(runtime, ContainerRuntime) and isinstance(runtime.service, Service)
    said = await asyncio.to_thread(
        subprocess.run, ["podman", "ps", "-aq"], env=runtime.service.environment(), check=True,
        capture_output=True,
    )  # fmt: skip
    return said.stdout


@pytest.mark.skipif(bool(vm().missing), reason=vm().missing)
def test_a_machine_has_its_own_copy_of_an_images_disk(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await asyncio.to_thread(imported, world, IMAGE, {"disk/x.img": WORDS.ljust(1 << 20, b"\0")})
        script = f"head -c {len(WORDS)} /dev/vda; echo mine > /dev/vda; sync; head -c 4 /dev/vda"
        container = {
            "volumeMounts": [{"name": "rootdisk", "mountPath": f"{DISKS}/rootdisk"}],
            "env": [{"name": DISKS_VARIABLE, "value": '{"rootdisk":0}'}],
        }
        volumes = [{"name": "rootdisk", "image": {"reference": IMAGE}}]
        for _ in range(2):
            said = await world.says(
                ACME, "sh", "-c", script, container=dict(container), volumes=volumes, runtimeClassName="vm"
            )
            assert said == WORDS.decode() + "mine"

    networked(tmp_path, story, more=(CONTAINER, vm()), deadline_s=120.0)
