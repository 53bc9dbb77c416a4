"""A function from nothing: `scripts/bench functions` prints one line of JSON.

The time from a request to a function at zero until the first byte of its answer, with and without a share of
a GPU to be won on the way, and what the way through the server costs once an instance runs. Beside it, in the
same run, the least that there is to it: the same program started by hand, and asked with no server between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.first import Server, agents, walras
from bench.wire import percentile, request

Object = dict[str, Any]

SERVICES: Final = "/clusters/agent-0/apis/serving.knative.dev/v1/namespaces/default/services"
PODS: Final = "/clusters/agent-0/api/v1/namespaces/default/pods"
PROGRAM: Final = """
import os, socket
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=128)
while True:
    made, _ = listening.accept()
    while made.recv(65536):
        made.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
    made.close()
"""


def service(name: str, milli: int) -> Object:
    """A function that goes to zero as soon as it may."""
    annotations = {
        "autoscaling.knative.dev/window": "1s",
        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "0s",
        "autoscaling.knative.dev/initial-scale": "0",
        "walras.dev/max-price": "5.00",
    }
    container: Object = {"image": "host", "command": [sys.executable, "-S", "-c", PROGRAM]}
    if milli:
        container["resources"] = {"limits": {"walras.dev/milligpu": milli}}
    template = {
        "metadata": {"annotations": annotations},
        "spec": {"containers": [container], "containerConcurrency": 1, "terminationGracePeriodSeconds": 0},
    }
    made = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}}
    return {**made, "spec": {"template": template}}


class Listener:
    """Where the functions of a server are."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)

    async def ask(self, count: int = 1) -> list[float]:
        """Milliseconds from sending a request until its answer begins, of `count` over one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        took = []
        for _ in range(count):
            started = time.perf_counter()
            writer.write(b"GET / HTTP/1.1\r\nhost: %b\r\n\r\n" % self.host.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            took.append((time.perf_counter() - started) * 1000)
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(2)
        writer.close()
        return took


async def cold(server: Server, token: str, name: str, milli: int, count: int) -> tuple[list[float], Listener]:
    """Milliseconds of `count` first requests, each to a function at zero, and where it is."""
    (connection,) = await server.connect()
    body = json.dumps(service(name, milli)).encode()
    status, said = await connection.send(request("POST", SERVICES, token, body))
    assert status == 201, said
    listener = Listener(await _ready(server, token, name))
    took = []
    for _ in range(count):
        took += await listener.ask()
        await _gone(server, token)
    connection.close()
    return took, listener


async def _ready(server: Server, token: str, name: str) -> str:
    (connection,) = await server.connect()
    while True:
        _, said = await connection.send(request("GET", f"{SERVICES}/{name}", token))
        status: Mapping[str, Any] = json.loads(said).get("status") or {}
        ready = [each["status"] for each in status.get("conditions") or () if each["type"] == "Ready"]
        if ready == ["True"]:
            connection.close()
            return str(status["url"])
        await asyncio.sleep(0.01)


async def _gone(server: Server, token: str) -> None:
    """Returns when no instance and no lease is left."""
    (connection,) = await server.connect()
    nodes = "/clusters/agent-0/api/v1/nodes"
    while True:
        _, pods = await connection.send(request("GET", PODS, token))
        _, found = await connection.send(request("GET", nodes, token))
        if not json.loads(pods)["items"] and len(json.loads(found)["items"]) <= 1:
            connection.close()
            return
        await asyncio.sleep(0.02)


def by_hand_ms(count: int) -> tuple[float, float]:
    """The program in an empty sandbox: until it answers first, and how long it takes to answer then."""
    cold_ms, warm_ms = [], []
    for _ in range(count):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = time.perf_counter()
        process = subprocess.Popen(
            ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--die-with-parent",
             "--setenv", "PORT", str(port), sys.executable, "-S", "-c", PROGRAM]
        )  # fmt: skip
        try:
            made = _connected(port)
            with made:
                for number in range(50):
                    asked = time.perf_counter()
                    made.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                    made.recv(4096)
                    now = time.perf_counter()
                    if number:
                        warm_ms.append((now - asked) * 1000)
                    else:
                        cold_ms.append((now - started) * 1000)
        finally:
            process.kill()
            process.wait()
    return percentile(cold_ms, 50), percentile(warm_ms, 50)


def _connected(port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.001)


async def measure(folder: Path, count: int) -> dict[str, float]:
    """Everything that this benchmark prints."""
    with walras(folder / "data", "emulated:1") as (server, _):
        _, (token,) = await agents(server, 1)
        plain, listener = await cold(server, token, "plain", 0, count)
        share, _ = await cold(server, token, "share", 250, count)
        await listener.ask()
        warm = await listener.ask(500)
    by_hand, directly = by_hand_ms(count)
    return {
        "function_cold_p50_ms": round(percentile(share, 50), 1),
        "function_cold_max_ms": round(max(share), 1),
        "function_cold_without_gpu_p50_ms": round(percentile(plain, 50), 1),
        "function_warm_p50_ms": round(percentile(warm, 50), 2),
        "limit_cold_p50_ms": round(by_hand, 1),
        "limit_warm_p50_ms": round(directly, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="how many requests find their function at zero")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walras-bench-") as folder:
        print(json.dumps(uvloop.run(measure(Path(folder), told.count))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
