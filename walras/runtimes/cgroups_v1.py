"""Control groups of version 1: one hierarchy for each controller, or for a few of them together."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from walras.runtimes.base import Limits
from walras.runtimes.cgroups import Bandwidth, GroupPath, bandwidth, listed_pids, read, shares, tree, write

CONTROLLERS: Final = ("cpu", "cpuacct", "memory", "pids", "freezer")
_UNLIMITED: Final = -1
# What the kernel says for no limit is beyond that.
_BOUNDLESS: Final = 1 << 62


class GroupsV1:
    """`bases` maps each controller at hand to the directory below which groups are made."""

    version = 1

    def __init__(self, bases: Mapping[str, Path]) -> None:
        self._bases = dict(bases)
        self._directories = list(dict.fromkeys(self._bases.values()))
        self.controllers = frozenset(self._bases)

    def _at(self, controller: str, path: GroupPath) -> Path | None:
        base = self._bases.get(controller)
        return None if base is None else base.joinpath(*path)

    def make(self, path: GroupPath, limits: Limits) -> None:
        for base in self._directories:
            base.joinpath(*path).mkdir(parents=True, exist_ok=True)
        self.limit(path, limits)

    def limit(self, path: GroupPath, limits: Limits) -> None:
        if (cpu := self._at("cpu", path)) is not None:
            if limits.weighs_milli is not None:
                _weigh(cpu, limits.weighs_milli)
            if limits.cpu_milli is not None:
                self._limit_cpu(cpu, bandwidth(limits.cpu_milli, limits.period_us))
        if (memory := self._at("memory", path)) is not None and limits.memory_bytes is not None:
            _limit_memory(memory, limits.memory_bytes)
        if (pids := self._at("pids", path)) is not None and limits.pids is not None:
            write(pids / "pids.max", limits.pids)

    def weigh(self, cpu_milli: int) -> None:
        """Gives all groups together the weight of so much CPU against what else the machine runs."""
        if (base := self._bases.get("cpu")) is not None:
            _weigh(base, cpu_milli)

    @staticmethod
    def _limit_cpu(directory: Path, share: Bandwidth) -> None:
        write(directory / "cpu.cfs_quota_us", _UNLIMITED)
        write(directory / "cpu.cfs_period_us", share.period_us)
        try:
            write(directory / "cpu.cfs_quota_us", share.quota_us)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The kernel refuses a share above the parent's or below a child's: the tighter one holds anyway.
            for below in tree(directory)[1:]:
                with suppress(OSError):
                    write(below / "cpu.cfs_quota_us", _UNLIMITED)
            with suppress(OSError):
                write(directory / "cpu.cfs_quota_us", share.quota_us)

    def below(self, path: GroupPath) -> list[GroupPath]:
        found = {
            each.relative_to(base).parts: None
            for base in self._directories
            for each in tree(base.joinpath(*path))[1:]
        }
        return sorted(found, key=len)

    def memory_bytes(self, path: GroupPath) -> int:
        directory = self._at("memory", path)
        return int((read(directory / "memory.usage_in_bytes") if directory else "") or 0)

    def entrances(self, path: GroupPath) -> list[str]:
        return [str(base.joinpath(*path) / "cgroup.procs") for base in self._directories]

    def pids(self, path: GroupPath) -> list[int]:
        return sorted({pid for base in self._directories for pid in listed_pids(base.joinpath(*path))})

    def kill(self, path: GroupPath) -> None:
        """Freezes first, so that nothing forks away from under the signals."""
        freezer = self._at("freezer", path)
        state = freezer / "freezer.state" if freezer is not None and freezer.is_dir() else None
        if state is not None:
            with suppress(OSError):
                write(state, "FROZEN")
        for pid in self.pids(path):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if state is not None:
            with suppress(OSError):
                write(state, "THAWED")

    def cpu_ns(self, path: GroupPath) -> int:
        directory = self._at("cpuacct", path)
        return int((read(directory / "cpuacct.usage") if directory else "") or 0)

    def oom_kills(self, path: GroupPath) -> int:
        directory = self._at("memory", path)
        text = read(directory / "memory.oom_control") if directory else ""
        facts = dict(line.split() for line in text.splitlines())
        return int(facts.get("oom_kill", 0))

    def remove(self, path: GroupPath) -> None:
        for base in self._directories:
            for directory in reversed(tree(base.joinpath(*path))):
                directory.rmdir()

    def remove_empty(self, path: GroupPath) -> None:
        for base in self._directories:
            base.joinpath(*path).rmdir()


def _weigh(directory: Path, cpu_milli: int) -> None:
    with suppress(OSError):
        write(directory / "cpu.shares", shares(cpu_milli))


def _limit_memory(directory: Path, limit_bytes: int) -> None:
    """An engine bounds memory with swap too, which must not be less than memory alone."""
    swap = directory / "memory.memsw.limit_in_bytes"
    bound = int(read(swap) or _BOUNDLESS)
    if bound < min(limit_bytes, _BOUNDLESS):
        write(swap, limit_bytes)
    write(directory / "memory.limit_in_bytes", limit_bytes)
    if limit_bytes < bound < _BOUNDLESS:
        write(swap, limit_bytes)
