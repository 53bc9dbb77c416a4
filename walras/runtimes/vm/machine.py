"""One pod's virtual machine, from its first container to its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from walras.runtimes.base import ContainerSpec, ExitStatus, Limits, Mount, PodRef, Process, StartError, Stream
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.sandbox import uid_of
from walras.runtimes.vm.channel import Channel
from walras.runtimes.vm.monitor import Monitor
from walras.runtimes.vm.parts import Parts
from walras.runtimes.vm.qemu import (
    AGENT_SOCKET,
    MONITOR_SOCKET,
    Accelerator,
    Disk,
    Nic,
    Shape,
    command,
    sandbox_mounts,
)

log = structlog.get_logger(__name__)

BOOT_S: Final = 120.0
_CONSOLE_BYTES: Final = 4096
_WORDS_MAX: Final = 600
CONTAINER: Final = "vm"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a machine is made of and how large it is. `volumes` are all that its containers may mount."""

    parts: Parts
    initramfs: Path
    accelerator: Accelerator
    shape: Shape
    volumes: tuple[Mount, ...] = ()
    disks: tuple[Disk, ...] = ()
    nic: Nic | None = None


class Machine:
    """A guest that runs. `channel` leads to its first process; `ended` is the machine's own end."""

    def __init__(
        self,
        plan: Plan,
        process: Process,
        channel: Channel,
        monitor: Monitor,
        run: Path,
        console: bytearray,
    ) -> None:
        self.plan, self.channel, self.monitor = plan, channel, monitor
        self._process, self._run, self._console = process, run, console
        # What the guest said that it may not say, for which it was ended.
        self._fault = ""
        self._reading = asyncio.ensure_future(channel.run())
        self.ended = asyncio.ensure_future(self._watch())

    @property
    def over(self) -> bool:
        return self.ended.done()

    async def ready(self, timeout_s: float) -> None:
        """Returns when the guest's first process is there. Raises StartError."""
        ready = self.channel.ready
        await asyncio.wait((ready, self.ended), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            return
        why = "ends before it is ready" if self.ended.done() else f"is not ready after {timeout_s:.0f} s"
        raise StartError(f"the virtual machine {why}{self.last_words()}")

    def last_words(self) -> str:
        """Why it had to end and the end of what the console said, to be appended to a message."""
        words = [each for each in (self._fault, _end_of(self._console)) if each]
        return f": {': '.join(words)}" if words else ""

    async def _watch(self) -> ExitStatus:
        ending = asyncio.ensure_future(self._process.wait())
        await asyncio.wait((ending, self._reading), return_when=asyncio.FIRST_COMPLETED)
        if self._reading.done() and (fault := self._reading.result()):
            self._fault = fault
            log.warning("machine ended", why=fault)
        if not ending.done():
            await self._process.kill()
        status = await ending
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading
        self.channel.close(ExitStatus(137, status.oom_killed))
        self.monitor.close()
        shutil.rmtree(self._run, ignore_errors=True)
        return status

    async def kill(self) -> None:
        """Ends it at once; returns when nothing is left."""
        await self._process.kill()
        await asyncio.shield(self.ended)


def _end_of(console: bytearray) -> str:
    return " ".join(console.decode(errors="replace").split())[-_WORDS_MAX:]


async def boot(runtime: ProcessRuntime, plan: Plan, pod: PodRef, runs: Path, timeout_s: float) -> Machine:
    """Starts the machine in a sandbox of the process runtime; returns when it is ready. Raises StartError."""
    owner = uid_of(pod.cluster) if runtime.separates_users else -1
    console = bytearray()

    def hear(_: Stream, data: bytes) -> None:
        console.extend(data)
        del console[:-_CONSOLE_BYTES]

    limits = Limits(memory_bytes=plan.shape.limit_bytes)
    with ExitStack() as undone:
        run = _make_run(runs, owner)
        undone.callback(shutil.rmtree, run, ignore_errors=True)
        spec = ContainerSpec(
            pod=pod,
            name=CONTAINER,
            attempt=0,
            command=command(plan.parts, plan.accelerator, plan.shape, plan.disks, plan.nic),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            mounts=sandbox_mounts(plan.parts, plan.initramfs, run, plan.volumes, plan.disks),
            devices=("/dev/kvm",) if plan.accelerator == "kvm" else (),
            inherited=(plan.nic.descriptor,) if plan.nic is not None else (),
            limits=limits,
        )
        with _listen(run, AGENT_SOCKET, owner) as listener:
            monitor = Monitor(_listen(run, MONITOR_SOCKET, owner))
            undone.callback(monitor.close)
            process = await runtime.start(spec, hear, limits)
            try:
                channel = await _accept(listener, process)
            except BaseException as error:
                await process.kill()
                if isinstance(error, (OSError, TimeoutError)):
                    why = _end_of(console) or error
                    raise StartError(f"the virtual machine does not start: {why}") from error
                raise
        undone.pop_all()
    machine = Machine(plan, process, channel, monitor, run, console)
    try:
        await machine.ready(timeout_s)
    except BaseException:
        await machine.kill()
        raise
    return machine


def _make_run(runs: Path, owner: int) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(dir=runs))
    if owner >= 0:
        os.chown(run, owner, owner)
    return run


def _listen(run: Path, name: str, owner: int) -> socket.socket:
    """A socket that QEMU connects to; made before there is anybody who could put another in its place."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    directory = os.open(run, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The names of sockets are short, folders' may be long.
        made.bind(f"/proc/self/fd/{directory}/{name}")
        if owner >= 0:
            os.chown(run / name, owner, owner)
        made.listen(1)
    except BaseException:
        made.close()
        raise
    finally:
        os.close(directory)
    return made


async def _accept(listener: socket.socket, process: Process) -> Channel:
    """Raises OSError when QEMU ends before it connects, TimeoutError."""
    loop = asyncio.get_running_loop()
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    ending = asyncio.ensure_future(process.wait())
    try:
        done, _ = await asyncio.wait((accepting, ending), timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError("QEMU does not connect")
        if not accepting.done():
            raise OSError(f"it ends with exit code {ending.result().code}")
    finally:
        for each in (accepting, ending):
            each.cancel()
    made, _ = accepting.result()
    return Channel(*await asyncio.open_unix_connection(sock=made))


def place_of(mount: Mount, volumes: Sequence[Mount]) -> str | None:
    """Where the guest finds what the mount names, below its share; None when it is in no volume."""
    for number, volume in enumerate(volumes):
        if mount.source == volume.source or mount.source.startswith(volume.source + "/"):
            return f"volumes/{number}{mount.source.removeprefix(volume.source)}"
    return None
