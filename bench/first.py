"""First figures of the whole: control planes, requests, and the time from a pod to its process.

Every server is `walras up` in a process of its own; the client shares the machine with it. Limits measured
in the same run: a bare granian that answers a constant over the same TLS, SQLite's durable single-row
commits, and the start of a sandboxed process by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import uvloop
import yaml

from bench.wire import Connection, percentile, rate, request

BIN = Path(sys.executable).parent
CONNECTIONS = 16
FLEET = "/clusters/fleet/apis/walras.dev/v1alpha1/agents"
AGENT = json.dumps(
    {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "NAME"},
        # More objects than an agent has by default are made here in seconds.
        "spec": {
            "budget": {"income": "12/h", "balance": "1000"},
            "controlPlane": {"quota": {"objects": 100_000}},
        },
    }
)


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    ca_file: str
    token: str

    @property
    def resident_kib(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    async def connect(self, count: int = 1) -> list[Connection]:
        return [await Connection.open(self.port, self.ca_file) for _ in range(count)]


@contextmanager
def walras(data: Path, gpus: str) -> Iterator[tuple[Server, float]]:
    """A server and the seconds until it was ready."""
    started = time.perf_counter()
    command = [
        str(BIN / "walras"),
        "up",
        "--data",
        str(data),
        "--listen",
        "127.0.0.1:0",
        "--gpus",
        gpus,
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        took = time.perf_counter() - started
        config = yaml.safe_load(Path(ready["kubeconfig"]).read_text())
        token = config["users"][0]["user"]["token"]
        yield Server(process, int(ready["url"].rsplit(":", 1)[1]), ready["ca_file"], token), took
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


async def agents(server: Server, count: int) -> tuple[list[float], list[str]]:
    """Milliseconds from asking for an agent to its first own answer, and the tokens."""
    (operator,) = await server.connect()
    took, tokens = [], []
    for number in range(count):
        name = f"agent-{number}"
        started = time.perf_counter()
        status, body = await operator.send(
            request("POST", FLEET, server.token, AGENT.replace("NAME", name).encode())
        )
        assert status == 201, body
        token = ""
        secret = f"/clusters/fleet/api/v1/namespaces/walras-system/secrets/agent-{name}"
        while True:
            status, body = await operator.send(request("GET", secret, server.token))
            if status == 200:
                token = base64.b64decode(json.loads(body)["data"]["token"]).decode()
                path = f"/clusters/{name}/api/v1/namespaces/default"
                status, _ = await operator.send(request("GET", path, token))
                if status == 200:
                    break
            await asyncio.sleep(0.001)
        took.append((time.perf_counter() - started) * 1000)
        tokens.append(token)
    operator.close()
    return took, tokens


async def requests(server: Server, token: str, seconds: float) -> tuple[float, float]:
    """Single gets and validated durable creates a second over CONNECTIONS connections."""
    path = "/clusters/agent-0/api/v1/namespaces/default/configmaps"

    def create(number: int) -> bytes:
        body = {"metadata": {"name": f"c-{number}"}, "data": {"key": "value " * 20}}
        return request("POST", path, token, json.dumps(body).encode())

    connections = await server.connect(CONNECTIONS)
    creates = await rate(connections, create, seconds, 201)
    get = request("GET", f"{path}/c-1", token)
    gets = await rate(connections, lambda _: get, seconds, 200)
    for connection in connections:
        connection.close()
    return gets, creates


def pod(name: str, milli: int, price: str, job_class: str, command: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {"walras.dev/class": job_class, "walras.dev/max-price": price},
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "c",
                    "image": "host",
                    "command": command,
                    "resources": {"limits": {"walras.dev/milligpu": str(milli)}},
                }
            ],
        },
    }


async def start_pod(server: Server, agent: str, token: str, manifest: dict[str, Any]) -> float:
    """Milliseconds from sending the create until a watch tells that it runs."""
    creator, watcher = await server.connect(2)
    pods = f"/clusters/{agent}/api/v1/namespaces/default/pods"
    name = manifest["metadata"]["name"]
    lines = await watcher.lines(
        request("GET", f"{pods}?watch=true&fieldSelector=metadata.name%3D{name}", token)
    )
    started = time.perf_counter()
    status, body = await creator.send(request("POST", pods, token, json.dumps(manifest).encode()))
    assert status == 201, body
    while True:
        found = json.loads(await lines.next())["object"].get("status", {})
        assert found.get("phase") != "Failed", found
        if found.get("phase") == "Running":
            break
    took = (time.perf_counter() - started) * 1000
    creator.close()
    watcher.close()
    return took


async def delete_pod(server: Server, agent: str, token: str, name: str) -> None:
    """Delete a pod and wait until its lease is over too."""
    (connection,) = await server.connect()
    path = f"/clusters/{agent}/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0"
    await connection.send(request("DELETE", path, token))
    while True:
        _, body = await connection.send(request("GET", f"/clusters/{agent}/api/v1/nodes", token))
        if not any(node["metadata"]["name"].startswith("lease-") for node in json.loads(body)["items"]):
            connection.close()
            return
        await asyncio.sleep(0.01)


SLEEP = ["/bin/sleep", "600"]


async def free(server: Server, token: str, count: int) -> list[float]:
    took = []
    for number in range(count):
        name = f"free-{number}"
        took.append(await start_pod(server, "agent-0", token, pod(name, 250, "5.00", "latency", SLEEP)))
        await delete_pod(server, "agent-0", token, name)
    return took


async def displaced(server: Server, tokens: list[str], count: int) -> list[float]:
    """A batch pod that obeys SIGTERM at once has the only device; a latency pod of another agent takes it."""
    took = []
    for number in range(count):
        trainer, searcher = f"train-{number}", f"query-{number}"
        await start_pod(server, "agent-1", tokens[1], pod(trainer, 1000, "0.50", "standard", SLEEP))
        await asyncio.sleep(5.2)  # the minimum quantum
        manifest = pod(searcher, 1000, "9.00", "latency", SLEEP)
        took.append(await start_pod(server, "agent-0", tokens[0], manifest))
        await delete_pod(server, "agent-0", tokens[0], searcher)
        await delete_pod(server, "agent-1", tokens[1], trainer)
    return took


def commits_per_s(folder: Path, seconds: float) -> float:
    """SQLite's own limit: one durable row a commit."""
    database = apsw.Connection(str(folder / "limit.db"))
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (v TEXT)"):
        database.execute(statement)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        database.execute("INSERT INTO t VALUES (?)", ("x" * 300,))
        count += 1
    return count / (time.perf_counter() - started)


