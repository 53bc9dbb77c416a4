"""Which control groups this process may use, and what stands in the way of the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes import cgroups_v1, cgroups_v2
from walras.runtimes.base import Limits
from walras.runtimes.cgroups import Groups, read, tree, write
from walras.runtimes.cgroups_v1 import GroupsV1
from walras.runtimes.cgroups_v2 import GroupsV2

_PROBE: Final = ("probe",)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy: its controllers (none for version 2) and where this process is in it."""

    version: int
    controllers: tuple[str, ...]
    mount_point: Path
    own: Path


def hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7))."""
    places: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        places.update(dict.fromkeys(names.split(","), path))
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point = left.split(" ")[3:5]
        mount_point = Path(point.replace("\\040", " "))
        known = tuple(name for name in options.split(",") if name in places) if kind == "cgroup" else ()
        path = places.get(known[0] if known else "", "/")
        inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else "/"
        own = mount_point / inside.lstrip("/")
        version = 2 if kind == "cgroup2" else 1
        found.append(Hierarchy(version, known, mount_point, own if own.is_dir() else mount_point))
    return found


@dataclass(frozen=True, slots=True)
class Detected:
    """The groups to use, or None, and a line about every controller that is not to be had.

    `path`: where they are below every mount point; "" where that differs.
    """

    groups: Groups | None
    notes: tuple[str, ...]
    path: str = ""


def detect(name: str, found: Sequence[Hierarchy] | None = None, *, one_path: bool = False) -> Detected:
    """Groups below one called `name`, made where this process already is, so that its own limits hold on.

    `one_path`: at the root of each hierarchy of version 1 instead, where one path names them all.
    """
    if found is None:
        found = hierarchies(read(Path("/proc/self/mountinfo")), read(Path("/proc/self/cgroup")))
    path = f"/{name}" if one_path else ""
    first, first_notes = _version_1(name, found, one_path)
    if first is not None and "cpu" in first.controllers:
        return Detected(first, tuple(first_notes), path)
    second, second_notes, second_path = _version_2(name, found)
    if second is not None and ("cpu" in second.controllers or first is None):
        return Detected(second, tuple(second_notes), second_path)
    if not found:
        return Detected(None, ("no cgroup file system is mounted",))
    return Detected(first, tuple(first_notes or second_notes), path)


def _version_1(name: str, found: Sequence[Hierarchy], one_path: bool) -> tuple[Groups | None, list[str]]:
    bases: dict[str, Path] = {}
    notes = []
    for controller in cgroups_v1.CONTROLLERS:
        places = [each for each in found if controller in each.controllers]
        if not places:
            continue
        base = (places[0].mount_point if one_path else places[0].own) / name
        try:
            _try(GroupsV1({controller: base}))
            bases[controller] = base
        except OSError as error:
            notes.append(f"cgroup v1 {controller}: {error.strerror} ({base})")
    if not bases:
        return None, notes
    groups = GroupsV1(bases)
    groups.weigh(_cores_milli())
    return groups, notes


def _version_2(name: str, found: Sequence[Hierarchy]) -> tuple[Groups | None, list[str], str]:
    notes = []
    for place in [each for each in found if each.version == 2]:
        for parent in dict.fromkeys((place.own, place.mount_point)):
            available = set(read(parent / "cgroup.controllers").split())
            wanted = [each for each in cgroups_v2.CONTROLLERS if each in available]
            try:
                _open_up(parent, wanted)
                groups = GroupsV2(parent / name, wanted)
                _try(groups)
                groups.weigh(_cores_milli())
            except OSError as error:
                notes.append(f"cgroup v2: {error.strerror} ({parent})")
                continue
            missing = [each for each in cgroups_v2.CONTROLLERS if each not in available]
            path = f"/{(parent / name).relative_to(place.mount_point)}"
            return groups, [f"cgroup v2: no {each} controller in {parent}" for each in missing], path
    return None, notes, ""


def _cores_milli() -> int:
    return len(os.sched_getaffinity(0)) * 1000


def _try(groups: Groups) -> None:
    """Makes a group with limits and removes it. Raises OSError."""
    groups.make(_PROBE, Limits(cpu_milli=1000, pids=64))
    for entrance in groups.entrances(_PROBE):
        os.stat(entrance)
    groups.remove(_PROBE)


def _open_up(parent: Path, controllers: Sequence[str]) -> None:
    """Lets children of `parent` have the controllers, which needs it free of processes but at the root."""
    enabled = set(read(parent / "cgroup.subtree_control").split())
    if enabled.issuperset(controllers):
        return None
    wish = " ".join(f"+{name}" for name in controllers)
    try:
        return write(parent / "cgroup.subtree_control", wish)
    except OSError:
        if listed_pids_here(parent) != [os.getpid()]:
            raise
    # This process alone is in the way: it steps aside into a leaf, as systemd asks of delegated services.
    leaf = parent / "walras-server"
    with suppress(FileExistsError):
        leaf.mkdir()
    write(leaf / "cgroup.procs", os.getpid())
    return write(parent / "cgroup.subtree_control", wish)


def sweep(path: str) -> None:
    """Removes the empty groups at `path` in every hierarchy, and those below it; others stay."""
    for place in hierarchies(read(Path("/proc/self/mountinfo")), read(Path("/proc/self/cgroup"))):
        for directory in reversed(tree(place.mount_point / path.lstrip("/"))):
            with suppress(OSError):
                directory.rmdir()


def listed_pids_here(directory: Path) -> list[int]:
    """Processes in the group itself, not those below."""
    return [int(pid) for pid in read(directory / "cgroup.procs").split()]
