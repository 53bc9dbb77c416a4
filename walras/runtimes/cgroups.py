"""Control groups: limits, accounting, and the certainty that nothing of a pod is left."""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from walras.core.errors import InternalError
from walras.runtimes.base import PERIOD_US, Limits

log = structlog.get_logger(__name__)

PERIOD_MAX_US: Final = 1_000_000
# What the kernel takes.
QUOTA_MIN_US: Final = 1000
SHARES_MAX: Final = 262_144
_NAME_MAX: Final = 200

GroupPath = tuple[str, ...]


class Groups(Protocol):
    """A tree of control groups below one that the server made, addressed by path."""

    version: int
    controllers: frozenset[str]

    def make(self, path: GroupPath, limits: Limits) -> None:
        """Makes the group and those above it. Raises OSError."""

    def limit(self, path: GroupPath, limits: Limits) -> None:
        """Changes its limits; those of a controller that is not there are skipped. Raises OSError."""

    def weigh(self, cpu_milli: int) -> None:
        """Gives all groups together the weight of so much CPU against what else the machine runs."""

    def below(self, path: GroupPath) -> list[GroupPath]:
        """Groups that somebody made in it and deeper, outer ones first."""

    def memory_bytes(self, path: GroupPath) -> int:
        """What the group has in use, with what is below it; 0 when unknown."""

    def entrances(self, path: GroupPath) -> list[str]:
        """Files to which a process writes "0" to enter the group."""

    def pids(self, path: GroupPath) -> list[int]:
        """Live processes in the group and below, none when there is no such group."""

    def kill(self, path: GroupPath) -> None:
        """SIGKILL to everything in the group and below, once."""

    def cpu_ns(self, path: GroupPath) -> int:
        """CPU time used in the group and below, also by processes that ended; 0 when unknown."""

    def oom_kills(self, path: GroupPath) -> int:
        """Processes of this very group that the kernel killed for memory."""

    def remove(self, path: GroupPath) -> None:
        """Removes the empty group and those below. Raises OSError when processes are in it."""

    def remove_empty(self, path: GroupPath) -> None:
        """Removes the group alone. Raises OSError when anything is in it."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """CFS bandwidth: `quota_us` in every `period_us`."""

    quota_us: int
    period_us: int


def bandwidth(cpu_milli: int, least_us: int = PERIOD_US) -> Bandwidth:
    """The shortest period, from `least_us` on, in which a share can be expressed."""
    milli = max(cpu_milli, 1)
    period = min(max(least_us, -(-QUOTA_MIN_US * 1000 // milli)), PERIOD_MAX_US)
    return Bandwidth(max(QUOTA_MIN_US, milli * period // 1000), period)


def shares(cpu_milli: int) -> int:
    """What a group weighs against its siblings as version 1 counts, and the kubelet: 1024 a core."""
    return min(max(2, cpu_milli * 1024 // 1000), SHARES_MAX)


def weight(cpu_milli: int) -> int:
    """What a group weighs against its siblings when CPU is short, in hundredths of a core."""
    return min(max(cpu_milli // 10, 1), 10_000)


def group_name(kind: str, name: str) -> str:
    """A directory name that no control file can have and that fits any file system."""
    text = f"{kind}-{name}"
    if len(text) > _NAME_MAX:
        text = text[: _NAME_MAX - 17] + "-" + hashlib.sha256(text.encode()).hexdigest()[:16]
    return text.replace("/", "_")


async def empty(groups: Groups, path: GroupPath, *, within_s: float = 30.0) -> None:
    """Kills until the group is empty. Raises InternalError when a process cannot die."""
    pause, waited = 0.001, 0.0
    while groups.pids(path):
        groups.kill(path)
        if waited > within_s:
            raise InternalError(f"processes {groups.pids(path)[:8]} of {'/'.join(path)} do not die")
        await asyncio.sleep(pause)
        waited += pause
        pause = min(pause * 2, 0.05)


async def kill_all(groups: Groups, path: GroupPath, *, within_s: float = 30.0) -> None:
    """Kills until the group is empty, then removes it. Raises InternalError when a process cannot die."""
    await empty(groups, path, within_s=within_s)
    # The kernel lets go of a group a moment after its last process.
    for _ in range(50):
        try:
            return groups.remove(path)
        except OSError:
            await asyncio.sleep(0.002)
    return None


async def clear(groups: Groups, path: GroupPath) -> None:
    """`kill_all` for an end that must go on: what cannot die is logged, and its group stays."""
    try:
        await kill_all(groups, path)
    except InternalError as error:
        log.warning("processes left", group="/".join(path), error=error.message)


def read(file: Path) -> str:
    """The file's text, "" when it is not there or cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return ""


def write(file: Path, value: str | int) -> None:
    """Writes without creating. Raises OSError."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def tree(directory: Path) -> list[Path]:
    """The directory and all below it, parents first; empty when it is not there."""
    if not directory.is_dir():
        return []
    found = [directory]
    for each in found:
        try:
            found.extend(
                Path(entry.path) for entry in os.scandir(each) if entry.is_dir(follow_symlinks=False)
            )
        except OSError:
            continue
    return found


def listed_pids(directory: Path) -> list[int]:
    """Processes of the group at `directory` and below."""
    return [int(pid) for each in tree(directory) for pid in read(each / "cgroup.procs").split()]