def sandbox_ms(count: int) -> float:
    """A process started in an empty sandbox by hand: the least that a pod's start can take."""
    took = []
    for _ in range(count):
        started = time.perf_counter()
        subprocess.run(
            ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", "/bin/true"], check=True
        )
        took.append((time.perf_counter() - started) * 1000)
    return percentile(took, 50)


BARE = """
import asyncio, sys
from pathlib import Path
import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server
async def app(scope, receive, send):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 600})
async def main():
    port, cert, key = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    files = {"ssl_cert": cert, "ssl_key": key}
    await Server(app, port=port, interface=Interfaces.ASGINL, log_enabled=False, **files).serve()
uvloop.run(main())
"""


async def bare_rate(folder: Path, seconds: float) -> float:
    """What granian answers a second over the same TLS when there is nothing to do."""
    port = 17_443 + os.getpid() % 1000
    command = [
        sys.executable,
        "-c",
        BARE,
        str(port),
        str(folder / "tls/server.crt"),
        str(folder / "tls/server.key"),
    ]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        ca_file = str(folder / "tls/ca.crt")
        for _ in range(100):
            try:
                first = await Connection.open(port, ca_file)
                break
            except OSError:
                await asyncio.sleep(0.05)
        else:
            raise AssertionError("the bare server did not start")
        connections = [first] + [await Connection.open(port, ca_file) for _ in range(CONNECTIONS - 1)]
        found = await rate(connections, lambda _: request("GET", "/", "t"), seconds, 200)
        for connection in connections:
            connection.close()
        return found
    finally:
        process.terminate()
        await process.wait()


async def measure(folder: Path, count: int, seconds: float) -> dict[str, float]:
    with walras(folder / "data", "emulated:1") as (server, ready_s):
        before = server.resident_kib
        took, tokens = await agents(server, count)
        idle = (server.resident_kib - before) / count
        gets, creates = await requests(server, tokens[0], seconds)
        started = await free(server, tokens[0], 20)
        moved = await displaced(server, tokens, 4)
    return {
        "ready_s": round(ready_s, 2),
        "agent_p50_ms": round(percentile(took, 50), 1),
        "agent_p99_ms": round(percentile(took, 99), 1),
        "idle_agent_kib": round(idle, 1),
        "get_per_s": round(gets),
        "create_per_s": round(creates),
        "pod_free_p50_ms": round(percentile(started, 50), 1),
        "pod_free_p99_ms": round(percentile(started, 99), 1),
        "pod_displacing_p50_ms": round(percentile(moved, 50), 1),
        "pod_displacing_max_ms": round(max(moved), 1),
        "limit_get_per_s": round(await bare_rate(folder / "data", seconds)),
        "limit_commits_per_s": round(commits_per_s(folder, seconds)),
        "limit_sandbox_ms": round(sandbox_ms(20), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200, help="how many control planes are made")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each rate is measured")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walras-bench-") as folder:
        print(json.dumps(uvloop.run(measure(Path(folder), told.agents, told.seconds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
