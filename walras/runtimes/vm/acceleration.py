"""Whether machines run on this host's processors (KVM) or are emulated (TCG), found out by one that runs."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import structlog

from walras.runtimes.base import ContainerSpec, Limits, Mount, PodRef, StartError, Stream
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.vm import initramfs
from walras.runtimes.vm.machine import Plan, boot
from walras.runtimes.vm.parts import Parts
from walras.runtimes.vm.qemu import Accelerator, shape_of

log = structlog.get_logger(__name__)

Wanted = Accelerator | None
DEVICE: Final = Path("/dev/kvm")
_POD: Final = PodRef("probe", "probe", "probe-kvm", "probe")
_WAIT_S: Final = 2.0
_BOOT_S: Final = 8.0
_MEMORY_BYTES: Final = 64 << 20
# A BIOS whose first instructions, at the processor's first address, are: mov al, 16; out 0xf4, al; hlt.
# The device at port 0xf4 ends QEMU with twice the value and one.
_ROM_BYTES: Final = 65_536
_FIRST: Final = 0xFFF0
_PROGRAM: Final = bytes((0xB0, 0x10, 0xE6, 0xF4, 0xF4))
_SUCCESS: Final = 33


class Choice:
    """Made once, when the first machine is to start; `wanted` is not questioned."""

    def __init__(self, runtime: ProcessRuntime, parts: Parts, directory: Path, wanted: Wanted) -> None:
        self._runtime, self._parts, self._directory = runtime, parts, directory
        self._made: Accelerator | None = wanted
        self._lock = asyncio.Lock()
        # What the owners of machines should know, once it is known.
        self.slow = ""

    async def made(self) -> Accelerator:
        async with self._lock:
            if self._made is None:
                why = await kvm_fault(self._runtime, self._parts, self._directory)
                self._made = "tcg" if why else "kvm"
                self.slow = f"The virtual machine is emulated, which is slow: {why}" if why else ""
                log.info("machines are emulated" if why else "machines are accelerated", why=why)
            return self._made


def tried(parts: Parts) -> str:
    """As `kvm_fault`, beside a server that may be running. Needs no event loop."""

    async def run() -> str:
        runtime = ProcessRuntime(Path(directory))
        await runtime.open()
        try:
            return await kvm_fault(runtime, parts, Path(directory))
        finally:
            await runtime.close()

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(run())


async def kvm_fault(runtime: ProcessRuntime, parts: Parts, directory: Path) -> str:
    """Why guests cannot run by KVM; "" when one did, in the sandbox that machines run in."""
    if not DEVICE.exists():
        return f"no {DEVICE}"
    try:
        # What fails fails sooner with the smallest guest; what hangs may do so only with a whole one.
        return await smallest(runtime, parts, directory, "kvm") or await boots(
            runtime, parts, directory, "kvm"
        )
    finally:
        await runtime.remove_pod(_POD)
        await runtime.remove_node(_POD.cluster, _POD.node)


async def boots(runtime: ProcessRuntime, parts: Parts, directory: Path, by: Accelerator) -> str:
    """Why a machine does not come up soon; "" when one did."""
    try:
        archive = await asyncio.to_thread(initramfs.cached, parts, directory)
        plan = Plan(parts, archive, by, shape_of(Limits(memory_bytes=_MEMORY_BYTES)))
        machine = await boot(runtime, plan, _POD, directory / "run", _BOOT_S)
    except (OSError, StartError) as error:
        return str(error)
    await machine.kill()
    return ""


async def smallest(runtime: ProcessRuntime, parts: Parts, directory: Path, by: Accelerator) -> str:
    """Why a guest of five instructions does not end by itself; "" when it did."""
    said = bytearray()

    def hear(_: Stream, data: bytes) -> None:
        said.extend(data[:1000])

    rom = await asyncio.to_thread(_write_rom, directory)
    argv = (
        parts.qemu, "-machine", "q35", "-accel", by, "-cpu", "host" if by == "kvm" else "max", "-m", "16M",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-bios", "/machine/probe",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
    )  # fmt: skip
    env, devices = {"PATH": "/usr/bin:/bin"}, (str(DEVICE),)
    mounts = (Mount(str(rom), "/machine/probe", True),)
    spec = ContainerSpec(_POD, "probe", 0, argv, env, mounts=mounts, devices=devices if by == "kvm" else ())
    try:
        process = await runtime.start(spec, hear, Limits())
    except StartError as error:
        return error.message
    ending = asyncio.ensure_future(process.wait())
    await asyncio.wait((ending,), timeout=_WAIT_S)
    done = ending.done()
    await process.kill()
    code = (await ending).code
    if not done:
        return f"{DEVICE} is there, but a guest hangs"
    words = " ".join(said.decode(errors="replace").split())
    return "" if code == _SUCCESS else words or f"QEMU ends with exit code {code}"


def _write_rom(directory: Path) -> Path:
    rom = directory / "probe.rom"
    directory.mkdir(parents=True, exist_ok=True)
    rom.write_bytes(bytes(_FIRST) + _PROGRAM.ljust(_ROM_BYTES - _FIRST, b"\xf4"))
    rom.chmod(0o644)
    return rom
