"""Pods that take more disk than they may, and how that is found out."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support.kubelet import ACME, Object, World, in_world

from walras.runtimes import bounds, imagedisks, pressure, usage
from walras.runtimes.base import PodRef
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.usage import disk_bytes, nameless_bytes
from walras.runtimes.volumes import Places
from walras.tenants.virtual.words import DISK_RAW, DISKS

KIB = 1 << 10


def fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        # What is not on disk yet may take no blocks.
        os.fsync(file.fileno())


def test_a_directory_is_measured_by_the_blocks_of_what_is_in_it(tmp_path: Path) -> None:
    fill(tmp_path / "file", 256 * KIB)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    fill(tmp_path / "deep" / "er" / "file", 256 * KIB)
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    found = disk_bytes(tmp_path)
    assert found is not None and 512 * KIB <= found <= 600 * KIB


def test_a_file_with_many_names_counts_once(tmp_path: Path) -> None:
    fill(tmp_path / "file", 256 * KIB)
    for number in range(9):
        os.link(tmp_path / "file", tmp_path / f"name-{number}")
    found = disk_bytes(tmp_path)
    assert found is not None and 250 * KIB <= found <= 300 * KIB


def test_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    fill(outside / "file", 256 * KIB)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "self").symlink_to(inside)
    os.mkfifo(inside / "pipe")
    found = disk_bytes(inside)
    assert found is not None and found < 32 * KIB
    assert disk_bytes(inside / "link") == 0


def test_what_nobody_needs_counts_as_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path
    for _ in range(usage.DEPTH_MAX + 1):
        here = here / "d"
        here.mkdir()
    assert disk_bytes(tmp_path) is None
    monkeypatch.setattr(usage, "ENTRIES_MAX", 10)
    few, many = tmp_path / "few", tmp_path / "many"
    for directory, count in ((few, 10), (many, 11)):
        directory.mkdir()
        for number in range(count):
            (directory / str(number)).touch()
    assert disk_bytes(few) is not None and disk_bytes(many) is None


async def evicted(world: World, name: str) -> str:
    await world.passes(bounds.PERIOD_S)
    await world.until(lambda: world.status(name).get("reason") == "Evicted")
    status = world.status(name)
    assert status["phase"] == "Failed" and world.condition(name, "DisruptionTarget") == "True"
    assert world.events.of("Evicted") == [status["message"].rstrip()]
    return str(status["message"])


def volumes(**volume: Any) -> Object:
    mounts = [{"name": "v", "mountPath": "/v"}]
    return {"volumes": [{"name": "v", **volume}], "container": {"volumeMounts": mounts}}


def source(world: World) -> Path:
    return next(Path(each.source) for each in world.runtime.processes[-1].spec.mounts if each.target == "/v")


def test_a_pod_that_cannot_be_watched_any_more_is_not_left_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    async def story(world: World) -> None:
        await world.pod("p")
        await world.phase("p", "Running")
        await world.passes(bounds.PERIOD_S)
        await world.phase("p", "Failed")
        assert world.status("p")["reason"] == "InternalError"
        assert "running" not in world.container("p")["state"], world.container("p")
        assert not world.runtime.processes[0].alive

    monkeypatch.setattr(bounds, "_exceeded", broken)
    in_world(tmp_path, story)


def test_an_empty_dir_beyond_its_limit_ends_its_pod(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", **volumes(emptyDir={"sizeLimit": "100Ki"}))
        await world.phase("p", "Running")
        fill(source(world) / "small", 50 * KIB)
        await world.passes(bounds.PERIOD_S)
        await world.until(lambda: bounds.PERIOD_S in world.timers.pending())
        assert world.runtime.processes[0].alive
        fill(source(world) / "large", 100 * KIB)
        assert await evicted(world, "p") == 'Usage of EmptyDir volume "v" exceeds the limit "100Ki". '

    in_world(tmp_path, story)


def test_a_pod_beyond_its_ephemeral_storage_is_evicted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        spec = volumes(emptyDir={})
        spec["container"]["resources"] = {"limits": {"ephemeral-storage": "64Ki"}}
        await world.pod("p", **spec)
        await world.phase("p", "Running")
        fill(source(world) / "large", 100 * KIB)
        said = "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. "
        assert await evicted(world, "p") == said

    in_world(tmp_path, story)


def test_last_words_without_end_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "POD_BYTES_MAX", 64 * KIB)

    async def story(world: World) -> None:
        await world.pod("p", container={"terminationMessagePath": "/dev/termination-log"})
        await world.phase("p", "Running")
        (mount,) = world.runtime.processes[0].spec.mounts
        fill(Path(mount.source), 100 * KIB)
        assert "exceeds the total limit" in await evicted(world, "p")

    in_world(tmp_path, story)


def test_a_pod_that_names_no_limit_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "POD_BYTES_MAX", 64 * KIB)

    async def story(world: World) -> None:
        await world.pod("p", **volumes(emptyDir={}))
        await world.phase("p", "Running")
        fill(source(world) / "large", 100 * KIB)
        assert "exceeds the total limit" in await evicted(world, "p")

    in_world(tmp_path, story)


@pytest.mark.parametrize("taken", [100 * KIB, None])
def test_what_a_container_writes_over_its_image_counts(tmp_path: Path, taken: int | None) -> None:
    async def story(world: World) -> None:
        await world.pod("p", container={"resources": {"limits": {"ephemeral-storage": "64Ki"}}})
        await world.pod("other")
        await world.started(2)
        await world.phase("p", "Running")
        world.runtime.processes[0].taken_bytes = taken
        said = "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. "
        assert await evicted(world, "p") == said
        assert world.runtime.processes[1].alive

    in_world(tmp_path, story)


def test_a_container_is_held_to_its_own_limit_though_its_pod_is_within_all(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        def container(name: str, limit: str) -> Object:
            return {
                "name": name, "image": "img", "command": ["run"],
                "resources": {"limits": {"ephemeral-storage": limit}},
            }  # fmt: skip

        await world.pod("p", containers=[container("small", "64Ki"), container("large", "1Mi")])
        await world.started(2)
        await world.phase("p", "Running")
        (small,) = (each for each in world.runtime.processes if each.spec.name == "small")
        small.taken_bytes = 100 * KIB
        said = 'Container small exceeded its local ephemeral storage limit "64Ki". '
        assert await evicted(world, "p") == said

    in_world(tmp_path, story)


def test_of_a_disk_that_runs_out_for_all_the_largest_gives_way_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However much there is of this machine's, it is little.
    monkeypatch.setattr(pressure, "PART", 1)
    monkeypatch.setattr(pressure, "BYTES", 1 << 60)

    async def story(world: World) -> None:
        for name, asks in (("small", "0"), ("large", "0"), ("asked", "1Mi")):
            await world.pod(name, container={"resources": {"requests": {"ephemeral-storage": asks}}})
            await world.phase(name, "Running")
        taken = {"small": 100 * KIB, "large": 200 * KIB, "asked": 300 * KIB}
        processes = {each.spec.pod.name: each for each in world.runtime.processes}
        for name, process in processes.items():
            process.taken_bytes = taken[name]
        await world.until(lambda: world.timers.pending().count(bounds.PERIOD_S) == 3)
        world.timers.fire(bounds.PERIOD_S)
        # Who is looked at first does not go for that.
        await world.until(lambda: world.timers.pending().count(bounds.TIGHT_PERIOD_S) == 3)
        world.timers.fire(bounds.TIGHT_PERIOD_S)
        await world.until(lambda: world.status("large").get("reason") == "Evicted")
        said = world.status("large")["message"]
        assert said.startswith("The node was low on resource: ephemeral-storage. Threshold quantity: ")
        assert said.endswith(
            "Container main was using 200Ki, request is 0, has larger consumption of ephemeral-storage. "
        )
        assert processes["small"].alive and processes["asked"].alive

    in_world(tmp_path, story)


def test_one_that_gives_way_and_does_not_end_well_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "PART", 1)
    monkeypatch.setattr(pressure, "BYTES", 1 << 60)

    def remove_pod(*_: Any) -> None:
        raise OSError("something stays mounted")

    monkeypatch.setattr(Places, "remove_pod", remove_pod)

    async def story(world: World) -> None:
        for name, taken in (("small", 100 * KIB), ("large", 200 * KIB)):
            await world.pod(name)
            await world.phase(name, "Running")
            world.runtime.processes[-1].taken_bytes = taken
        await world.until(lambda: world.timers.pending().count(bounds.PERIOD_S) == 2)
        world.timers.fire(bounds.PERIOD_S)
        await world.until(lambda: world.timers.pending().count(bounds.TIGHT_PERIOD_S) == 2)
        world.timers.fire(bounds.TIGHT_PERIOD_S)
        await world.until(lambda: world.status("large").get("reason") == "Evicted")
        # Until that one is over the other stays.
        async with asyncio.timeout(5):
            while world.status("small").get("reason") != "Evicted":
                world.timers.fire(bounds.TIGHT_PERIOD_S)
                await asyncio.sleep(0)

    in_world(tmp_path, story)


def test_open_files_without_a_name_count_and_those_in_memory_do_not(tmp_path: Path) -> None:
    before = nameless_bytes([os.getpid()])
    with (tmp_path / "file").open("wb") as file, open(os.memfd_create("m"), "wb") as memory:
        for each in (file, memory):
            each.write(os.urandom(256 * KIB))
            each.flush()
        os.fsync(file.fileno())
        assert nameless_bytes([os.getpid()]) == before
        (tmp_path / "file").unlink()
        found = nameless_bytes([os.getpid(), os.getpid()])
        assert found is not None and before is not None and 250 * KIB <= found - before <= 300 * KIB
    assert nameless_bytes([os.getpid()]) == before


def test_a_claim_beyond_its_capacity_ends_the_pod_that_uses_it_and_stays(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        metadata = {"name": "data", "namespace": "default"}
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Ki"}}}
        claim = {"metadata": metadata, "spec": spec, "status": {"phase": "Bound"}}
        await world.api.create(ACME, "persistentvolumeclaims", claim)

        def bind(found: Object) -> None:
            found["status"] = {"phase": "Bound", "capacity": {"storage": "100Ki"}}

        await world.api.edit(ACME, "persistentvolumeclaims", "default", "data", bind)
        await world.pod("p", **volumes(persistentVolumeClaim={"claimName": "data"}))
        await world.phase("p", "Running")
        kept = source(world) / "large"
        fill(kept, 200 * KIB)
        said = 'Usage of PersistentVolumeClaim "data" exceeds its capacity "100Ki". '
        assert await evicted(world, "p") == said
        assert kept in kept.parent.iterdir()

    in_world(tmp_path, story)


class EmptyDisks:
    """See base.DiskImages: every image is here, and has an empty disk in it."""

    async def find(self, pod: PodRef, image: str, keys: Any) -> str:
        del pod, keys
        return image

    async def pull(self, pod: PodRef, image: str, keys: Any) -> tuple[str, int]:
        raise AssertionError("it is here")

    async def copy_out(self, pod: PodRef, image_id: str, directory: str, into: Path, bytes_max: int) -> None:
        del pod, image_id, directory, bytes_max
        fill(into, 0)


async def begin_with_disk(world: World, name: str) -> Path:
    """The pod's disk out of an image."""
    target = f"{DISKS}/v"
    mounts = [{"name": "v", "mountPath": target}]
    image = {"name": "v", "image": {"reference": "disk:1"}}
    await world.pod(name, volumes=[image], container={"volumeMounts": mounts})
    await world.phase(name, "Running")
    (mount,) = (each for each in world.runtime.processes[-1].spec.mounts if each.target == target)
    return Path(mount.source) / DISK_RAW


