"""A real server in a process of its own, with kubectl and the walras command as its clients."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

BIN = Path(sys.executable).parent
DEADLINE_S = 30.0


@dataclass
class Live:
    """A server in a process of its own, and the clients of it."""

    data: Path
    gpus: str = "emulated:1"
    process: subprocess.Popen[str] | None = None
    ready: dict[str, Any] = field(default_factory=dict)
    # What runs the server, such as another user.
    prefix: tuple[str, ...] = ()

    def start(self, *extra: str) -> None:
        command = [
            *self.prefix, BIN / "walras", "up", "--json", "--data", self.data, "--gpus", self.gpus,
            "--listen", "127.0.0.1:0", *extra,
        ]  # fmt: skip
        with (self.data.parent / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())

    def stop(self, sign: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sign)
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def walras(self, *words: str, check: bool = True) -> str:
        return run(BIN / "walras", *words, check=check, env={"WALRAS_DATA": str(self.data)})

    def agent(self, name: str, *words: str) -> Path:
        path = self.data.parent / f"{name}.kubeconfig"
        self.walras("agent", "create", name, "--income", "12/h", "--kubeconfig", str(path), *words)
        return path

    def kubectl(self, kubeconfig: Path, *words: str, stdin: str = "", check: bool = True) -> str:
        return run(BIN / "kubectl", *words, stdin=stdin, check=check, env={"KUBECONFIG": str(kubeconfig)})

    def apply(self, kubeconfig: Path, *objects: dict[str, Any]) -> None:
        self.kubectl(kubeconfig, "apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kubeconfig: Path, *words: str) -> Any:
        return json.loads(self.kubectl(kubeconfig, "get", *words, "-o", "json"))

    def client(self, kubeconfig: Path) -> httpx.Client:
        """An HTTPS client with the token of a kubeconfig, its paths below the server's root."""
        token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]
        return httpx.Client(
            base_url=self.ready["url"],
            verify=ssl.create_default_context(cafile=self.ready["ca_file"]),
            headers={"authorization": f"Bearer {token}"},
            timeout=DEADLINE_S,
            trust_env=False,
        )

    @property
    def operator(self) -> Path:
        return Path(self.ready["kubeconfig"])

    def log(self) -> str:
        """What the server wrote to its log so far."""
        return (self.data.parent / "server.log").read_text()


def run(*words: str | Path, stdin: str = "", check: bool = True, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S * 2,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def eventually(look: Callable[[], Any], what: str) -> Any:
    """Poll until it is true, up to the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s for {what}"
        time.sleep(0.1)


def processes(mark: str) -> list[str]:
    """Command lines on this machine with a mark in them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if mark.encode() in line:
            found.append(line.decode(errors="replace"))
    return found


@contextmanager
def serving(folder: Path, gpus: str = "emulated:1", *extra: str) -> Iterator[Live]:
    """A server that keeps its data in `folder`, stopped at the end; it must never have logged a traceback."""
    server = Live(folder / "data", gpus)
    try:
        server.start(*extra)
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()
        log = (folder / "server.log").read_text()
        assert "Traceback" not in log, log


def pod(
    name: str, script: str, *, milli: int = 0, price: str = "1.00", job_class: str = ""
) -> dict[str, Any]:
    annotations = {"walras.dev/max-price": price, **({"walras.dev/class": job_class} if job_class else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": pod_spec(script, milli),
    }


def pod_spec(script: str, milli: int) -> dict[str, Any]:
    limits = {"limits": {"walras.dev/milligpu": milli}} if milli else {}
    return {
        "restartPolicy": "Never",
        "containers": [
            {"name": "main", "image": "host", "command": ["/bin/sh", "-c", script], "resources": limits}
        ],
    }


def phase(live: Live, kubeconfig: Path, name: str) -> str:
    return str(live.get(kubeconfig, "pod", name)["status"].get("phase", ""))
