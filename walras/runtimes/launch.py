"""One program on its way into its sandbox, until it runs or it is known why it cannot."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, Limits, Output, StartError, Stream, Wish
from walras.runtimes.entering import Files, opened
from walras.runtimes.plain import end_session, mark_of
from walras.runtimes.sandbox import (
    FAILED,
    INHERITED_FD,
    NO_LIMITS,
    STARTED,
    Place,
    Sandbox,
    environment_script,
    uid_of,
)
from walras.runtimes.spawn import (
    Handle,
    Pump,
    Spawner,
    exit_code,
    open_handle,
    read_to_line,
    take_away,
)

_COMPLAINT_MAX: Final = 2000
# What the program may say before it is noticed that it runs.
_EARLY_MAX: Final = 1 << 20


@dataclass
class Launched:
    """The child that was started (`monitor`), the first process of its pid namespace, the program itself."""

    monitor: Handle
    init: Handle | None
    main: Handle | None
    pumps: tuple[Pump, ...]
    # The way to its input.
    files: Files
    mark: str

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to enter."""
        return (self.init or self.monitor).has_ended

    def code(self) -> int:
        """The exit code, negative for a signal, once the monitor has ended; asked for once."""
        return exit_code(self.monitor.pid)

    def pids(self) -> list[int]:
        """The program's processes, without bubblewrap's own."""
        if self.init is not None:
            return procfs.descendants(self.init.pid)
        return [self.monitor.pid, *procfs.descendants(self.monitor.pid)]

    def cpu_ns(self) -> int:
        """CPU time of all of it, also of what ended inside; after the end, of what can still be seen."""
        first = self.monitor.pid if self.init is None else self.init.pid
        return sum(procfs.cpu_ns(pid) for pid in (first, *procfs.descendants(first)))

    async def kill(self) -> None:
        """SIGKILL to all that can be found without a cgroup; returns when nothing is found any more."""
        if self.init is None:
            await end_session(self.monitor.pid, self.mark)
            return
        self.monitor.signal(signal.SIGKILL)
        # The first process of a pid namespace ends after all others in it.
        self.init.signal(signal.SIGKILL)
        await self.init.ended()

    def close(self) -> None:
        for pump in self.pumps:
            pump.finish()
        self.files.close()
        for handle in (self.monitor, self.init, self.main):
            if handle is not None:
                handle.close()


class Witness:
    """Passes output on, and remembers what is said before the program runs: that is the sandbox speaking."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._early: list[tuple[Stream, bytes]] | None = []

    def __call__(self, stream: Stream, data: bytes) -> None:
        if self._early is None:
            self._output(stream, data)
        elif sum(len(said) for _, said in self._early) < _EARLY_MAX:
            self._early.append((stream, data))

    @property
    def complaint(self) -> bytes:
        return b"".join(said for _, said in self._early or ())

    def release(self) -> None:
        """What was said so far was the program's own."""
        early, self._early = self._early, None
        for stream, said in early or ():
            self._output(stream, said)


async def launch(
    spawner: Spawner,
    sandbox: Sandbox,
    spec: ContainerSpec,
    entrances: Sequence[str],
    place: Place,
    output: Output,
    *,
    rlimits: Limits = NO_LIMITS,
) -> Launched:
    """Returns when the program has been found and takes over. Raises StartError and OSError."""
    plain = sandbox.mode == "plain"
    files, progress, tell = opened(Wish(stdin=spec.stdin, stdout=True, stderr=True, tty=spec.tty))
    environment: list[int] = []
    try:
        if sandbox.mode == "root":
            files.give(uid_of(spec.pod.cluster))
        if not plain:
            environment.append(_memory_file(environment_script(spec.env)))
        argv = sandbox.command(spec, entrances, place=place, rlimits=rlimits)
        env = spec.env if plain else {"PATH": "/usr/bin:/bin"}
        given = [*files.theirs, tell, *environment]
        if spec.inherited:
            # What LAUNCH closes stands in the places between.
            given += [tell] * (INHERITED_FD - len(given)) + list(spec.inherited)
        pid = await spawner.spawn(argv, env, given, place.namespace)
    except BaseException:
        os.close(progress)
        files.close()
        raise
    finally:
        for fd in (tell, *environment):
            os.close(fd)
    files.close_theirs()
    witness = Witness(output)
    pumps = tuple(Pump(fd, stream, witness) for stream, fd in files.output.items())
    files.output = {}
    monitor = Handle(pid)
    try:
        try:
            said = (await read_to_line(progress)).decode(errors="replace")
        finally:
            os.close(progress)
        if said == STARTED:
            init, main = _inside(pid, plain, spec.tty)
            witness.release()
            return Launched(monitor, init, main, pumps, files, mark_of(spec))
        await monitor.ended()
    except BaseException:
        # Nobody waits for it any more: its caller clears away what it was to run in.
        monitor.close()
        take_away(pid)
        _close(pumps, files)
        raise
    code = exit_code(pid)
    _close(pumps, files)
    raise StartError(_why(said, witness.complaint, code))


def _close(pumps: Sequence[Pump], files: Files) -> None:
    for pump in pumps:
        pump.finish()
    files.close()


def _why(said: str, complaint: bytes, code: int) -> str:
    if said.startswith(FAILED):
        return said.removeprefix(FAILED)
    words = " ".join(complaint[:_COMPLAINT_MAX].decode(errors="replace").split())
    return words or f"the sandbox ended with exit code {code} before the program ran"


def _inside(pid: int, plain: bool, tty: bool) -> tuple[Handle | None, Handle | None]:
    if plain:
        # A session of a terminal is begun by a child.
        below = procfs.children(pid) if tty else []
        return None, open_handle(below[0] if below else pid)
    below = procfs.children(pid)
    init = open_handle(below[0]) if below else None
    programs = procfs.children(below[0]) if below else []
    return init, open_handle(programs[0]) if programs else None


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("environment", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
