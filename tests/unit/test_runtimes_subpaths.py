"""Parts of volumes that pods write to: what is mounted is in the volume, whatever programs do meanwhile."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.hostile import BEGAN, ESCAPED, GROUNDS, THIEF, TREASURE, Ground, on
from support.kubelet import ACME, Object, World, in_world

from walras.runtimes import subpaths, tmpfs
from walras.runtimes.base import Mount
from walras.runtimes.environment import ConfigError, NotYet
from walras.runtimes.fake import FakeRuntime
from walras.runtimes.sandbox import uid_of
from walras.runtimes.subpaths import Parts
from walras.runtimes.volumes import Places, Volume, mounts

RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(make is None, reason=f"no {name} runtime here"))
    for name, make in GROUNDS.items()
]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Where parts are put, with nothing left mounted afterwards whatever the test finds."""
    found = Places(tmp_path / "data", lambda _: -1).parts("acme", "u1")
    found.directory.mkdir(parents=True)
    try:
        tmpfs.unmount(found.directory)
    except PermissionError:
        pytest.skip("mounts nothing here")
    yield found
    subpaths.release(found.directory)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    found = tmp_path / "volume"
    found.mkdir()
    found.chmod(0o777)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What no pod is to have."""
    found = tmp_path / "outside"
    (found / "deeper").mkdir(parents=True)
    (found / "secret").write_text(TREASURE)
    (found / "deeper" / "secret").write_text(TREASURE)
    return found


def is_mounted_below(directory: Path) -> bool:
    return str(directory) in Path("/proc/mounts").read_text()


def test_what_is_missing_is_made_for_whoever_may_write_to_the_volume(parts: Parts, volume: Path) -> None:
    target = parts.put(volume, "a//b/./c/", "main-0", make=True)
    (target / "file").write_text("x")
    assert (volume / "a" / "b" / "c" / "file").read_text() == "x"
    assert [each.stat().st_mode & 0o7777 for each in (volume / "a", target)] == [0o777, 0o777]


def test_a_file_is_mounted_as_one(parts: Parts, volume: Path) -> None:
    (volume / "file").write_text("x")
    assert parts.put(volume, "file", "main-0", make=True).read_text() == "x"


def test_the_next_attempt_gets_what_is_there_then(parts: Parts, volume: Path) -> None:
    """One mount, not one upon the other."""
    (volume / "it").write_text("a file")
    parts.put(volume, "it", "main-0", make=True)
    (volume / "it").unlink()
    target = parts.put(volume, "it", "main-0", make=True)
    assert target.is_dir()
    assert Path("/proc/mounts").read_text().count(str(target)) == 1


def test_nothing_is_made_in_a_volume_that_is_read_only(parts: Parts, volume: Path) -> None:
    with pytest.raises(NotYet, match="No such file or directory"):
        parts.put(volume, "a", "main-0", make=False)
    assert not list(volume.iterdir())


@pytest.mark.parametrize(
    ("sub_path", "message"),
    [
        ("/etc", "error SubPath `/etc` must not be an absolute path"),
        ("a/../..", "unable to provision SubPath `a/../..`: must not contain '..'"),
        ("a\0b", "no path"),
        ("a" * 5000, "too long"),
        ("link", "link is neither a directory nor a file"),
        ("link/deeper", "link is neither a directory nor a file"),
        ("inner", "inner is neither a directory nor a file"),
        ("pipe", "pipe is neither a directory nor a file"),
        ("file/x", "Not a directory"),
    ],
)
def test_what_leads_elsewhere_is_refused(
    parts: Parts, volume: Path, outside: Path, sub_path: str, message: str
) -> None:
    (volume / "link").symlink_to(outside)
    (volume / "inner").symlink_to("real")
    (volume / "real").mkdir()
    (volume / "file").touch()
    os.mkfifo(volume / "pipe")
    with pytest.raises(ConfigError, match=message):
        parts.put(volume, sub_path, "main-0", make=True)
    assert not is_mounted_below(parts.directory)


def test_a_claim_that_is_mounted_read_only_leads_nowhere_either(
    parts: Parts, volume: Path, outside: Path
) -> None:
    """Who wrote to it before may have left links there."""
    (volume / "link").symlink_to(outside)
    (volume / "real").mkdir()
    volumes = {"v": Volume(volume, False)}

    def mounted(sub_path: str, to: Parts | None) -> Mount:
        wanted: dict[str, Any] = {"name": "v", "mountPath": "/data", "subPath": sub_path}
        return mounts({"name": "main", "volumeMounts": [wanted]}, volumes, {}, parts=to)[0]

    assert mounted("real", parts) == Mount(str(parts.directory / "main-0"), "/data", True)
    with pytest.raises(ConfigError, match="neither a directory nor a file"):
        mounted("link", parts)
    with pytest.raises(ConfigError, match="not offered"):
        mounted("real", None)


def test_an_expression_needs_all_of_its_variables(parts: Parts, volume: Path) -> None:
    def mounted(expression: str) -> Mount:
        wanted = {"name": "v", "mountPath": "/data", "subPathExpr": expression}
        env = {"NAME": "foo", "EMPTY": "", "UP": "..", "ROOT": "/etc"}
        container = {"name": "main", "volumeMounts": [wanted]}
        return mounts(container, {"v": Volume(volume, True)}, env, parts=parts)[0]

    assert mounted("of-$(NAME)/$$(NAME)").target == "/data"
    assert (volume / "of-foo" / "$(NAME)").is_dir()
    with pytest.raises(NotYet, match="missing value for EMPTY, NONE"):
        mounted("$(NONE)/$(EMPTY)")
    with pytest.raises(ConfigError, match="must not contain"):
        mounted("$(UP)")
    with pytest.raises(ConfigError, match="must not be an absolute path"):
        mounted("$(ROOT)")


# Exchanges the two names in one step, for ever.
SWAPS = f"""
import ctypes, os, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None)
print("{BEGAN}", flush=True)
while True:
    assert libc.renameat2(-100, b"swapped", -100, b"link", 2) == 0
