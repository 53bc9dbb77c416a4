"""A container inside a machine; see base.Process."""

from __future__ import annotations

import asyncio
import hashlib
from itertools import count
from typing import Any, Final

from walras.runtimes.attaching import Fan
from walras.runtimes.base import (
    ContainerSpec,
    ExitStatus,
    Limits,
    Mount,
    Output,
    Session,
    StartError,
    Stream,
    Wish,
)
from walras.runtimes.vm.channel import Remote
from walras.runtimes.vm.disks import is_disk
from walras.runtimes.vm.guest import wire
from walras.runtimes.vm.machine import Machine, place_of
from walras.runtimes.vm.session import Entered, Joined, Streams

# Programs that may be in one container at a time beside its own.
ENTERED_MAX: Final = 32
_KILL_S: Final = 3.0
_PIDS_MAX: Final = 1024
_NUMBERS = count(1)


class VmContainer:
    """See base.Process."""

    def __init__(self, machine: Machine, spec: ContainerSpec, remote: Remote, fan: Fan) -> None:
        self.id = hashlib.sha256(f"{spec.pod.uid}/{spec.name}/{next(_NUMBERS)}".encode()).hexdigest()
        self.spec, self.machine = spec, machine
        self._remote, self._fan = remote, fan
        self._entered: set[Entered] = set()
        self._entering = 0
        self._end = asyncio.ensure_future(self._watch())

    def signal(self, signum: int) -> None:
        if not self._end.done():
            self._remote.send(wire.SIGNAL, bytes((signum,)))

    def disk_bytes(self) -> int | None:
        # Its files are in the machine's memory.
        return 0

    async def kill(self) -> None:
        if self._end.done():
            return
        self._remote.send(wire.KILL)
        await asyncio.wait((self._end,), timeout=_KILL_S)
        if not self._end.done():
            # A guest that does not do as it is told has no more to say.
            await self.machine.kill()
        await asyncio.shield(self._end)

    async def pause(self, paused: bool) -> None:
        """See base.Pausable: of all containers of the machine."""
        await self.machine.monitor.pause(paused)

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self._end)

    async def _watch(self) -> ExitStatus:
        status = await self._remote.ended
        self._remote.forget()
        for each in list(self._entered):
            await each.close()
        return status

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        if self._end.done() or len(self._entered) + self._entering >= ENTERED_MAX:
            why = "the container has ended" if self._end.done() else f"{ENTERED_MAX} programs have entered it"
            raise StartError(why)
        outputs: list[Stream] = ["stdout"] if wish.stdout or wish.tty else []
        if wish.stderr and not wish.tty:
            outputs.append("stderr")
        streams = Streams(tuple(outputs))
        words = {
            "in": self._remote.number, "argv": list(argv), "env": {"TERM": "xterm"} if wish.tty else {},
            "tty": wish.tty, "stdin": wish.stdin, "stdout": wish.stdout, "stderr": wish.stderr,
        }  # fmt: skip
        # A guest may leave them waiting for as long as it likes.
        self._entering += 1
        try:
            remote = await self.machine.channel.open(wire.START, words, streams.hear, streams.shut)
        finally:
            self._entering -= 1
        session = Entered(streams, remote, wish, self._entered.discard)
        if self._end.done():
            # It ended while the program was on its way, and closed all that had entered by then.
            await session.close()
            raise StartError("the container has ended")
        self._entered.add(session)
        return session

    def attach(self, wish: Wish) -> Session:
        spec = self.spec
        return Joined(
            self._fan, wish, self._end, self._remote, once=spec.stdin_once, has_input=spec.stdin or spec.tty
        )


async def start(machine: Machine, spec: ContainerSpec, output: Output, pod_limits: Limits) -> VmContainer:
    """Starts the container's main program. Raises StartError."""
    fan = Fan(output)
    remotes: list[Remote] = []
    early: list[tuple[Stream, bytes]] = []

    def hear(stream: Stream, data: bytes) -> None:
        if not remotes:
            early.append((stream, data))
            return
        fan(stream, data)
        remotes[0].taken(stream, len(data))

    channel = machine.channel
    remote = await channel.open(wire.START, _words(machine, spec, pod_limits), hear, lambda _: None)
    remotes.append(remote)
    for stream, data in early:
        hear(stream, data)
    return VmContainer(machine, spec, remote, fan)


def _words(machine: Machine, spec: ContainerSpec, pod_limits: Limits) -> dict[str, Any]:
    limits = spec.limits
    mounts = sorted((each for each in spec.mounts if not is_disk(each)), key=lambda each: each.target)
    return {
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "directory": spec.working_dir or "/",
        "mounts": [_placed(machine, each) for each in mounts],
        # The machine's own, where its instance has given it one.
        "hostname": (spec.env.get("HOSTNAME") or spec.pod.name)[:63],
        "memory": limits.memory_bytes or 0,
        "pids": limits.pids or pod_limits.pids or _PIDS_MAX,
        "cpu": limits.cpu_milli or 0,
        "tty": spec.tty,
        "stdin": spec.stdin,
        "stdout": True,
        "stderr": not spec.tty,
    }


def _placed(machine: Machine, mount: Mount) -> tuple[str, str, bool]:
    place = place_of(mount, machine.plan.volumes)
    if place is None:
        raise StartError(f"{mount.target}: its volume came after the machine had been started")
    return place, mount.target, mount.read_only
