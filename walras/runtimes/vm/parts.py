"""What a virtual machine is made of, found on this machine: QEMU, virtiofsd, busybox, a kernel."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# A folder with boot/vmlinuz-* and lib/modules, as `dpkg-deb -x` of a kernel's package leaves it.
KERNEL_VARIABLE: Final = "WALRAS_VM_KERNEL"
ADVICE: Final = (
    "apt-get install qemu-system-x86 busybox-static linux-image-cloud-amd64, or name a folder with boot and "
    f"lib/modules of a kernel's package unpacked in ${KERNEL_VARIABLE}"
)
# Without which a guest finds neither its files nor the server.
MODULES_NEEDED: Final = frozenset(("virtio_pci", "virtio_console", "virtiofs"))
_VIRTIOFSD: Final = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")
_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel image and the directory of its modules."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        return self.modules.name

    def module(self, name: str) -> Path | None:
        """The file of a module; None when it is built in, or not there."""
        return _files(self.modules).get(name)

    def has(self, name: str) -> bool:
        if self.module(name) is not None:
            return True
        try:
            return f"/{name}.ko" in (self.modules / "modules.builtin").read_text()
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Parts:
    """Programs by path, and the kernel."""

    qemu: str
    virtiofsd: str
    busybox: str
    kernel: Kernel


@cache
def _files(modules: Path) -> dict[str, Path]:
    """Modules by name; of those that are compressed, what Python can read."""
    walked = (Path(at, name) for at, _, names in os.walk(modules / "kernel") for name in names)
    return {each.name.partition(".")[0]: each for each in walked if each.name.endswith((".ko", ".ko.xz"))}


def find() -> tuple[Parts | None, str]:
    """The parts, or None and which of them are missing."""
    qemu, unshare = shutil.which("qemu-system-x86_64"), shutil.which("unshare")
    virtiofsd = next((each for each in _VIRTIOFSD if os.access(each, os.X_OK)), "")
    busybox = next((each for each in ("/bin/busybox", "/usr/bin/busybox") if is_static(each)), "")
    kernel = next((each for each in kernels() if all(map(each.has, MODULES_NEEDED))), None)
    missing = [
        name
        for name, there in (
            ("qemu-system-x86_64", qemu), ("virtiofsd", virtiofsd), ("a static busybox", busybox),
            ("unshare of util-linux", unshare), ("bubblewrap", shutil.which("bwrap")),
            ("a kernel with virtiofs", kernel),
        )
        if not there
    ]  # fmt: skip
    if missing or kernel is None or qemu is None:
        return None, f"missing: {', '.join(missing)}"
    return Parts(qemu, virtiofsd, busybox, kernel), ""


def kernels() -> Iterator[Kernel]:
    """Kernels with their modules, Debian's for clouds first, newest first."""
    root = Path(os.environ.get(KERNEL_VARIABLE) or "/")
    found = []
    for image in root.glob("boot/vmlinuz-*"):
        version = image.name.removeprefix("vmlinuz-")
        modules = next(
            (each for at in ("lib/modules", "usr/lib/modules") if (each := root / at / version).is_dir()),
            None,
        )
        if modules is not None and os.access(image, os.R_OK):
            numbers = [int(each) for each in _NUMBER.findall(version)]
            found.append((version.endswith("-cloud-amd64"), numbers, Kernel(image, modules)))
    return (kernel for _, _, kernel in sorted(found, key=lambda each: each[:2], reverse=True))


def is_static(path: str) -> bool:
    """Whether it is an ELF program that asks for no interpreter (it names none in its first page)."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head.startswith(b"\x7fELF") and b"/ld-linux" not in head
