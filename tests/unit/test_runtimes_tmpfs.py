"""Volumes in memory: how large they are, who pays for them, and that they end."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.hostile import BEGAN, ESCAPED, GROUNDS, THIEF, Ground, on
from support.kubelet import ACME, World, in_world

from walras.core.clock import VirtualClock
from walras.runtimes import tmpfs
from walras.runtimes.base import Limits, Mount, PodRef
from walras.runtimes.environment import EnvSource
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.kubelet import Kubelet
from walras.runtimes.sandbox import uid_of
from walras.runtimes.volumes import Places, Volume, prepare

MIB = 1 << 20
RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(make is None, reason=f"no {name} runtime here"))
    for name, make in GROUNDS.items()
]


def _may_mount(directory: Path) -> bool:
    try:
        tmpfs.mount(directory, MIB, -1)
    except PermissionError:
        return False
    tmpfs.release(directory.parent)
    return True


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for a volume, with nothing left mounted afterwards whatever the test finds."""
    volume = tmp_path / "one" / "volume"
    volume.mkdir(parents=True)
    if not _may_mount(volume):
        pytest.skip("mounts nothing here")
    yield volume
    tmpfs.release(volume.parent)
    Places(tmp_path, lambda _: -1).unmount()


def mounted_below(directory: Path) -> list[str]:
    return [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line
    ]


