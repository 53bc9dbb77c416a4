"""The command line of a machine, and what its sandbox sees. Pure but for looking at what exists."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from walras.runtimes.base import Limits, Mount
from walras.runtimes.network.links import ROUTER
from walras.runtimes.sandbox import INHERITED_FD, etc_files, python_prefixes
from walras.runtimes.vm.guest import wire
from walras.runtimes.vm.initramfs import SYSTEM
from walras.runtimes.vm.parts import Parts
from walras.tenants.virtual.words import DISK_QCOW2, DISK_RAW

Accelerator = Literal["kvm", "tcg"]

MIB: Final = 1 << 20
DEFAULT_MEMORY_BYTES: Final = 512 * MIB
# What a guest's kernel and first process take of its memory, and QEMU and virtiofsd beside it.
GUEST_OWN_BYTES: Final = 112 * MIB
QEMU_OWN_BYTES: Final = 144 * MIB
OVERHEAD: Final = {"memory": f"{(GUEST_OWN_BYTES + QEMU_OWN_BYTES) // MIB}Mi"}
CPUS_MAX: Final = 64
RUN: Final = "/run/vm"
AGENT_SOCKET: Final = "agent"
MONITOR_SOCKET: Final = "monitor"
_SHARE: Final = "/share"
_DISKS: Final = "/machine/disks"
_KERNEL, _INITRAMFS = "/machine/kernel", "/machine/initramfs"
# No port but the console is looked for, no test of one's own code is made, and the end is an end. The timer
# is not tested: an emulated one fails when the host is busy at the wrong moment, and the kernel panics.
_KERNEL_WORDS: Final = (
    "console=ttyS0 panic=-1 reboot=t quiet mitigations=off nokaslr audit=0 cryptomgr.notests "
    "8250.nr_uarts=1 i8042.noprobe no_timer_check"
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file in the volume at `source` as a block device.

    One with a size is made, sparse, when it is not there.
    """

    name: str
    source: str
    size_bytes: int
    format: Literal["raw", "qcow2"] = "raw"


