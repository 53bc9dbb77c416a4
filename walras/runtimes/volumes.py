"""A pod's volumes as directories of this machine, made so that no pod can lead the server out of its own."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.core.quantity import parse_quantity
from walras.kube.access import mounting
from walras.runtimes import subpaths, tmpfs
from walras.runtimes.base import Mount
from walras.runtimes.environment import ConfigError, EnvSource, expand_path
from walras.runtimes.logs import path_part
from walras.runtimes.sandbox import OWN_DIRECTORY
from walras.runtimes.subpaths import Parts, names_of
from walras.runtimes.volumefiles import File, files_of

Object = Mapping[str, Any]
_DIRECTORY: Final = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CLAIMS: Final = "persistentvolumeclaims"
_FRESH: Final = ".walras-fresh"
_VOLUMES: Final = "volumes"
_PARTS: Final = "subpaths"
_MEMORY: Final = "Memory"
_TAKEN: Final = ("/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/sbin", "/sys", "/usr", OWN_DIRECTORY)


@dataclass(frozen=True, slots=True)
class Volume:
    """A prepared volume. `writable` ones may hold anything, symbolic links to anywhere too.

    `in_memory`: none of it is on disk, and the kernel bounds it. `by_server`: no pod ever wrote to it.
    """

    path: Path
    writable: bool
    in_memory: bool = False
    by_server: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where volumes are. `owner` is the uid of the agent's programs, -1 when it is the server's own."""

    data_dir: Path
    owner_of: Callable[[str], int]

    def close_off(self) -> None:
        """Keeps everybody else of this machine out of all that agents have."""
        agents = self.data_dir / "agents"
        agents.mkdir(parents=True, exist_ok=True)
        agents.chmod(0o700)

    def _agent(self, cluster: str) -> Path:
        return self.data_dir / "agents" / path_part(cluster)

    def pod(self, cluster: str, uid: str) -> Path:
        return self._agent(cluster) / "pods" / path_part(uid)

    def parts(self, cluster: str, uid: str) -> Parts:
        """Where what the pod's containers mount of volumes is put."""
        return Parts(self.pod(cluster, uid) / _PARTS, self.owner_of(cluster))

    def claim(self, cluster: str, namespace: str, name: str) -> Path:
        volumes = self._agent(cluster) / "volumes"
        return volumes / path_part(namespace) / path_part(name)

    def remove_pod(self, cluster: str, uid: str) -> None:
        """Deletes the pod's own volumes; claims stay. Raises OSError when something stays mounted."""
        _release(self.pod(cluster, uid))
        shutil.rmtree(self.pod(cluster, uid), ignore_errors=True)

    def set_claim_aside(self, cluster: str, namespace: str, name: str) -> Path | None:
        """Takes the files of a claim that is gone from their place, at once: where they are then, for the
        caller to delete, None where there are none. Raises OSError."""
        path = self.claim(cluster, namespace, name)
        return _set_aside(path) if path.exists() else None

    def has(self, cluster: str) -> bool:
        """Whether there is anything of the agent."""
        return self._agent(cluster).exists()

    def set_aside(self, cluster: str) -> Path:
        """Takes all of an agent that is gone from its place, at once; the caller deletes the directory where
        it is then. Raises OSError when something stays mounted, and nothing is moved."""
        self.unmount(escape(path_part(cluster)))
        return _set_aside(self._agent(cluster))

    def unmount(self, clusters: str = "*") -> None:
        """Ends all mounts for pods, of which none runs. Raises OSError when something stays mounted."""
        for pod in self.data_dir.glob(f"agents/{clusters}/pods/*"):
            _release(pod)

    def keep_only(
        self, known: set[tuple[str, str]], claims: set[tuple[str, str, str]], clusters: Iterable[str]
    ) -> None:
        """Deletes all of other agents than those of `clusters`, what was set aside, and the directories of
        pods and claims that are not among `known` (cluster, uid) and `claims` (cluster, namespace, name)."""
        agents = {path_part(each) for each in clusters}
        for directory in self.data_dir.glob("agents/*"):
            if directory.name not in agents:
                shutil.rmtree(directory, ignore_errors=True)
        for directory in self.data_dir.glob("agents/*/pods/*"):
            if (directory.parent.parent.name, directory.name) not in known:
                shutil.rmtree(directory, ignore_errors=True)
        for directory in self.data_dir.glob("agents/*/volumes/*/*"):
            if (directory.parts[-4], *directory.parts[-2:]) not in claims:
                shutil.rmtree(directory, ignore_errors=True)


