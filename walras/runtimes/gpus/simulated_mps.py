"""A simulator of NVIDIA's MPS control daemon: the program, its pipe directory and its commands, and no GPU.

python simulated_mps.py -f [-multiuser-server]     the daemon, in the foreground
echo get_server_list | python simulated_mps.py     a command to the daemon of $CUDA_MPS_PIPE_DIRECTORY
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

_PIPE = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))  # noqa: S108 - NVIDIA's default
_LOG = Path(os.environ.get("CUDA_MPS_LOG_DIRECTORY", "/var/log/nvidia-mps"))
_PR_SET_PDEATHSIG = 1
_SOCKET, _PID = _PIPE / "control", _PIPE / "nvidia-cuda-mps-control.pid"


class Daemon:
    """What the daemon remembers. Servers are processes that do nothing."""

    def __init__(self) -> None:
        self.servers: dict[int, dict[str, str]] = {}
        self.defaults = {"percent": "100.0"}
        self.quits = False

    def answer(self, line: str) -> str:
        words = line.split()
        match words:
            case ["get_server_list"]:
                return "".join(f"{pid}\n" for pid in self.servers)
            case ["start_server", "-uid", _]:
                return self._start()
            case ["set_default_active_thread_percentage", percent]:
                self.defaults["percent"] = f"{float(percent):.1f}"
                return f"{self.defaults['percent']}\n"
            case ["get_default_active_thread_percentage"]:
                return f"{self.defaults['percent']}\n"
            case ["set_default_device_pinned_mem_limit", device, limit]:
                self.defaults[f"memory {device}"] = limit
                return ""
            case ["get_default_device_pinned_mem_limit", device]:
                return f"{self.defaults.get(f'memory {device}', 'N/A')}\n"
            case ["set_active_thread_percentage", pid, percent] if int(pid) in self.servers:
                self.servers[int(pid)]["percent"] = f"{float(percent):.1f}"
                return f"{float(percent):.1f}\n"
            case ["get_active_thread_percentage", pid] if int(pid) in self.servers:
                return f"{self.servers[int(pid)]['percent']}\n"
            case ["set_device_pinned_mem_limit", pid, device, limit] if int(pid) in self.servers:
                self.servers[int(pid)][f"memory {device}"] = limit
                return ""
            case ["quit", *_]:
                self.quits = True
                return ""
        return f"Unknown command: {line}\n"

    def _start(self) -> str:
        pid = os.fork()
        if pid == 0:
            # It goes with the daemon, and holds none of its connections.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.closerange(3, 256)
            signal.pause()
        self.servers[pid] = dict(self.defaults)
        return f"{pid}\n"

    def end(self) -> None:
        for pid in self.servers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for path in (_SOCKET, _PID):
            path.unlink(missing_ok=True)


def serve() -> int:
    """Runs until it is told to quit; refuses to be the second of its directory."""
    if _PID.exists() and Path(f"/proc/{_PID.read_text()}").exists():
        print("An instance of this daemon is already running", file=sys.stderr)
        return 1
    daemon = Daemon()
    _SOCKET.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(_SOCKET))
        listener.listen(8)
        _PID.write_text(str(os.getpid()))
        (_LOG / "control.log").write_text("simulated: started\n")
        while not daemon.quits:
            with listener.accept()[0] as caller:
                lines = caller.makefile("r").read().splitlines()
                caller.sendall("".join(daemon.answer(line) for line in lines if line.strip()).encode())
    daemon.end()
    return 0


def ask() -> int:
    """Passes commands on and prints what the daemon answers."""
    with socket.socket(socket.AF_UNIX) as caller:
        try:
            caller.connect(str(_SOCKET))
        except OSError:
            print("Cannot find MPS control daemon process")
            return 1
        caller.sendall(sys.stdin.read().encode())
        caller.shutdown(socket.SHUT_WR)
        sys.stdout.write(caller.makefile("r").read())
    return 0


if __name__ == "__main__":
    sys.exit(serve() if "-f" in sys.argv[1:] else ask())
