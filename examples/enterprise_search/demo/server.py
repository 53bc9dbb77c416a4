"""A `walras up` of one's own: started in a folder of its own, stopped with all that runs in it."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S = 30.0
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is ready, and where its things are."""

    url: str
    data: Path
    kubeconfig: Path
    devices: Sequence[Mapping[str, Any]]
    pid: int
    cores: frozenset[int]


class ServerFailed(Exception):
    """The server did not start; the message holds the end of its log."""


@contextmanager
def running(folder: Path, gpus: int, cores: frozenset[int]) -> Iterator[Server]:
    """A server with that many emulated devices on those cores, stopped at the end. Raises ServerFailed."""
    folder.mkdir(parents=True)
    log = folder / "server.log"
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        # Whatever happens to this process, the server and its pods go with it.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.sched_setaffinity(0, cores)

    command = [
        str(Path(sys.executable).parent / "walras"), "up", "--json", "--data", str(folder / "data"),
        "--gpus", f"emulated:{gpus}", "--listen", "127.0.0.1:0",
    ]  # fmt: skip
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            # A session of its own: Ctrl-C at the terminal is for the driver, which then stops the server.
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  no threads run here
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ServerFailed(f"walras up did not start:\n{log.read_text()[-2000:]}")
        ready = json.loads(line)
        data, kubeconfig = Path(ready["data"]), Path(ready["kubeconfig"])
        yield Server(ready["url"], data, kubeconfig, ready["devices"], process.pid, cores)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, which drains; SIGKILL if that takes too long."""
    if process.poll() is None:
        process.terminate()
        deadline = time.monotonic() + STOP_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
