"""A thousand control planes to the gigabyte: `scripts/bench controlplane` prints one line of JSON.

Every server is a process of its own, the load too (a Go program). Where kube-apiserver and etcd are there
(see `bench.reference`), the real control plane does the same in the same run; ratios are ours over its.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.first import Server, walras
from bench.loading import Load, build, load
from bench.reference import binaries, real, resident_kib
from walras.kube.store.reader import SqliteReader

CONNECTIONS = 16
OBJECTS = 20
FLEET_CONNECTIONS = 128
PODS = 5_000
LATENCY_WATCHES = 1_000
LATENCY_EVENTS_PER_S = 1_000
WATCHES_PER_CONNECTION = 100
ASLEEP_S = 120.0
WARM = 200
Figures = dict[str, float]


@dataclass(frozen=True)
class Target:
    """One cluster to load: the root of its API, and who asks."""

    load: Load
    root: str
    token: str

    def path(self, resource: str, namespace: str = "default") -> str:
        return f"{self.root}/api/v1/namespaces/{namespace}/{resource}"


def config_map(name: str, text: str = "value " * 20) -> str:
    return json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": text}}
    )


def pod(name: str) -> str:
    """A pod of the size that a Deployment's pods have; nothing ever runs it."""
    requests = {"cpu": "64", "memory": "64Gi"}
    environment = [{"name": f"VARIABLE_{number}", "value": "value " * 5} for number in range(8)]
    containers = [
        {"name": "main", "image": "registry.example/app:1", "command": ["/bin/true"], "env": environment,
         "resources": {"requests": requests}}
    ]  # fmt: skip
    metadata = {"name": name, "labels": {"app": "bench", "tier": "front"}}
    spec = {"schedulerName": "nobody", "automountServiceAccountToken": False, "containers": containers}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def throughput(target: Target, seconds: float) -> Figures:
    """Validated durable creates and single gets a second over TLS, every connection busy."""
    path = target.path("configmaps")
    at_once: dict[str, Any] = {"token": target.token, "connections": CONNECTIONS, "seconds": seconds}
    made = target.load.order("rate", method="POST", path=path, body=config_map("c-%d"), status=201, **at_once)
    got = target.load.order("rate", path=f"{path}/c-1", **at_once)
    return {
        "create_per_s": made["per_second"],
        "create_call_p99_ms": made["p99_ms"],
        "get_per_s": got["per_second"],
        "get_call_p99_ms": got["p99_ms"],
    }


def listing(target: Target, pods: int) -> Figures:
    """Milliseconds to list so many pods."""
    path = target.path("pods")
    order = partial(target.load.order, token=target.token)
    order("each", method="POST", path=path, body=pod("p-%d"), status=201, count=pods, connections=8)
    return {"list_ms": order("each", path=path, count=15)["p50_ms"]}


def latency(target: Target, seconds: float) -> Figures:
    """How late watches hear of changes, each of objects in a namespace of its own."""
    order = partial(target.load.order, token=target.token)
    namespace = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "w-%d"}})
    many = {"count": LATENCY_WATCHES}
    order("each", method="POST", path=f"{target.root}/api/v1/namespaces", body=namespace, status=201,
          connections=8, **many)  # fmt: skip
    path = target.path("configmaps", "w-%d")
    order("each", method="POST", path=path, body=config_map("w"), status=201, connections=8, **many)
    order("watch", path=f"{path}?watch=true&resourceVersion=0", http2=True, connections=10, **many)
    changed = json.dumps({"data": {"sent": "%sent"}})
    heard = order(
        "stream", method="PUT", path=f"{path}/w", seconds=seconds, per_second=LATENCY_EVENTS_PER_S,
        body=json.dumps({**json.loads(config_map("w")), **json.loads(changed)}), connections=32, **many,
    )  # fmt: skip
    order("close")
    return {
        "event_p50_ms": heard["p50_ms"],
        "event_p99_ms": heard["p99_ms"],
        "events_per_s": heard["sent"] / heard["seconds"],
        "events_missed": heard["sent"] - heard["count"],
    }


