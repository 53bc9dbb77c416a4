"""Control groups on trees of plain files, and on the real ones where this machine lets us."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from walras.core.errors import InternalError
from walras.runtimes.base import Limits, Resize, ResizeError
from walras.runtimes.cgroups import GroupPath, bandwidth, empty, group_name
from walras.runtimes.cgroups_detect import Hierarchy, detect, hierarchies
from walras.runtimes.cgroups_resize import missing, resize
from walras.runtimes.cgroups_v1 import GroupsV1
from walras.runtimes.cgroups_v2 import GroupsV2
from walras.runtimes.throttle import Allowance


@pytest.mark.parametrize(
    ("milli", "quota_us", "period_us"),
    [
        (1000, 20_000, 20_000),
        (250, 5_000, 20_000),
        (4000, 80_000, 20_000),
        (50, 1_000, 20_000),
        (10, 1_000, 100_000),
        (1, 1_000, 1_000_000),
    ],
)
def test_a_share_has_the_shortest_period_that_the_kernel_allows(
    milli: int, quota_us: int, period_us: int
) -> None:
    share = bandwidth(milli)
    assert (share.quota_us, share.period_us) == (quota_us, period_us)


class Undying:
    """A group whose one process no signal reaches, as one that hangs in a driver."""

    def __init__(self) -> None:
        self.kills = 0

    def pids(self, path: GroupPath) -> list[int]:
        return [7] if path else []

    def kill(self, path: GroupPath) -> None:
        self.kills += len(path)


def test_who_waits_for_a_process_that_cannot_die_is_told_so_in_the_end() -> None:
    group = Undying()
    with pytest.raises(InternalError, match=r"processes \[7\] of node do not die"):
        asyncio.run(empty(group, ("node",), within_s=0.0))  # type: ignore[arg-type]
    assert group.kills > 1


def test_no_name_can_be_that_of_a_control_file_or_too_long() -> None:
    assert group_name("agent", "cgroup.procs") == "agent-cgroup.procs"
    long = [group_name("pod", "x" * 300 + end) for end in "ab"]
    assert long[0] != long[1] and max(map(len, long)) <= 200
    assert "/" not in group_name("node", "../..")


MOUNTS_V1 = """\
32 31 0:29 / {0}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / {0}/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / {0}/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / {0}/unified rw,relatime - cgroup2 cgroup2 rw
24 1 0:22 / /proc rw - proc proc rw
"""


def test_hierarchies_are_found_with_this_process_s_place_in_them(tmp_path: Path) -> None:
    (tmp_path / "memory" / "service" / "x").mkdir(parents=True)
    own = "3:cpu,cpuacct:/\n2:memory:/service/x\n1:name=systemd:/\n0::/\n"
    found = hierarchies(MOUNTS_V1.format(tmp_path), own)
    assert [(each.version, each.controllers) for each in found[:2]] == [
        (1, ("cpu", "cpuacct")),
        (1, ("memory",)),
    ]
    assert found[1].own == tmp_path / "memory" / "service" / "x"
    assert [each.version for each in found] == [1, 1, 1, 2]


def test_a_place_that_is_not_there_falls_back_to_the_mount(tmp_path: Path) -> None:
    (tmp_path / "cg").mkdir()
    mount = f"41 31 0:38 /docker/abc {tmp_path}/cg rw - cgroup2 cgroup2 rw\n"
    assert hierarchies(mount, "0::/docker/abc/gone\n")[0].own == tmp_path / "cg"


def v2_tree(root: Path, *groups: str) -> None:
    """The files that the kernel makes in each group."""
    for group in groups:
        directory = root / group
        directory.mkdir(parents=True, exist_ok=True)
        for name in (
            "cgroup.subtree_control",
            "cpu.max",
            "memory.max",
            "memory.swap.max",
            "pids.max",
            "cgroup.kill",
        ):
            (directory / name).touch()
        (directory / "cgroup.procs").write_text("")


def test_version_2_limits_and_facts(tmp_path: Path) -> None:
    v2_tree(tmp_path, "", "agent", "agent/node")
    groups = GroupsV2(tmp_path, ["cpu", "memory", "pids"])
    path = ("agent", "node")
    groups.make(path, Limits(cpu_milli=250, memory_bytes=1 << 30, pids=64))
    node = tmp_path / "agent" / "node"
    assert (node / "cpu.max").read_text() == "5000 20000"
    assert (node / "memory.max").read_text() == str(1 << 30)
    assert (node / "pids.max").read_text() == "64"
    assert (tmp_path / "agent" / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    (node / "cpu.stat").write_text("usage_usec 1234\nuser_usec 1000\n")
    (node / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    (node / "cgroup.procs").write_text("12\n7\n")
    assert (groups.cpu_ns(path), groups.oom_kills(path), groups.pids(path)) == (1_234_000, 2, [7, 12])
    groups.kill(path)
    assert (node / "cgroup.kill").read_text() == "1"


def test_version_1_limits_and_facts(tmp_path: Path) -> None:
    for controller, names in {
        "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
        "memory": ("memory.limit_in_bytes",),
        "pids": ("pids.max",),
    }.items():
        (tmp_path / controller / "node").mkdir(parents=True)
        for name in names:
            (tmp_path / controller / "node" / name).touch()
    groups = GroupsV1({each: tmp_path / each for each in ("cpu", "memory", "pids")})
    groups.make(("node",), Limits(cpu_milli=500, memory_bytes=4096, pids=8))
    assert (tmp_path / "cpu/node/cpu.cfs_quota_us").read_text().startswith("10000")
    assert (tmp_path / "memory/node/memory.limit_in_bytes").read_text() == "4096"
    (tmp_path / "memory/node/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert groups.oom_kills(("node",)) == 3
    assert groups.entrances(("node",)) == [
        str(tmp_path / each / "node" / "cgroup.procs") for each in ("cpu", "memory", "pids")
    ]


def test_without_any_rights_there_are_no_groups_and_it_is_said_why(tmp_path: Path) -> None:
    nowhere = Hierarchy(2, (), tmp_path / "none", tmp_path / "none")
    found = detect("walras-test", [nowhere])
    assert found.groups is None and "No such file" in found.notes[0]
    assert detect("walras-test", []).notes == ("no cgroup file system is mounted",)


def test_every_controller_that_is_refused_is_named(tmp_path: Path) -> None:
    first = [Hierarchy(1, (name,), tmp_path / "none", tmp_path / "none") for name in ("cpu", "memory")]
    notes = detect("walras-test", first).notes
    assert [note.split(":")[0] for note in notes] == ["cgroup v1 cpu", "cgroup v1 memory"]


def test_an_allowance_is_paid_back_before_work_goes_on() -> None:
    allowance = Allowance(500)
    assert allowance.spend(0, 0.05)
    # 100 ms of CPU in 50 ms of time is 50 ms over what was saved and earned: it takes 100 ms at one half.
    assert not allowance.spend(100_000_000, 0.05)
    assert not allowance.spend(0, 0.05)
    assert not allowance.spend(0, 0.05)
    assert allowance.spend(0, 0.06)


def test_an_allowance_saves_up_no_more_than_a_moment() -> None:
    allowance = Allowance(500)
    assert allowance.spend(0, 3600)
    assert not allowance.spend(51_000_000, 0)


def test_when_cpu_is_short_a_group_weighs_what_its_share_is(tmp_path: Path) -> None:
    for name in ("cpu.shares", "node/cpu.shares", "node/cpu.cfs_quota_us", "node/cpu.cfs_period_us"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    first = GroupsV1({"cpu": tmp_path})
    first.weigh(2000)
    first.limit(("node",), Limits(cpu_milli=500))
    assert (tmp_path / "cpu.shares").read_text() == "2048"
    assert (tmp_path / "node" / "cpu.shares").read_text() == "512"
    for name in ("cpu.weight", "node/cpu.weight", "node/cpu.max"):
        (tmp_path / name).write_text("")
    second = GroupsV2(tmp_path, ["cpu"])
    second.weigh(2000)
    second.limit(("node",), Limits(cpu_milli=500))
    assert (tmp_path / "cpu.weight").read_text() == "200"
    assert (tmp_path / "node" / "cpu.weight").read_text() == "50"


def _files(base: Path, *groups: str) -> None:
    """Groups of version 1 as files that take anything, with a limit of 100 MiB and 500 milli each."""
    kept = {
        "memory.limit_in_bytes": "104857600", "memory.memsw.limit_in_bytes": "104857600",
        "memory.usage_in_bytes": "60000000", "cpu.shares": "",
        "cpu.cfs_quota_us": "", "cpu.cfs_period_us": "",
    }  # fmt: skip
    for group in groups:
        (base / group).mkdir(parents=True)
        for name, text in kept.items():
            (base / group / name).write_text(text)


class Grouped:
    def __init__(self, *path: str) -> None:
        self.path = path


class Noted(GroupsV1):
    """Which group got which limits, in their order."""

    def __init__(self, base: Path) -> None:
        super().__init__({"cpu": base, "memory": base})
        self.said: list[tuple[str, int | None]] = []

    def limit(self, path: GroupPath, limits: Limits) -> None:
        self.said.append(("/".join(path), limits.memory_bytes or limits.cpu_milli))
        super().limit(path, limits)


def _change(was: tuple[int, int], to: tuple[int, int]) -> Resize:
    return Resize(*(Limits(milli, mib << 20) for milli, mib in (was, to)))


def test_what_is_outside_grows_first_and_shrinks_last(tmp_path: Path) -> None:
    _files(tmp_path, "pod", "pod/a", "pod/a/engine", "pod/b")
    groups = Noted(tmp_path)
    parts: Any = {
        "a": (Grouped("pod", "a"), _change((500, 100), (700, 150))),
        "b": (Grouped("pod", "b"), _change((500, 100), (100, 90))),
    }
    resize(groups, ("pod",), _change((1000, 200), (800, 240)), parts)
    assert groups.said == [
        ("pod", 240 << 20), ("pod/b", 90 << 20), ("pod/a", 150 << 20), ("pod/a/engine", 150 << 20),
        ("pod/b", 100), ("pod/a", 700), ("pod/a/engine", 700), ("pod", 800),
    ]  # fmt: skip
    assert (tmp_path / "pod/a/engine/memory.memsw.limit_in_bytes").read_text() == str(150 << 20)


def test_a_memory_limit_below_what_is_in_use_changes_nothing(tmp_path: Path) -> None:
    _files(tmp_path, "pod", "pod/a")
    groups, less = Noted(tmp_path), _change((500, 100), (500, 50))
    parts: Any = {"a": (Grouped("pod", "a"), less)}
    with pytest.raises(ResizeError) as caught:
        resize(groups, ("pod",), less, parts)
    assert caught.value.message == (
        "attempting to set pod memory limit (52428800) below current usage (60000000), "
        'attempting to set container "a" memory limit (52428800) below current usage (60000000)'
    )
    assert not groups.said


def test_groups_that_are_not_there_are_told_of(tmp_path: Path) -> None:
    groups = Noted(tmp_path)
    with pytest.raises(ResizeError, match="No such file"):
        resize(groups, ("pod",), _change((500, 100), (500, 200)), {})
    assert missing(groups) == "" and "memory" in missing(GroupsV1({"cpu": tmp_path})) and missing(None)