"""


def test_a_swap_at_any_moment_never_gets_anything_else_mounted(
    parts: Parts, volume: Path, outside: Path
) -> None:
    """A program swaps a directory for a link to what is not its own, as fast as it can."""
    (volume / "swapped" / "deeper").mkdir(parents=True)
    (volume / "link").symlink_to(outside)
    thief = subprocess.Popen([sys.executable, "-c", SWAPS, volume], stdout=subprocess.PIPE, text=True)
    assert thief.stdout is not None and thief.stdout.readline() == f"{BEGAN}\n"
    got = refused = 0
    try:
        for number in range(2000):
            try:
                target = parts.put(volume, ("swapped", "swapped/deeper")[number % 2], "main-0", make=True)
            except NotYet:
                refused += 1
                continue
            got += 1
            assert not (target / "secret").exists()
            assert target.stat().st_ino not in {outside.stat().st_ino, (outside / "deeper").stat().st_ino}
        assert thief.poll() is None
    finally:
        thief.kill()
        thief.communicate()
    assert got and refused


def test_removing_a_pod_leaves_what_its_parts_are_of(tmp_path: Path, volume: Path, parts: Parts) -> None:
    places = Places(tmp_path / "data", lambda _: -1)
    (volume / "kept").mkdir()
    (volume / "kept" / "file").write_text("x")
    parts.put(volume, "kept", "main-0", make=True)
    places.remove_pod("acme", "u1")
    assert not parts.directory.exists() and (volume / "kept" / "file").read_text() == "x"


def test_an_agent_that_goes_takes_its_mounts_and_nobody_elses(
    tmp_path: Path, volume: Path, parts: Parts
) -> None:
    places = Places(tmp_path / "data", lambda _: -1)
    others = places.parts("rival", "u2")
    for each in (parts, others):
        each.put(volume, "kept", "main-0", make=True)
    (volume / "kept" / "file").write_text("x")
    try:
        aside = places.set_aside("acme")
        assert not places.has("acme") and places.has("rival") and any(aside.iterdir())
        assert not is_mounted_below(parts.directory) and is_mounted_below(others.directory)
        assert (volume / "kept" / "file").read_text() == "x"
    finally:
        places.unmount()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_is_gone_is_set_aside_on_a_full_disk_too(tmp_path: Path) -> None:
    """It is what makes room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=24", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        places = Places(disk, lambda _: -1)
        for name in ("one", "two"):
            places.claim("acme", "default", name).mkdir(parents=True)
        with suppress(OSError):
            for number in itertools.count():
                (disk / str(number)).mkdir()
        assert places.set_claim_aside("acme", "default", "one") is not None
        assert not places.claim("acme", "default", "one").exists()
        assert places.set_aside("acme").exists() and not places.has("acme")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_next_server_ends_what_a_killed_one_left_and_deletes_nothing(
    tmp_path: Path, volume: Path, parts: Parts
) -> None:
    places = Places(tmp_path / "data", lambda _: -1)
    (volume / "kept").mkdir()
    (volume / "kept" / "file").write_text("x")
    for number in range(3):
        parts.put(volume, "kept", f"main-{number}", make=True)
    places.claim("gone", "default", "data").mkdir(parents=True)
    aside = places.set_aside("gone")
    places.claim("gone", "default", "data").mkdir(parents=True)
    places.unmount()
    places.keep_only(set(), set(), ["acme"])
    assert not parts.directory.exists() and (volume / "kept" / "file").read_text() == "x"
    # But for what is nobody's any more.
    assert not places.has("gone") and not aside.exists() and places.has("acme")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_writes_to_its_part_and_cannot_climb_out_of_it(
    tmp_path: Path, volume: Path, parts: Parts, runtime: str
) -> None:
    """Even from a directory that is moved away from below it, out of the part that it was entered by."""

    async def story(ground: Ground) -> None:
        owner = uid_of(THIEF) if ground.runtime.separates_users else -1
        if owner >= 0:
            os.chown(volume, owner, owner)
        (tmp_path / "secret").write_text(TREASURE)
        target = Parts(parts.directory, owner).put(volume, "part", "main-0", make=True)
        script = f"""
echo {BEGAN}
mkdir -p /part/a/b && echo x > /part/a/file || exit 1
[ "$(cat /whole/part/a/file)" = x ] || exit 2
cat /part/../secret /part/../../secret && echo {ESCAPED}
cd /part/a/b
mv /whole/part/a/b /whole/moved || exit 3
for up in .. ../.. ../../.. ../../../..; do
  cat $up/secret && echo {ESCAPED}
  ls $up/part && echo {ESCAPED}
done
exit 0
"""
        given = (Mount(str(volume), "/whole"), Mount(str(target), "/part"))
        ended = await ground.ends(await ground.begin(THIEF, "sh", "-c", script, mounts=given))
        said = ground.said[THIEF].decode()
        assert ended.code == 0, said
        assert BEGAN in said and ESCAPED not in said and TREASURE not in said, said

    on(runtime, tmp_path / "data", story)


