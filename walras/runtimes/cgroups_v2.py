"""Control groups of version 2: one hierarchy, processes only in its leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from walras.runtimes.base import Limits
from walras.runtimes.cgroups import GroupPath, bandwidth, listed_pids, read, tree, weight, write

CONTROLLERS: Final = ("cpu", "memory", "pids")


class GroupsV2:
    """Groups below the directory `base`, which must be free of processes."""

    version = 2

    def __init__(self, base: Path, controllers: Iterable[str]) -> None:
        self._base = base
        self.controllers = frozenset(controllers)

    def _at(self, path: GroupPath) -> Path:
        return self._base.joinpath(*path)

    def make(self, path: GroupPath, limits: Limits) -> None:
        self._base.mkdir(parents=True, exist_ok=True)
        directory = self._base
        for name in path:
            self._delegate(directory)
            directory /= name
            directory.mkdir(exist_ok=True)
        self.limit(path, limits)

    def _delegate(self, directory: Path) -> None:
        enabled = set(read(directory / "cgroup.subtree_control").split())
        if missing := sorted(self.controllers - enabled):
            write(directory / "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))

    def limit(self, path: GroupPath, limits: Limits) -> None:
        directory = self._at(path)
        if "cpu" in self.controllers:
            if limits.cpu_milli is not None:
                share = bandwidth(limits.cpu_milli, limits.period_us)
                write(directory / "cpu.max", f"{share.quota_us} {share.period_us}")
            if limits.weighs_milli is not None:
                _weigh(directory, limits.weighs_milli)
        if limits.memory_bytes is not None and "memory" in self.controllers:
            write(directory / "memory.max", limits.memory_bytes)
            with suppress(OSError):  # no swap accounting in this kernel
                write(directory / "memory.swap.max", 0)
        if limits.pids is not None and "pids" in self.controllers:
            write(directory / "pids.max", limits.pids)

    def weigh(self, cpu_milli: int) -> None:
        """Gives all groups together the weight of so much CPU against what else the machine runs."""
        if "cpu" in self.controllers:
            _weigh(self._base, cpu_milli)

    def below(self, path: GroupPath) -> list[GroupPath]:
        return [each.relative_to(self._base).parts for each in tree(self._at(path))[1:]]

    def memory_bytes(self, path: GroupPath) -> int:
        return int(read(self._at(path) / "memory.current") or 0)

    def entrances(self, path: GroupPath) -> list[str]:
        return [str(self._at(path) / "cgroup.procs")]

    def pids(self, path: GroupPath) -> list[int]:
        return sorted(listed_pids(self._at(path)))

    def kill(self, path: GroupPath) -> None:
        with suppress(OSError):  # before Linux 5.14
            return write(self._at(path) / "cgroup.kill", 1)
        frozen = self._at(path) / "cgroup.freeze"
        with suppress(OSError):
            write(frozen, 1)
        for pid in self.pids(path):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):
            write(frozen, 0)
        return None

    def cpu_ns(self, path: GroupPath) -> int:
        return self._fact(path, "cpu.stat", "usage_usec") * 1000

    def oom_kills(self, path: GroupPath) -> int:
        return self._fact(path, "memory.events", "oom_kill")

    def _fact(self, path: GroupPath, file: str, name: str) -> int:
        facts = dict(line.split(maxsplit=1) for line in read(self._at(path) / file).splitlines())
        return int(facts.get(name, 0))

    def remove(self, path: GroupPath) -> None:
        for directory in reversed(tree(self._at(path))):
            directory.rmdir()

    def remove_empty(self, path: GroupPath) -> None:
        self._at(path).rmdir()


def _weigh(directory: Path, cpu_milli: int) -> None:
    """A core weighs 100, which is what a group weighs by default."""
    with suppress(OSError):
        write(directory / "cpu.weight", weight(cpu_milli))