def room(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize


def test_it_is_no_larger_than_it_may_be_and_anybody_may_write_to_it(place: Path) -> None:
    tmpfs.mount(place, MIB, -1)
    assert place.stat().st_mode & 0o7777 == 0o1777 and room(place) == MIB
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (place / "large").write_bytes(bytes(MIB + 1))
    (place / "large").unlink()
    made = 0
    with suppress(OSError):
        while made < 2000:
            (place / f"empty-{made}").touch()
            made += 1
    assert 1000 < made < 1024


def test_what_it_had_is_gone_when_it_is_released_however_deep_and_whoever_looks_on(place: Path) -> None:
    """Even for who holds on to the file system, as a program with mounts of its own does."""
    tmpfs.mount(place, 16 * MIB, -1)
    at = held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    (place / "file").write_bytes(bytes(MIB))
    (place / "link").symlink_to("/etc")
    for _ in range(2000):
        os.mkdir("deeper", dir_fd=at)
        inner = os.open("deeper", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        if at != held:
            os.close(at)
        at = inner
    os.close(at)
    tmpfs.release(place.parent)
    found = os.fstatvfs(held)
    assert os.listdir(held) == [] and found.f_bfree == found.f_blocks
    os.close(held)
    assert not tmpfs.is_mounted(place) and place.is_dir() and Path("/etc").is_dir()


def test_a_second_mount_changes_nothing(place: Path) -> None:
    tmpfs.mount(place, MIB, -1)
    (place / "file").write_text("x")
    tmpfs.mount(place, MIB, -1)
    assert (place / "file").read_text() == "x"
    assert mounted_below(place) == [str(place)]


def prepared(tmp_path: Path, empty: dict[str, Any], memory_bytes: int) -> Volume:
    metadata = {"name": "p", "namespace": "default", "uid": "u1"}
    pod = {"metadata": metadata, "spec": {"volumes": [{"name": "v", "emptyDir": empty}], "containers": []}}
    source = EnvSource(pod, {"metadata": {}}, lambda *_: None)
    return prepare(Places(tmp_path, lambda _: -1), ACME, source, memory_bytes)["v"]


@pytest.mark.parametrize(
    ("limit", "memory_bytes", "bytes_"),
    [("1Mi", 4 * MIB, MIB), ("8Mi", 4 * MIB, 4 * MIB), (None, 4 * MIB, 4 * MIB), ("0", 4 * MIB, 4 * MIB)],
)
def test_the_least_of_what_bounds_it_is_its_size(
    tmp_path: Path, limit: str | None, memory_bytes: int, bytes_: int
) -> None:
    found = prepared(tmp_path, {"medium": "Memory", **({"sizeLimit": limit} if limit else {})}, memory_bytes)
    assert found.in_memory and tmpfs.is_mounted(found.path) and room(found.path) == bytes_


def test_without_anybody_to_charge_it_is_on_disk_as_others_are(tmp_path: Path) -> None:
    for empty, memory_bytes in (({"medium": "Memory"}, 0), ({}, 4 * MIB)):
        found = prepared(tmp_path, empty, memory_bytes)
        assert not found.in_memory and not tmpfs.is_mounted(found.path)


def _with_memory(tmp_path: Path, world: World) -> Path:
    uid = world.api.get(ACME, "pods", "default", "p")["metadata"]["uid"]
    return Places(tmp_path, lambda _: -1).pod(ACME, uid) / "volumes" / "v"


VOLUMES = [{"name": "v", "emptyDir": {"medium": "Memory"}}]


def test_it_stays_for_as_long_as_its_pod_and_no_longer(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        limits = {"resources": {"limits": {"memory": "64Mi"}}}
        await world.pod("p", volumes=VOLUMES, restartPolicy="OnFailure", container=limits)
        await world.started(1)
        path = _with_memory(tmp_path, world)
        assert tmpfs.is_mounted(path) and room(path) == 64 * MIB
        (path / "file").write_text("x")
        world.runtime.processes[0].exit(1)
        await world.started(2)
        assert (path / "file").read_text() == "x"
        world.runtime.processes[1].exit(0)
        await world.phase("p", "Succeeded")
        await world.until(lambda: not path.exists())
        assert not mounted_below(tmp_path)

    in_world(tmp_path, story, FakeRuntime(counts_memory=True))


def test_without_a_limit_it_has_as_much_as_the_node(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.pod("p", volumes=VOLUMES)
        await world.phase("p", "Running")
        assert room(_with_memory(tmp_path, world)) == 4 << 30

    in_world(tmp_path, story, FakeRuntime(counts_memory=True))
    assert not mounted_below(tmp_path), "the server's stop ends it"


def test_the_next_server_ends_what_a_killed_one_left(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        left = Places(tmp_path, lambda _: -1).pod(ACME, "gone") / "volumes" / "v"
        left.mkdir(parents=True)
        tmpfs.mount(left, MIB, -1)
        await world.pod("p", volumes=VOLUMES)
        await world.phase("p", "Running")
        path = _with_memory(tmp_path, world)
        (path / "file").write_text("x")
        again = Kubelet(
            world.api, FakeRuntime(), VirtualClock(), world.events, tmp_path, sleep=world.timers.sleep
        )
        await again.start()
        assert not mounted_below(tmp_path) and not left.exists() and os.listdir(path) == []
        await again.stop(0)

    in_world(tmp_path, story, FakeRuntime(counts_memory=True))


FILL = "dd if=/dev/zero of=/volume/file bs=1048576 count=128 2>/dev/null"


def _mounted(ground: Ground, place: Path, bytes_max: int) -> Mount:
    separate = ground.runtime.separates_users
    tmpfs.mount(place, bytes_max, uid_of(THIEF) if separate else -1)
    return Mount(str(place), "/volume")


def _is_charged(ground: Ground) -> bool:
    return ground.runtime.traits(PodRef(THIEF, "base", "uid", "p")).counts_memory


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_thief_that_fills_it_pays_with_its_own_memory(tmp_path: Path, place: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        mount = _mounted(ground, place, 256 * MIB)
        if not _is_charged(ground):
            pytest.skip("no control group counts memory here")
        script = f"echo {BEGAN}; {FILL} && echo {ESCAPED}; exit 7"
        limits = Limits(memory_bytes=48 * MIB)
        thief = await ground.begin(THIEF, "sh", "-c", script, limits=limits, mounts=(mount,))
        await ground.ends(thief)
        found = os.statvfs(place)
        assert (found.f_blocks - found.f_bfree) * found.f_frsize <= 48 * MIB
        said = ground.said[THIEF].decode()
        assert said.startswith(BEGAN) and ESCAPED not in said

    on(runtime, tmp_path / "data", story)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nobody_gets_more_into_it_than_it_has_room_for(tmp_path: Path, place: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        mount = _mounted(ground, place, 8 * MIB)
        again = "mount -o remount,size=1g /volume 2>/dev/null; umount /volume 2>/dev/null"
        there = "grep ' /volume tmpfs ' /proc/mounts >/dev/null"
        script = f"{there} && echo {BEGAN}; {again}; {FILL} && echo {ESCAPED}"
        thief = await ground.begin(THIEF, "sh", "-c", script, mounts=(mount,))
        await ground.ends(thief)
        said = ground.said[THIEF].decode()
        assert said.startswith(BEGAN) and ESCAPED not in said
        assert (place / "file").stat().st_size == 8 * MIB

    on(runtime, tmp_path / "data", story)


def test_a_container_sees_its_own_alone(tmp_path: Path, place: Path) -> None:
    if GROUNDS["process"] is None or shutil.which("bwrap") is None:
        pytest.skip("no process runtime here")

    async def story(ground: Ground) -> None:
        (place.parent / "other").mkdir()
        tmpfs.mount(place.parent / "other", MIB, -1)
        mount = _mounted(ground, place, MIB)
        script = (
            f"echo {BEGAN}; grep {place.parent}/other /proc/mounts && echo {ESCAPED}; ls {place.parent}/other"
        )
        await ground.ends(await ground.begin(THIEF, "sh", "-c", script, mounts=(mount,)))
        said = ground.said[THIEF].decode()
        assert said.startswith(BEGAN) and ESCAPED not in said

    on("process", tmp_path / "data", story)
