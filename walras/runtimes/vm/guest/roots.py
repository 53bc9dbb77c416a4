"""File systems and control groups of containers inside the guest."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

SHARE = "/.share"
BASE = "/base"
ROOTS = "/containers"
GROUPS = "/sys/fs/cgroup"
_READ_ONLY, _NO_SUID, _REMOUNT, _BIND, _RECURSIVE = 1, 2, 32, 4096, 16384
_PERIOD_US = 100_000

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    words = [os.fsencode(each) for each in (source, target, kind, data)]
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def make_root(name: str, mounts: list[tuple[str, str, bool]], hostname: str) -> str:
    """The root directory of a new container: places of its own, in memory, and the share's read-only ones.

    `mounts`: (path below the share, absolute target, read only).
    """
    root = f"{ROOTS}/{name}"
    os.makedirs(root)
    mount("tmpfs", root, "tmpfs", 0, "mode=0755")
    _copy(BASE, root)
    for each in sorted(os.listdir(f"{SHARE}/root")):
        if each == "etc":
            for below in os.listdir(f"{SHARE}/root/etc"):
                _bind(f"{SHARE}/root/etc/{below}", f"{root}/etc/{below}", True)
        else:
            _bind(f"{SHARE}/root/{each}", f"{root}/{each}", True)
    for each in ("proc", "sys", "dev"):
        mount(f"/{each}", f"{root}/{each}", "", _BIND | _RECURSIVE)
    for each in ("tmp", "run"):
        mount("tmpfs", f"{root}/{each}", "tmpfs", 0, "mode=1777")
    os.mkdir(f"{root}/run/walras")
    mount("/walras", f"{root}/run/walras", "", _BIND)
    with open(f"{root}/etc/hostname", "w") as file:
        file.write(hostname + "\n")
    with open("/proc/sys/kernel/hostname", "w") as file:
        file.write(hostname)
    for source, target, read_only in mounts:
        _bind(f"{SHARE}/{source}", root + target, read_only)
    return root


def _copy(source: str, target: str) -> None:
    """Directories, links and small files below `source`."""
    for entry in os.scandir(source):
        path = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        elif entry.is_dir():
            os.mkdir(path)
            _copy(entry.path, path)
        else:
            with open(entry.path, "rb") as given, open(path, "wb") as made:
                made.write(given.read())


def _bind(source: str, target: str, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, "", _BIND)
    if read_only:
        mount("", target, "", _BIND | _REMOUNT | _READ_ONLY | _NO_SUID)


def make_group(name: str, memory_bytes: int, pids: int, cpu_milli: int) -> str:
    """A control group with the limits; 0 is none."""
    path = f"{GROUPS}/{name}"
    os.makedirs(path)
    _write(f"{path}/memory.oom.group", "1")
    if memory_bytes:
        _write(f"{path}/memory.max", str(memory_bytes))
    if pids:
        _write(f"{path}/pids.max", str(pids))
    if cpu_milli:
        _write(f"{path}/cpu.max", f"{cpu_milli * _PERIOD_US // 1000} {_PERIOD_US}")
    return path


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _counter(path: str, name: str) -> int:
    try:
        with open(path) as file:
            words = file.read().split()
    except OSError:
        return 0
    return int(words[words.index(name) + 1]) if name in words else 0


def is_empty(group: str) -> bool:
    """Whether no process is left in the group."""
    return _counter(f"{group}/cgroup.events", "populated") == 0


def oom_kills(group: str) -> int:
    """Processes of the group that were killed for want of memory."""
    return _counter(f"{group}/memory.events", "oom_kill")


def kill(group: str) -> None:
    """SIGKILL to every process of the group."""
    _write(f"{group}/cgroup.kill", "1")


def remove_group(group: str) -> bool:
    """Whether the group is gone, which it is once nothing runs in it."""
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove(name: str, group: str) -> None:
    """The container has ended: lets go of what it had, and of the memory in it."""
    with suppress(OSError):
        for entry in os.scandir(group):
            if entry.is_dir():
                os.rmdir(entry.path)
        os.rmdir(group)
    detach = 2
    _libc.umount2(os.fsencode(f"{ROOTS}/{name}"), detach)
