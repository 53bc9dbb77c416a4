"""The MPS control daemon of one card: started, asked, bounded and stopped, as NVIDIA's MPS manual has it.

The daemon starts a server when the first client comes. What a client may use is in its environment
(`environment.gpu`), which a program could change; what the daemon is told here is what none can go beyond.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from walras.core.errors import InternalError

PROGRAM: Final = "nvidia-cuda-mps-control"
_SERVER: Final = b"mps"
PID_FILE: Final = "nvidia-cuda-mps-control.pid"
ANSWERS_WITHIN_S: Final = 10.0
_PAUSE_S: Final = 0.02
# The daemon sees its card as the only one.
_DEVICE: Final = "0"
# Of the host's shared memory the daemon and its clients see this part, and clients see no other.
_IN_OWN_SHM: Final = 'mount --bind "$1" /dev/shm && shift && exec "$@"'


def may_serve() -> bool:
    """Whether a daemon can be had that serves several users, each in a part of shared memory of its own.

    Only root may, and in a container not even root, where that lacks CAP_SYS_ADMIN.
    """
    if os.geteuid() != 0:
        return False
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--", "true"], capture_output=True, timeout=ANSWERS_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class MpsError(InternalError):
    """The daemon does not start, does not answer, or refuses."""


class Mps:
    """`program` is the command line of the daemon. `as_root`: clients of several users share its server."""

    def __init__(
        self, program: Sequence[str], uuid: str, *, pipe: Path, shm: Path, log: Path, as_root: bool
    ) -> None:
        self._program, self._uuid, self._as_root = tuple(program), uuid, as_root
        self.pipe, self.shm, self.log = pipe, shm, log
        self._daemon: subprocess.Popen[bytes] | None = None
        self._bounds: tuple[int, int] | None = None
        self._servers: tuple[int, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether it was started and not stopped."""
        return self._daemon is not None

    @property
    def alive(self) -> bool:
        return self._daemon is not None and self._daemon.poll() is None

    def start(self) -> None:
        """Returns when the daemon answers; one that an earlier server left is ended. Raises MpsError."""
        self.clear()
        argv = [*self._program, "-f", *(["-multiuser-server"] if self._as_root else [])]
        if self._as_root:
            argv = ["unshare", "--mount", "--", "sh", "-c", _IN_OWN_SHM, "mps", str(self.shm), *argv]
        try:
            for folder, mode in ((self.pipe, 0o755), (self.log, 0o700), (self.shm, 0o1777)):
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(mode)
            self._daemon = subprocess.Popen(
                argv, env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._tidy()
            raise MpsError(f"the MPS daemon of {self._uuid} cannot be started: {error}") from error
        self._bounds = None
        self._until(self._answers, f"the MPS daemon of {self._uuid} does not answer")

    def stop(self) -> None:
        """Ends it and its servers; clients that are left lose their card. Fine when there is none."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        with suppress(MpsError):
            self._ask("quit -t 1")
        try:
            daemon.wait(timeout=ANSWERS_WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        self._tidy()

    def _tidy(self) -> None:
        for folder in (self.pipe, self.shm):
            shutil.rmtree(folder, ignore_errors=True)
        # The folder of all cards' daemons, when this was the last.
        with suppress(OSError):
            self.pipe.parent.rmdir()

    def clear(self) -> None:
        """Ends a daemon that is there though this server did not start it."""
        if self._daemon is not None:
            self.stop()
        self._end_orphans()
        file = self.pipe / PID_FILE
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            # The number may be somebody else's by now.
            if PROGRAM.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() or _names(pid, self._program):
                with suppress(MpsError):
                    self._ask("quit -t 1")
                self._until(lambda: not _runs(pid), f"process {pid} of an MPS daemon does not end", pid)
        with suppress(OSError):
            file.unlink()

    def _end_orphans(self) -> None:
        """Servers outlive a daemon that was killed, and hold the card."""
        for pid in self._servers:
            with suppress(OSError):
                if _SERVER in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        self._servers = ()

    def bound(self, percent: int, memory_mib: int) -> None:
        """No client uses more than so much of the card's threads and memory. Raises MpsError."""
        if self._bounds == (percent, memory_mib):
            return
        self._ask(f"set_default_active_thread_percentage {percent}")
        self._ask(f"set_default_device_pinned_mem_limit {_DEVICE} {memory_mib}M")
        for server in self.servers():
            self._ask(f"set_active_thread_percentage {server} {percent}")
            self._ask(f"set_device_pinned_mem_limit {server} {_DEVICE} {memory_mib}M")
        self._bounds = percent, memory_mib

    def servers(self) -> tuple[int, ...]:
        """Processes of its servers: they are on the card though they are no lease's. Raises MpsError."""
        found = self._ask("get_server_list").split()
        self._servers = tuple(int(line) for line in found if line.isdigit())
        return self._servers

    @property
    def last_servers(self) -> tuple[int, ...]:
        """Those that it named when it was last asked."""
        return self._servers

    def _answers(self) -> bool:
        if not self.alive:
            assert self._daemon is not None
            code, self._daemon = self._daemon.returncode, None
            self._tidy()
            raise MpsError(f"the MPS daemon of {self._uuid} ended with {code}; its log is in {self.log}")
        try:
            self.servers()
        except MpsError:
            return False
        return True

    def _ask(self, command: str) -> str:
        try:
            done = subprocess.run(
                self._program, input=f"{command}\n".encode(), env=self._environment(), capture_output=True,
                timeout=ANSWERS_WITHIN_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MpsError(f"the MPS daemon of {self._uuid} does not take {command}: {error}") from error
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).decode(errors="replace").split())
            raise MpsError(f"the MPS daemon of {self._uuid} refused {command}: {said[:200]}")
        return done.stdout.decode(errors="replace")

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "CUDA_VISIBLE_DEVICES": self._uuid,
            "CUDA_MPS_PIPE_DIRECTORY": str(self.pipe),
            "CUDA_MPS_LOG_DIRECTORY": str(self.log),
        }

    def _until(self, good: Callable[[], bool], complaint: str, pid: int = 0) -> None:
        waited = 0.0
        while not good():
            if waited > ANSWERS_WITHIN_S:
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    return
                self.stop()
                raise MpsError(complaint)
            time.sleep(_PAUSE_S)
            waited += _PAUSE_S


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _names(pid: int, program: Sequence[str]) -> bool:
    """Whether the process was started by that command line, as the simulator's is."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return all(each.encode() in words for each in program)