def _set_aside(path: Path) -> Path:
    """Not where an agent or a claim may be, and in no new directory, for which a full disk has no room."""
    names = (path.with_name(f".{path.name}.{number}") for number in count())
    return path.rename(next(each for each in names if not each.exists()))


def _release(pod: Path) -> None:
    subpaths.release(pod / _PARTS)
    tmpfs.release(pod / _VOLUMES)


def claims_of(pod: Object) -> list[str]:
    """Names of the persistent volume claims that the pod uses."""
    found = (volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes") or ())
    return [str(claim.get("claimName", "")) for claim in found if claim]


def prepare(places: Places, cluster: str, source: EnvSource, memory_bytes: int = 0) -> dict[str, Volume]:
    """Every volume of the pod by name. Raises ConfigError for what is missing or not offered, OSError.

    `memory_bytes`: what one in memory has at most, 0 where those are on disk.
    """
    pod = source.pod
    base = places.pod(cluster, str(pod["metadata"]["uid"])) / _VOLUMES
    owner = places.owner_of(cluster)
    found = {}
    for volume in pod["spec"].get("volumes") or ():
        name = path_part(str(volume["name"]))
        if (claim := volume.get("persistentVolumeClaim")) is not None:
            found[name] = _claimed(places, cluster, source, claim, owner)
        elif (empty := volume.get("emptyDir")) is not None:
            path = _writable(base / name, owner)
            in_memory = empty.get("medium") == _MEMORY and _in_memory(path, empty, memory_bytes, owner)
            found[name] = Volume(path, True, in_memory)
        elif volume.get("image") and (base / name).is_dir():
            # A disk of an image is there already, and its machine's to write.
            found[name] = Volume(_writable(base / name, owner), True)
        else:
            found[name] = Volume(
                _written(base / name, files_of(source, volume), owner), False, by_server=True
            )
    return found


def _in_memory(path: Path, empty: Object, bytes_max: int, owner: int) -> bool:
    """Puts the volume into memory; False where that is not to be had. Raises OSError."""
    if not bytes_max:
        return False
    with suppress(WalrasError):
        # As for the kubelet, no room is no word.
        bytes_max = min(bytes_max, parse_quantity(str(empty.get("sizeLimit") or "0")) or bytes_max)
    try:
        tmpfs.mount(path, bytes_max, owner)
    except PermissionError:
        return False
    return True


def _claimed(places: Places, cluster: str, source: EnvSource, claim: Object, owner: int) -> Volume:
    namespace, name = str(source.pod["metadata"]["namespace"]), str(claim.get("claimName", ""))
    found = source.lookup(CLAIMS, name)
    if found is None:
        raise ConfigError(f'persistentvolumeclaim "{name}" not found')
    if (found.get("status") or {}).get("phase") != "Bound":
        raise ConfigError(f'persistentvolumeclaim "{name}" is not bound')
    path = _writable(places.claim(cluster, namespace, name), owner)
    return Volume(path, not claim.get("readOnly"))


def _writable(path: Path, owner: int) -> Path:
    """A directory of the agent's, below directories of the server's alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not os.path.lexists(path)
    if fresh:
        path.mkdir(mode=0o777)
    fd = os.open(path, _DIRECTORY)
    try:
        if owner >= 0 and os.fstat(fd).st_uid != owner:
            os.fchown(fd, owner, owner)
        if fresh:
            # As kubelet does: a container may run as any user. Nobody else gets so far (`close_off`).
            os.fchmod(fd, 0o777)
    finally:
        os.close(fd)
    return path


def renew(places: Places, cluster: str, source: EnvSource) -> None:
    """Writes the volumes that have tokens in them anew, each file at once. Raises ConfigError, OSError."""
    pod = source.pod
    base = places.pod(cluster, str(pod["metadata"]["uid"])) / _VOLUMES
    owner = places.owner_of(cluster)
    for volume in pod["spec"].get("volumes") or ():
        sources = (volume.get("projected") or {}).get("sources") or ()
        if any(each.get("serviceAccountToken") for each in sources):
            directory = base / path_part(str(volume["name"]))
            for name, file in files_of(source, volume).items():
                put(directory, name, file, owner)


def _written(directory: Path, files: Mapping[str, File], owner: int) -> Path:
    """Writes the files afresh; only the server ever writes here, so nothing in the way is a pod's."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for name, file in files.items():
        put(directory, name, file, owner)
    return directory


def put(directory: Path, name: str, file: File, owner: int) -> None:
    """Writes a file where only the server writes; readers see all of the old one or of the new one."""
    parts = [path_part(part) for part in name.split("/")]
    parent = directory
    for part in parts[:-1]:
        parent /= part
        parent.mkdir(mode=0o755, exist_ok=True)
    path = parent / parts[-1]
    fresh = path.with_name(f"{path.name[:200]}{_FRESH}")
    fresh.write_bytes(file.data)
    fresh.chmod(file.mode & 0o777)
    if owner >= 0:
        os.chown(fresh, owner, owner)
    fresh.replace(path)


def mounts(
    container: Object,
    volumes: Mapping[str, Volume],
    env: Mapping[str, str],
    *,
    whole: bool = False,
    parts: Parts | None = None,
) -> tuple[Mount, ...]:
    """Where the container sees its volumes. Raises ConfigError for a place that is not to be had.

    `whole`: its file system is all its own, and whoever mounts there is not led astray by symbolic links.
    `parts`: where those of volumes that pods write to are put, None where that is not to be had.
    """
    found: list[Mount] = []
    for number, each in enumerate(container.get("volumeMounts") or ()):
        name, target = str(each["name"]), posixpath.normpath("/" + str(each["mountPath"]).lstrip("/"))
        if name not in volumes:
            raise ConfigError(f'volume "{name}" is not in the pod')
        if not whole and is_taken(target):
            raise ConfigError(f"mountPath {target}: the process runtime keeps this place for the system")
        volume = volumes[name]
        path = volume.path
        if sub_path := expand_path(str(each.get("subPathExpr") or ""), env) or str(each.get("subPath") or ""):
            path = _inside(volume, sub_path, f"{path_part(container['name'])}-{number}", parts)
        found.append(Mount(str(path), target, bool(each.get("readOnly")) or not volume.writable))
    if whole:
        return tuple(found)
    # What the pod did not ask for does not stand in the way of what it did.
    account = next((each for each in found if each.target == mounting.MOUNT_PATH), None)
    if account is not None and any(account.target.startswith(each.target + "/") for each in found):
        found.remove(account)
    _check_nesting(found)
    return tuple(found)


def is_taken(target: str) -> bool:
    """Whether the place is the system's, or would hide something of it."""
    return _holds(target, OWN_DIRECTORY) or any(_holds(taken, target) for taken in _TAKEN)


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _inside(volume: Volume, sub_path: str, name: str, parts: Parts | None) -> Path:
    names = names_of(sub_path)
    if not volume.by_server:
        if parts is None:
            # A program could put a symbolic link there while the mount is made.
            raise ConfigError("subPath of a volume that pods can write to is not offered by this runtime")
        return parts.put(volume.path, sub_path, name, make=volume.writable)
    path = volume.path.joinpath(*names)
    if not path.exists():
        raise ConfigError(f"subPath {sub_path} is not in the volume")
    return path


def _check_nesting(found: Iterable[Mount]) -> None:
    """Mount points are made by root: never inside a directory where a pod may have put a symbolic link."""
    every = list(found)
    for outer in every:
        for inner in every:
            if inner.target.startswith(outer.target + "/"):
                raise ConfigError(
                    f"mountPath {inner.target} lies inside the volume mounted at {outer.target}"
                )
