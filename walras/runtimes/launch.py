"""One program on its way into its sandbox, until it runs or it is known why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, Limits, Output, StartError, Stream
from walras.runtimes.plain import end_session, mark_of
from walras.runtimes.sandbox import FAILED, NO_LIMITS, STARTED, Place, Sandbox, environment_script
from walras.runtimes.spawn import Handle, Pump, Spawner, open_handle, read_to_line

_COMPLAINT_MAX: Final = 2000


@dataclass
class Launched:
    """The child that was started (`monitor`), the first process of its pid namespace, the program itself."""

    popen: subprocess.Popen[bytes]
    monitor: Handle
    init: Handle | None
    main: Handle | None
    pumps: tuple[Pump, Pump]
    mark: str

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
        for handle in (self.monitor, self.init, self.main):
            if handle is not None:
                handle.close()


class _Witness:
    """Passes output on, and remembers what is said before the program runs: that is the sandbox speaking."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.complaint: bytearray | None = bytearray()

    def __call__(self, stream: Stream, data: bytes) -> None:
        if self.complaint is None:
            self._output(stream, data)
        elif len(self.complaint) < _COMPLAINT_MAX:
            self.complaint += data

    def release(self) -> None:
        early, self.complaint = bytes(self.complaint or b""), None
        if early:
            self._output("stderr", early)


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
    progress, tell = os.pipe2(os.O_CLOEXEC)
    out, out_in = os.pipe2(os.O_CLOEXEC)
    err, err_in = os.pipe2(os.O_CLOEXEC)
    environment = -1
    try:
        if not plain:
            environment = _memory_file(environment_script(spec.env))
        argv = sandbox.command(spec, entrances, environment_fd=environment, place=place, rlimits=rlimits)
        popen = await spawner.start(
            argv,
            spec.env if plain else {"PATH": "/usr/bin:/bin"},
            (tell, out_in, err_in),
            place.namespace,
            inherited=spec.inherited if plain else (environment, *spec.inherited),
        )
    except BaseException:
        for fd in (progress, out, err):
            os.close(fd)
        raise
    finally:
        for fd in (tell, out_in, err_in, environment):
            if fd >= 0:
                os.close(fd)
    witness = _Witness(output)
    pumps = Pump(out, "stdout", witness), Pump(err, "stderr", witness)
    monitor = Handle(popen.pid)
    try:
        said = (await read_to_line(progress)).decode(errors="replace")
    finally:
        os.close(progress)
    if said == STARTED:
        init, main = _inside(popen.pid, plain)
        witness.release()
        return Launched(popen, monitor, init, main, pumps, mark_of(spec))
    await monitor.ended()
    popen.poll()
    for pump in pumps:
        pump.finish()
    raise StartError(_why(said, bytes(witness.complaint or b""), popen.returncode))


def _why(said: str, complaint: bytes, code: int | None) -> str:
    if said.startswith(FAILED):
        return said.removeprefix(FAILED)
    words = " ".join(complaint.decode(errors="replace").split())
    return words or f"the sandbox ended with exit code {code} before the program ran"


def _inside(pid: int, plain: bool) -> tuple[Handle | None, Handle | None]:
    if plain:
        return None, open_handle(pid)
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