def test_a_disk_out_of_an_image_grows_as_far_as_one_may_be_that_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagedisks, "BYTES_MAX", 64 * KIB)
    # It is not of what a pod has beside its disks.
    monkeypatch.setattr(bounds, "POD_BYTES_MAX", 16 * KIB)
    monkeypatch.setattr(pressure, "BYTES", 0)

    async def story(world: World) -> None:
        disk = await begin_with_disk(world, "p")
        fill(disk, 40 * KIB)
        await world.passes(bounds.PERIOD_S)
        await world.until(lambda: bounds.PERIOD_S in world.timers.pending())
        assert world.runtime.processes[0].alive
        fill(disk, 100 * KIB)
        assert await evicted(world, "p") == 'Usage of image volume "v" exceeds the limit "64Ki". '

    in_world(tmp_path, story, FakeRuntime(images=EmptyDisks(), handlers=("", "container")))


def test_a_disk_out_of_an_image_counts_when_the_disk_runs_out_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "BYTES", 0)

    async def story(world: World) -> None:
        fill(await begin_with_disk(world, "large"), 200 * KIB)
        await world.pod("small")
        await world.phase("small", "Running")
        world.runtime.processes[-1].taken_bytes = 100 * KIB
        monkeypatch.setattr(pressure, "PART", 1)
        monkeypatch.setattr(pressure, "BYTES", 1 << 60)
        await world.until(lambda: world.timers.pending().count(bounds.PERIOD_S) == 2)
        world.timers.fire(bounds.PERIOD_S)
        await world.until(lambda: world.timers.pending().count(bounds.TIGHT_PERIOD_S) == 2)
        world.timers.fire(bounds.TIGHT_PERIOD_S)
        await world.until(lambda: world.status("large").get("reason") == "Evicted")
        assert world.runtime.processes[-1].alive

    in_world(tmp_path, story, FakeRuntime(images=EmptyDisks(), handlers=("", "container")))


def test_no_disk_is_made_out_of_an_image_while_the_disk_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "PART", 1)

    async def story(world: World) -> None:
        with monkeypatch.context() as scarce:
            scarce.setattr(pressure, "BYTES", 1 << 60)
            beginning = asyncio.ensure_future(begin_with_disk(world, "p"))
            await world.until(lambda: world.events.of("FailedMount"))
            (said,) = world.events.of("FailedMount")
            assert "No space left on device" in said and not world.runtime.processes
        monkeypatch.setattr(pressure, "BYTES", 0)
        await world.passes(5.0)
        await beginning

    in_world(tmp_path, story, FakeRuntime(images=EmptyDisks(), handlers=("", "container")))