@dataclass(frozen=True, slots=True)
class Nic:
    """A device of the pods' network: the descriptor of its other end, which QEMU inherits, and addresses."""

    descriptor: int
    hardware_address: str
    address: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a machine is. `limit_bytes` is what QEMU and all of it may take of this machine."""

    memory_bytes: int
    cpus: int

    @property
    def limit_bytes(self) -> int:
        return self.memory_bytes + QEMU_OWN_BYTES


def shape_of(pod: Limits) -> Shape:
    """A machine in which the pod's containers can use what they may, beside the guest's own."""
    wanted = pod.memory_bytes or DEFAULT_MEMORY_BYTES
    memory = -(-(wanted + GUEST_OWN_BYTES) // MIB) * MIB
    cpus = max(1, min(-(-(pod.cpu_milli or 1000) // 1000), os.cpu_count() or 1, CPUS_MAX))
    return Shape(memory, cpus)


def command(
    parts: Parts,
    accelerator: Accelerator,
    shape: Shape,
    disks: Sequence[Disk] = (),
    nic: Nic | None = None,
) -> tuple[str, ...]:
    """What runs in the sandbox: virtiofsd, and QEMU when that listens."""
    share = [
        "unshare", "--map-root-user", "--", parts.virtiofsd, "-f", f"--socket-path={RUN}/share",
        "-o", f"source={_SHARE}", "-o", "sandbox=chroot", "-o", "cache=auto",
        "--rlimit-nofile=0",
    ]  # fmt: skip
    made = [
        f"[ -e {_image(disk)} ] || truncate -s {disk.size_bytes} {_image(disk)} || exit 1"
        for disk in disks
        if disk.size_bytes
    ]
    script = [
        *made,
        f"{shlex.join(share)} 2>{RUN}/share.log {INHERITED_FD}>&- &",
        f"while [ ! -S {RUN}/share ]; do kill -0 $! || break; sleep 0.01; done",
        f"[ -S {RUN}/share ] || {{ cat {RUN}/share.log >&2; exit 1; }}",
        f"exec {shlex.join(_qemu(parts, accelerator, shape, disks, nic))}",
    ]
    return ("/bin/sh", "-c", "\n".join(script))


def _image(disk: Disk) -> str:
    return f"{_DISKS}/{disk.name}/{DISK_RAW if disk.format == 'raw' else DISK_QCOW2}"


def _qemu(
    parts: Parts, accelerator: Accelerator, shape: Shape, disks: Sequence[Disk], nic: Nic | None
) -> Iterator[str]:
    memory = f"{shape.memory_bytes // MIB}M"
    emulated = accelerator == "tcg"
    yield from (
        parts.qemu, "-machine", "q35,smbus=off,sata=off,usb=off,vmport=off,hpet=off,memory-backend=memory",
        "-accel", "tcg,thread=multi,tb-size=64" if emulated else "kvm", "-cpu", "max" if emulated else "host",
        "-smp", str(shape.cpus), "-m", memory,
        "-object", f"memory-backend-memfd,id=memory,size={memory},share=on",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-kernel", _KERNEL, "-initrd", _INITRAMFS, "-append", _kernel_words(nic),
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-chardev", f"socket,id=share,path={RUN}/share",
        "-device", "vhost-user-fs-pci,chardev=share,tag=share",
        "-chardev", f"socket,id=agent,path={RUN}/{AGENT_SOCKET}", "-device", "virtio-serial-pci,max_ports=2",
        "-device", f"virtserialport,chardev=agent,name={wire.PORT}",
        "-chardev", f"socket,id=monitor,path={RUN}/{MONITOR_SOCKET}", "-mon", "chardev=monitor,mode=control",
    )  # fmt: skip
    if nic is not None:
        yield from (
            "-netdev", f"tap,id=net,fd={INHERITED_FD}",
            "-device", f"virtio-net-pci,netdev=net,mac={nic.hardware_address},romfile=",
        )  # fmt: skip
    for number, disk in enumerate(disks):
        yield from (
            "-drive", f"if=none,id=disk{number},format={disk.format},file={_image(disk)}",
            "-device", f"virtio-blk-pci,drive=disk{number},serial={disk.name[:20]}",
        )  # fmt: skip


def _kernel_words(nic: Nic | None) -> str:
    if nic is None:
        return _KERNEL_WORDS
    # What the kernel has no use for is in the environment of its first process.
    return f"{_KERNEL_WORDS} WALRAS_ADDRESS={nic.address} WALRAS_ROUTER={ROUTER}"


def sandbox_mounts(
    parts: Parts, initramfs: Path, run: Path, volumes: Sequence[Mount], disks: Sequence[Disk] = ()
) -> tuple[Mount, ...]:
    """What the sandbox of QEMU and virtiofsd sees beside what every pod's does.

    `volumes` are seen by the guest below volumes/, in their order.
    """
    found = [
        Mount(str(parts.kernel.image), _KERNEL, True),
        Mount(str(initramfs), _INITRAMFS, True),
        Mount(str(run), RUN),
        # Where virtiofsd of QEMU 7 keeps a lock beside its socket.
        Mount(str(run), "/var/run/virtiofsd"),
    ]
    found += (Mount(each, f"{_SHARE}/root{each}", True) for each in _shared())
    found += (
        Mount(volume.source, f"{_SHARE}/volumes/{number}", volume.read_only)
        for number, volume in enumerate(volumes)
    )
    found += (Mount(disk.source, f"{_DISKS}/{disk.name}") for disk in disks)
    return tuple(found)


def _shared() -> Iterator[str]:
    yield "/usr"
    for name in SYSTEM:
        if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
            yield f"/{name}"
    for name in etc_files():
        if os.path.exists(f"/etc/{name}"):
            yield f"/etc/{name}"
    yield from python_prefixes()