def make_agents(
    server: Server, ours: Load, prefix: str, count: int, connections: int = 1, **plane: Any
) -> dict[str, Any]:
    """Control planes made, until each answers its own agent; what the load generator says of it."""
    plane = {"quota": {"objects": 1_000_000}, **plane}
    spec = {"budget": {"income": "12/h", "balance": "1000"}, "controlPlane": plane}
    agent = {"apiVersion": "walras.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "%name"}}
    return ours.order(
        "agents", agents=prefix, token=server.token, path="/clusters/fleet/apis/walras.dev/v1alpha1/agents",
        body=json.dumps({**agent, "spec": spec}), count=count, connections=connections,
    )  # fmt: skip


def plane(target: Target, told: argparse.Namespace) -> Figures:
    """What one control plane does under load."""
    return {
        **throughput(target, told.seconds),
        **latency(target, told.seconds),
        **listing(target, told.pods),
    }


def creation(server: Server, ours: Load, told: argparse.Namespace) -> Figures:
    """Control planes made one after another: until each answers its own agent, and what each takes."""
    # As many as fill what is kept for all of them together.
    make_agents(server, ours, "warm-", WARM, 8)
    before = server.resident_kib
    made = make_agents(server, ours, "one-", told.agents)
    return {
        "create_p50_ms": made["p50_ms"],
        "create_p99_ms": made["p99_ms"],
        "idle_kib": (server.resident_kib - before) / told.agents,
    }


def fleet(server: Server, ours: Load, told: argparse.Namespace) -> Figures:
    """Many control planes with objects and a watch each: seconds to make, and what the server holds then."""
    started = time.perf_counter()
    make_agents(server, ours, "f-", told.fleet, FLEET_CONNECTIONS)
    made = time.perf_counter() - started
    path = "/clusters/f-%d/api/v1/namespaces/default/configmaps"
    for number in range(OBJECTS):
        ours.order("each", agents="f-", method="POST", path=path, body=config_map(f"o-{number}"), status=201,
                   count=told.fleet, connections=FLEET_CONNECTIONS)  # fmt: skip
    took = time.perf_counter() - started
    watching = ours.order(
        "watch", agents="f-", path=f"{path}?watch=true", count=told.fleet, http2=True,
        connections=told.fleet // WATCHES_PER_CONNECTION or 1,
    )  # fmt: skip
    figures = {
        "fleet_agents_s": made,
        "fleet_10k_s": took + watching["seconds"],
        "fleet_10k_mib": server.resident_kib / 1024,
    }
    ours.order("close")
    return figures


def watches(server: Server, ours: Load, told: argparse.Namespace) -> Figures:
    """Idle watches of one cluster: what the server holds with them, and when all have heard of a change."""
    count = told.watches
    path = "/clusters/fleet/api/v1/namespaces/default/configmaps"
    order = partial(ours.order, token=server.token)
    order("event", method="POST", path=path, body=config_map("first"), status=201)
    before = server.resident_kib
    opened = order("watch", path=f"{path}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dseen",
                   count=count, http2=True, connections=max(1, count // WATCHES_PER_CONNECTION))  # fmt: skip
    heard = order("event", method="POST", path=path, body=config_map("seen"), status=201)
    figures = {
        "watches_open_s": opened["seconds"],
        "watches_mib": server.resident_kib / 1024,
        "watch_kib": (server.resident_kib - before) / count,
        "watches_event_s": heard["seconds"],
    }
    order("close")
    return figures


def sleep(data: Path, program: Path, told: argparse.Namespace) -> Figures:
    """Control planes put to disk: what is left of each, and how long the first get takes."""
    count = told.agents
    path = "/clusters/s-%d/api/v1/namespaces/default/configmaps"
    with _server(data, program) as (server, ours):
        make_agents(server, ours, "s-", count, 16, hibernateAfter="1s")
        for number in range(OBJECTS):
            ours.order("each", agents="s-", method="POST", path=path, body=config_map(f"o-{number}"),
                       status=201, count=count, connections=16)  # fmt: skip
        until = time.monotonic() + ASLEEP_S
        while _asleep(data) < count:
            assert time.monotonic() < until, f"{_asleep(data)} of {count} sleep"
            time.sleep(1)
        woken = ours.order("each", agents="s-", path=f"{path}/o-1", count=count)
        before = time.monotonic()
        while _asleep(data) < count and time.monotonic() < before + ASLEEP_S:
            time.sleep(1)
    with _server(data.parent / "nobody", program) as (server, _):
        empty = server.resident_kib
    with _server(data, program) as (server, _):
        return {
            "wake_ms": woken["p50_ms"],
            "wake_p99_ms": woken["p99_ms"],
            "hibernated_kib": (server.resident_kib - empty) / count,
        }


def _asleep(data: Path) -> int:
    with SqliteReader(data / "walras.db") as database:
        ((count,),) = database.query("SELECT count(*) FROM clusters WHERE asleep")
    return int(count)


def flood(server: Server, ours: Load, program: Path, folder: Path, told: argparse.Namespace) -> Figures:
    """How long one agent's get takes while another does all it can; and, which is what the machine gives,
    while that goes to another server beside this one."""
    token = make_agents(server, ours, "quiet-", 1)["token"]
    path = "/clusters/quiet-0/api/v1/namespaces/default"
    order = partial(ours.order, "rate", path=path, token=token, connections=1, seconds=told.seconds)
    quiet = order()

    def flooded(at: Server, maker: Load) -> float:
        token = make_agents(at, maker, "loud-", 1)["token"]
        url = f"https://localhost:{at.port}"
        with load(program, url, at.ca_file) as loud, ThreadPoolExecutor() as threads:
            running = threads.submit(
                loud.order, "rate", path="/clusters/loud-0/api/v1/namespaces/default/pods", token=token,
                connections=64, seconds=told.seconds + 2, status=0,
            )  # fmt: skip
            time.sleep(1)
            noisy = order()
            running.result()
        return float(noisy["p99_ms"])

    same = flooded(server, ours)
    with _server(folder / "beside", program) as (another, maker):
        beside = flooded(another, maker)
    return {"quiet_p99_ms": quiet["p99_ms"], "flooded_p99_ms": same, "flooded_beside_p99_ms": beside}


@contextmanager
def _server(data: Path, program: Path) -> Iterator[tuple[Server, Load]]:
    with (
        walras(data, "emulated:1") as (server, _),
        load(program, f"https://localhost:{server.port}", server.ca_file) as generator,
    ):
        yield server, generator


def ours_alone(program: Path, folder: Path, told: argparse.Namespace) -> Figures:
    """What only a server of many control planes can do."""
    with _server(folder / "few", program) as (server, generator):
        figures = creation(server, generator, told) | flood(server, generator, program, folder, told)
    figures |= sleep(folder / "asleep", program, told)
    if told.fleet:
        with _server(folder / "fleet", program) as (server, generator):
            figures |= fleet(server, generator, told)
    if told.watches:
        with _server(folder / "watches", program) as (server, generator):
            figures |= watches(server, generator, told)
    return figures


def measure(folder: Path, told: argparse.Namespace) -> Figures:
    program = build(folder)
    figures: Figures = {}
    with _server(folder / "one", program) as (server, generator):
        token = make_agents(server, generator, "only-", 1)["token"]
        figures |= plane(Target(generator, "/clusters/only-0", token), told)
    if binaries() is not None:
        with real(folder / "real") as reference:
            figures["real_ready_s"] = reference.ready_s
            figures["real_mib"] = resident_kib(*reference.pids) / 1024
            with load(program, reference.url, reference.ca_file) as generator:
                theirs = plane(Target(generator, "", reference.token), told)
        figures |= {f"real_{name}": value for name, value in theirs.items()}
        figures["get_ratio"] = figures["get_per_s"] / theirs["get_per_s"]
        figures["create_ratio"] = figures["create_per_s"] / theirs["create_per_s"]
    return figures | ours_alone(program, folder, told)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200, help="control planes made one after another")
    parser.add_argument("--fleet", type=int, default=10_000, help="control planes with objects and a watch")
    parser.add_argument("--watches", type=int, default=100_000, help="idle watches of one cluster")
    parser.add_argument("--pods", type=int, default=PODS, help="pods that are listed")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each rate is measured")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walras-bench-") as folder:
        figures = measure(Path(folder), told)
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