def test_a_pod_waits_for_what_its_path_is_made_of_and_leaves_nothing_mounted(
    tmp_path: Path, parts: Parts
) -> None:
    async def story(world: World) -> None:
        wanted = {"name": "v", "mountPath": "/data", "subPathExpr": "$(WHERE)/x"}
        where = {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['where']"}}}
        container = {"env": [where], "volumeMounts": [wanted]}
        await world.pod("p", volumes=[{"name": "v", "emptyDir": {}}], container=container)
        await world.until(lambda: world.container("p").get("state", {}).get("waiting", {}).get("message"))
        assert world.container("p")["state"]["waiting"] == {
            "reason": "CreateContainerConfigError",
            "message": "missing value for WHERE",
        }

        def annotate(pod: Object) -> None:
            pod["metadata"]["annotations"] = {"where": "here"}

        await world.api.edit(ACME, "pods", "default", "p", annotate)
        # Its disk is looked at as often.
        await world.until(lambda: len(world.timers.pending()) == 2)
        await world.passes(10)
        await world.phase("p", "Running")
        source = Path(world.runtime.processes[0].spec.mounts[0].source)
        assert is_mounted_below(source)
        world.runtime.processes[0].exit(0)
        await world.phase("p", "Succeeded")
        await world.until(lambda: not source.exists())
        assert not is_mounted_below(tmp_path)

    in_world(tmp_path, story, FakeRuntime(sees_mounts=True))
