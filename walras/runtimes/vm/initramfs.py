"""The guest's first file system: busybox, kernel modules and its first process, as one cpio archive."""

from __future__ import annotations

import hashlib
import importlib.util
import lzma
import marshal
import os
import shlex
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from walras.runtimes.sandbox import python_prefixes
from walras.runtimes.vm.parts import Kernel, Parts

# In the order in which they need each other; one that is built into the kernel has no file.
MODULES: Final = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_console",
    "virtio_blk", "failover", "net_failover", "virtio_net", "fuse", "virtiofs",
)  # fmt: skip
SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SOURCES: Final = ("__init__", "agent", "programs", "roots", "streams", "wire")
_PACKAGES: Final = ("walras", "walras/runtimes", "walras/runtimes/vm")
_DIRECTORY, _FILE, _LINK, _DEVICE = 0o40755, 0o100644, 0o120777, 0o20600
_USERS: Final = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP: Final = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
_HOSTS: Final = "127.0.0.1 localhost\n::1 localhost\n"


class Archive:
    """A cpio archive in the "newc" format of the kernel's early userspace (initramfs buffer format)."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._count = 0
        self._made: set[str] = set()

    def add(self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._count += 1
        numbers = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        self._data += b"070701" + b"".join(b"%08X" % each for each in numbers)
        for part in (name.encode() + b"\0", data):
            self._data += part
            self._data += bytes(-len(self._data) % 4)

    def directory(self, path: str) -> None:
        """Makes it with all above it, once."""
        parts = path.split("/")
        for each in ("/".join(parts[:end]) for end in range(1, len(parts) + 1)):
            if each not in self._made:
                self._made.add(each)
                self.add(each, _DIRECTORY)

    def file(self, path: str, data: bytes, mode: int = _FILE) -> None:
        if "/" in path:
            self.directory(path.rpartition("/")[0])
        self.add(path, mode, data)

    def link(self, path: str, target: str) -> None:
        self.add(path, _LINK, target.encode())

    def finished(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._data)


def build(parts: Parts) -> bytes:
    """The archive. Raises OSError."""
    archive = Archive()
    for name in ("proc", "sys", "dev", "containers", ".share"):
        archive.directory(name)
    archive.add("dev/console", _DEVICE, device=(5, 1))
    archive.file("bin/busybox", Path(parts.busybox).read_bytes(), 0o100755)
    archive.link("bin/sh", "busybox")
    for number, (name, data) in enumerate(modules(parts.kernel)):
        archive.file(f"modules/{number:02}-{name}.ko", data)
    python = os.path.realpath(sys.executable)
    script = files("walras.runtimes.vm.guest").joinpath("init.sh").read_text()
    archive.file("init", script.replace("@PYTHON@", shlex.quote(python)).encode(), 0o100755)
    for name, data in _programs():
        archive.file(name, data)
    _base(archive)
    # The first process lives outside the share, and finds Python in it.
    for top in sorted({each.split("/")[1] for each in (*python_prefixes(), "/usr")}):
        archive.link(top, f"/.share/root/{top}")
    for name in SYSTEM[1:]:
        if os.path.lexists(f"/{name}"):
            inside = os.readlink(f"/{name}").lstrip("/") if os.path.islink(f"/{name}") else name
            archive.link(name, f"/.share/root/{inside}")
    return archive.finished()


def _base(archive: Archive) -> None:
    """What containers see below everything else: places, and links where this machine has links."""
    for name in ("proc", "sys", "dev", "tmp", "run", "root", "home", "var/tmp", "etc", "mnt", "opt", "srv"):
        archive.directory(f"base/{name}")
    for name in SYSTEM:
        if os.path.islink(f"/{name}"):
            archive.link(f"base/{name}", os.readlink(f"/{name}"))
    for name, text in (("passwd", _USERS), ("group", _GROUP), ("hosts", _HOSTS)):
        archive.file(f"base/etc/{name}", text.encode())


def _programs() -> Iterator[tuple[str, bytes]]:
    """The guest's own Python, compiled, since a guest under emulation is slow to do so."""
    package = files("walras.runtimes.vm.guest")
    for name in _SOURCES:
        yield (
            f"agent/walras/runtimes/vm/guest/{name}.pyc",
            _compiled(package.joinpath(f"{name}.py").read_text()),
        )
    for name in _PACKAGES:
        yield f"agent/{name}/__init__.pyc", _compiled("")
    yield "walras/cloud_init.py", package.joinpath("cloud_init.py").read_bytes()


def _compiled(source: str) -> bytes:
    # Flags 0, then a time and a size that nobody compares: there is no source beside it.
    code = compile(source, "guest", "exec", dont_inherit=True, optimize=1)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def modules(kernel: Kernel) -> Iterator[tuple[str, bytes]]:
    """The modules that the kernel does not have built in. Raises OSError."""
    for name in MODULES:
        path = kernel.module(name)
        if path is not None:
            data = path.read_bytes()
            yield name, lzma.decompress(data) if path.suffix == ".xz" else data


def cached(parts: Parts, directory: Path) -> Path:
    """The archive as a file, made anew when anything of it has changed. Raises OSError."""
    data = build(parts)
    path = directory / f"initramfs-{hashlib.sha256(data).hexdigest()[:16]}"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("initramfs-*"):
            old.unlink(missing_ok=True)
        fresh = directory / f".initramfs-{os.getpid()}"
        fresh.write_bytes(data)
        fresh.chmod(0o644)
        fresh.replace(path)
    return path
