"""The vm runtime: a virtual machine a pod, run by QEMU in a sandbox of the process runtime."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import structlog

from walras.core.errors import ServiceUnavailable
from walras.runtimes.base import (
    ContainerSpec,
    CreateError,
    Limits,
    Mount,
    Output,
    PodRef,
    Session,
    StartError,
    Stream,
    Traits,
    Wish,
)
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.shares import Shares, Sharing
from walras.runtimes.vm import acceleration, container, initramfs
from walras.runtimes.vm.container import VmContainer
from walras.runtimes.vm.disks import disks_of
from walras.runtimes.vm.guest import wire
from walras.runtimes.vm.machine import BOOT_S, Machine, Plan, boot
from walras.runtimes.vm.parts import Parts
from walras.runtimes.vm.qemu import Nic, shape_of
from walras.runtimes.vm.session import Entered, Streams

log = structlog.get_logger(__name__)

NO_COMMAND: Final = (
    'container "{name}" has no command: the vm runtime runs programs of this machine and pulls no images '
    '(image "{image}")'
)
NO_DEVICES: Final = (
    "the vm runtime hands no devices of this machine to a guest: run the pod without runtimeClassName vm"
)
_AS_BOOTED: Final = "a virtual machine keeps the processors and the memory that it was started with"
_DIAL_S: Final = 10.0
# How long a connection in the guest may go on when whoever made it has hung up.
_LEFT_S: Final = 2.0


class _Pod:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.machine: Machine | None = None
        self.gone = False


class VmRuntime(Sharing):
    """See base.PodRuntime. `parts` are those of `parts.find`."""

    name = "vm"

    def __init__(
        self,
        data_dir: Path,
        parts: Parts,
        *,
        shares: Shares | None = None,
        accelerator: acceleration.Wanted = None,
    ) -> None:
        super().__init__(shares or Shares(data_dir))
        self._directory = data_dir.resolve() / "vm"
        self._parts = parts
        self._inner = ProcessRuntime(data_dir, shares=self.shares)
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._archive: Path | None = None
        self._archiving = asyncio.Lock()
        self._accelerator = acceleration.Choice(self._inner, parts, self._directory, accelerator)
        self._carrying: set[asyncio.Future[None]] = set()

    @property
    def separates_users(self) -> bool:
        return self._inner.separates_users

    @property
    def warnings(self) -> tuple[str, ...]:
        return ()

    def traits(self, pod: PodRef) -> Traits:
        networks = self.shares.networks
        networked = networks is not None and networks.available and not networks.no_taps
        env = self._inner.traits(pod).env
        return Traits(
            "vm", env, networked=networked, machine=True, slow=self._accelerator.slow, fixed=_AS_BOOTED
        )

    async def open(self) -> None:
        await self._inner.open()
        shutil.rmtree(self._directory / "run", ignore_errors=True)

    async def close(self) -> None:
        machines = [pod.machine for pod in self._pods.values() if pod.machine is not None]
        await asyncio.gather(*(each.kill() for each in machines))
        self._pods.clear()
        await self._inner.close()

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> VmContainer:
        if not spec.command:
            raise CreateError(NO_COMMAND.format(name=spec.name, image=spec.image))
        if spec.devices:
            raise CreateError(NO_DEVICES)
        pod = self._pods.setdefault(spec.pod.key, _Pod())
        async with pod.lock:
            if pod.gone:
                raise StartError("the pod is gone")
            if pod.machine is None or pod.machine.over:
                pod.machine = await self._boot(spec, pod_limits)
            machine = pod.machine
        return await container.start(machine, spec, output, pod_limits)

    async def _boot(self, spec: ContainerSpec, pod_limits: Limits) -> Machine:
        nic = None
        try:
            nic = await self._nic(spec.pod)
            plan = Plan(
                self._parts,
                await self._initramfs(),
                await self._accelerator.made(),
                shape_of(pod_limits),
                volumes=spec.volumes or _sources(spec.mounts),
                disks=disks_of(spec),
                nic=nic,
            )
            return await boot(self._inner, plan, spec.pod, self._directory / "run", BOOT_S)
        except OSError as error:
            raise StartError(f"the virtual machine cannot be made: {error}") from error
        finally:
            if nic is not None:
                # QEMU's copy is what keeps the device.
                os.close(nic.descriptor)

    async def _nic(self, pod: PodRef) -> Nic | None:
        """The machine's place in its agent's network, where the pod has one. Raises OSError."""
        networks = self.shares.networks
        found = networks.of(pod) if networks is not None else None
        if networks is None or found is None:
            return None
        tap = await networks.tap(pod)
        return Nic(tap, found.hardware_address, found.address) if tap >= 0 else None

    async def _initramfs(self) -> Path:
        # One at a time: who makes a new one clears all others away.
        async with self._archiving:
            if self._archive is None:
                self._archive = await asyncio.to_thread(initramfs.cached, self._parts, self._directory)
            return self._archive

    async def remove_pod(self, pod: PodRef) -> None:
        found = self._pods.get(pod.key)
        if found is not None:
            found.gone = True
            # One that boots ends too, and lets go of the lock.
            await self._inner.remove_pod(pod)
            async with found.lock:
                if found.machine is not None:
                    await found.machine.kill()
            self._pods.pop(pod.key, None)
        await self._inner.remove_pod(pod)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = self._pods.get(pod.key)
        if found is None or found.machine is None or found.machine.over:
            raise ServiceUnavailable(f'pod "{pod.name}" is not running')
        streams = Streams(("stdout",))
        try:
            async with asyncio.timeout(_DIAL_S):
                channel = found.machine.channel
                remote = await channel.open(wire.DIAL, port, streams.hear, streams.shut)
        except (StartError, TimeoutError) as error:
            why = str(error) or "no answer"
            raise ServiceUnavailable(f'pod "{pod.name}" does not answer on port {port}: {why}') from error
        session = Entered(streams, remote, Wish(stdin=True), lambda _: None)
        ours, theirs = socket.socketpair()
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            theirs.close()
            await session.close()
            raise
        task = asyncio.ensure_future(_carry(theirs, session, writer.wait_closed()))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return reader, writer


def _sources(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """What stands for the volumes of a pod when nobody names them: what its first container mounts."""
    return tuple({each.source: Mount(each.source, each.target, each.read_only) for each in mounts}.values())


async def _carry(end: socket.socket, session: Session, hung_up: Coroutine[Any, Any, None]) -> None:
    """Carries bytes between a socket and a connection in the guest until that has ended.

    A guest need not end it; so it ends soon after the other end of the socket has `hung_up`.
    """
    reader, writer = await asyncio.open_connection(sock=end)
    output: Stream = "stdout"

    async def inward() -> None:
        while data := await reader.read(wire.CHUNK):
            await session.write(data)
        session.end_input()

    async def outward() -> None:
        while data := await session.read(output):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    going, coming = asyncio.ensure_future(inward()), asyncio.ensure_future(outward())
    # Whoever hangs up may wait for that too.
    leaving = asyncio.shield(hung_up)
    try:
        await asyncio.wait((coming, leaving), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((coming,), timeout=_LEFT_S)
    finally:
        for each in (going, coming, leaving):
            each.cancel()
        await asyncio.gather(going, coming, leaving, return_exceptions=True)
        await session.close()
        writer.close()
