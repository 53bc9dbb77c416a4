"""Parts of volumes that pods write to, mounted where no pod's symbolic link leads (as kubelet's subpath)."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes import tmpfs
from walras.runtimes.environment import ConfigError, NotYet

PATH_MAX: Final = 4096
_FOLLOWS_NONE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MADE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Parts:
    """Where what a pod's containers mount of volumes is put: a directory of the server's alone.

    `owner`: of directories that are made, as volumes have it.
    """

    directory: Path
    owner: int

    def put(self, volume: Path, sub_path: str, name: str, *, make: bool) -> Path:
        """Mounts that part of the volume by the name, in the stead of what was there: where it is then.

        Found, and made where it is missing, name by name from the volume down, each held open: whatever a
        program renames or links meanwhile, what is mounted is what was found. Raises ConfigError.
        """
        target = self.directory / name
        try:
            tmpfs.unmount(target)
            fd = self._open(volume, sub_path, make)
            try:
                _stand_in(target, directory=stat.S_ISDIR(os.fstat(fd).st_mode))
                tmpfs.bind(fd, target)
            finally:
                os.close(fd)
        except OSError as error:
            # Nothing of this machine in what an agent reads.
            raise NotYet(f"subPath {sub_path} cannot be mounted: {os.strerror(error.errno or 0)}") from error
        return target

    def _open(self, volume: Path, sub_path: str, make: bool) -> int:
        at = os.open(volume, _FOLLOWS_NONE | os.O_DIRECTORY)
        try:
            top = os.fstat(at)
            for name in names_of(sub_path):
                inner = self._step(at, name, top.st_mode, make)
                os.close(at)
                at = inner
                found = os.fstat(at)
                if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
                    raise NotYet(f"subPath {sub_path}: {name} is neither a directory nor a file")
                if found.st_dev != top.st_dev:
                    raise NotYet(f"subPath {sub_path}: {name} is not in the volume")
        except BaseException:
            os.close(at)
            raise
        return at

    def _step(self, at: int, name: str, mode: int, make: bool) -> int:
        """The descriptor of what is there by that name, not of what it links to."""
        try:
            return os.open(name, _FOLLOWS_NONE, dir_fd=at)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, mode=0o700, dir_fd=at)
        made = os.open(name, _MADE, dir_fd=at)
        try:
            # Were it another by now, that would be the agent's own as well.
            if self.owner >= 0:
                os.fchown(made, self.owner, self.owner)
            os.fchmod(made, mode & 0o1777)
        except BaseException:
            os.close(made)
            raise
        return made


def names_of(sub_path: str) -> list[str]:
    """The names that it goes through. Raises ConfigError, in the kubelet's words, where it leaves."""
    if sub_path.startswith("/"):
        raise ConfigError(f"error SubPath `{sub_path}` must not be an absolute path")
    names = sub_path.split("/")
    if ".." in names:
        raise ConfigError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")
    if len(sub_path.encode(errors="surrogateescape")) >= PATH_MAX or "\0" in sub_path:
        raise ConfigError("subPath is too long, or no path")
    return [each for each in names if each not in {"", "."}]


def _stand_in(target: Path, *, directory: bool) -> None:
    """Something of its kind for it to be mounted on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink(missing_ok=True)
    if directory:
        target.mkdir(mode=0o700)
    else:
        target.touch(mode=0o600)


def release(parts: Path) -> None:
    """Unmounts everything in the directory. Raises OSError when something stays."""
    try:
        found = list(parts.iterdir())
    except FileNotFoundError:
        return
    for each in found:
        tmpfs.unmount(each)
