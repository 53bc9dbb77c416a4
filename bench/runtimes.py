"""What starting, holding and displacing pods takes: `scripts/bench runtimes` prints one line of JSON.

Through `walras up` in a process of its own, for every runtime that this machine has: from a pod's create to
the first line of its log, on a device that is free, and to the watch event that says it runs on one that
another agent has; many pods at once; the memory that a pod costs beside its program's own. The CPU share is
measured on the runtime itself: three nodes that spin side by side. Limits in the same run: an empty
bubblewrap, `podman run` and plain runc.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import functions
from bench.first import Server, agents, delete_pod, pod, sandbox_ms, start_pod, walras
from bench.wire import percentile, request
from walras.runtimes.base import ContainerSpec, Limits, PodRef
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.engine.runtime import ContainerRuntime
from walras.runtimes.engine.service import Service
from walras.runtimes.handlers import CONTAINER, PROCESS, VM, Offer, offers
from walras.runtimes.shares import Shares

IMAGE: Final = "localhost/bench:1"
MACHINES, MACHINES_AT_ONCE = 10, 4
SHARES_MILLI: Final = (100, 250, 500)
# The first process of a container obeys only the signals that it has something to do about.
SLEEP: Final = ["/bin/sh", "-c", "trap 'exit 0' TERM; echo up; sleep 600 & wait"]


def environment(data: Path) -> dict[str, str]:
    """With which `podman` finds the images of a server on `data`."""
    return service(data).environment()


def service(data: Path) -> Service:
    """The engine of a server on `data`."""
    found = ContainerRuntime(data, program="runc").service
    assert isinstance(found, Service), "it is the server's own"
    return found


def import_image(data: Path) -> None:
    """An image of busybox alone."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox is needed"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bin"
        place.mkdir()
        shutil.copy(busybox, place / "busybox")
        for name in ("sh", "sleep", "true"):
            (place / name).symlink_to("busybox")
        archive = subprocess.run(["tar", "-C", folder, "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(
        ["podman", "import", "--change", "ENV PATH=/bin", "-", IMAGE],
        input=archive, env=environment(data), check=True, capture_output=True,
    )  # fmt: skip


def of(handler: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The pod, of that runtime."""
    manifest["spec"]["runtimeClassName"] = handler
    manifest["spec"]["containers"][0]["image"] = IMAGE
    return manifest


def gpu(handler: str, name: str, milli: int, price: str, job_class: str) -> dict[str, Any]:
    return of(handler, pod(name, milli, price, job_class, SLEEP))


async def first_line(server: Server, token: str, manifest: dict[str, Any]) -> float:
    """Milliseconds from a pod's create until the first line of its log is read, asked for when it runs."""
    (reader,) = await server.connect()
    took = await start_pod(server, "agent-0", token, manifest)
    path = f"/clusters/agent-0/api/v1/namespaces/default/pods/{manifest['metadata']['name']}/log?follow=true"
    began = time.perf_counter()
    line = await (await reader.lines(request("GET", path, token))).next()
    took += (time.perf_counter() - began) * 1000
    assert line.strip() == b"up", line
    reader.close()
    return took


async def free(server: Server, token: str, handler: str, count: int) -> list[float]:
    """Milliseconds from a pod's create to its first line, on a device that nobody has.

    A machine has all of it: with a quarter of the CPU its kernel boots for four times as long.
    """
    milli = 1000 if handler == VM else 250
    took = []
    for number in range(count):
        name = f"free-{handler}-{number}"
        took.append(await first_line(server, token, gpu(handler, name, milli, "5.00", "latency")))
        await delete_pod(server, "agent-0", token, name)
    return took


async def displacing(server: Server, tokens: list[str], handler: str, count: int) -> list[float]:
    """The same where another agent's pod of the same runtime has the only device and obeys at once."""
    took = []
    for number in range(count):
        first, second = f"train-{handler}-{number}", f"query-{handler}-{number}"
        await start_pod(server, "agent-1", tokens[1], gpu(handler, first, 1000, "0.50", "standard"))
        await asyncio.sleep(5.2)  # the minimum quantum
        took.append(
            await start_pod(server, "agent-0", tokens[0], gpu(handler, second, 1000, "9.00", "latency"))
        )
        await delete_pod(server, "agent-0", tokens[0], second)
        await delete_pod(server, "agent-1", tokens[1], first)
    return took


def plain(handler: str, name: str) -> dict[str, Any]:
    """A pod that wants no device."""
    manifest = of(handler, pod(name, 0, "1.00", "standard", SLEEP))
    del manifest["spec"]["containers"][0]["resources"], manifest["metadata"]["annotations"]
    return manifest


async def together(
    server: Server, data: Path, tokens: list[str], handler: str, count: int
) -> tuple[float, float]:
    """Seconds until all of so many pods of several agents run, made at once; and what one costs in KiB."""
    before = server.resident_kib
    helpers_before = helpers_kib(data)
    started = time.perf_counter()
    each = -(-count // len(tokens))
    await asyncio.gather(
        *(_many(server, f"agent-{number}", token, handler, each) for number, token in enumerate(tokens))
    )
    took = time.perf_counter() - started
    cost = (server.resident_kib - before + helpers_kib(data) - helpers_before) / (each * len(tokens))
    return took, cost


async def _many(server: Server, agent: str, token: str, handler: str, count: int) -> None:
    creator, watcher = await server.connect(2)
    pods = f"/clusters/{agent}/api/v1/namespaces/default/pods"
    lines = await watcher.lines(request("GET", f"{pods}?watch=true&labelSelector=many", token))
    for number in range(count):
        manifest = plain(handler, f"many-{handler}-{number}")
        manifest["metadata"]["labels"] = {"many": handler}
        status, body = await creator.send(request("POST", pods, token, json.dumps(manifest).encode()))
        assert status == 201, body
    running: set[str] = set()
    while len(running) < count:
        found = json.loads(await lines.next())["object"]
        assert found.get("status", {}).get("phase") != "Failed", found["status"]
        if found.get("status", {}).get("phase") == "Running":
            running.add(found["metadata"]["name"])
    creator.close()
    watcher.close()


async def _gone(server: Server, tokens: list[str]) -> None:
    for number, token in enumerate(tokens):
        (connection,) = await server.connect()
        pods = f"/clusters/agent-{number}/api/v1/namespaces/default/pods"
        await connection.send(request("DELETE", f"{pods}?gracePeriodSeconds=0", token))
        while json.loads((await connection.send(request("GET", pods, token)))[1])["items"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        connection.close()


def helpers_kib(data: Path) -> int:
    """What the programs around the pods' own hold in memory, each page counted once."""
    total, group = 0, f"/walras-{Shares(data).mark}/"
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if os.path.basename(words[0]) in (b"sh", b"sleep") or group not in (path / "cgroup").read_text():
                continue
            rollup = (path / "smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


async def shares(data: Path, offer: Offer, seconds: float) -> list[float]:
    """Errors of enforced shares, as parts of them, of nodes that spin side by side; too little is below 0."""
    held = Shares(data, one_path=offer.handler == CONTAINER)
    assert offer.make is not None
    one = offer.make(held)
    runtime = Runtimes(held, {offer.handler: one}, offer.handler)
    await runtime.open()
    try:
        if offer.handler == CONTAINER:
            import_image(data)
        for milli in SHARES_MILLI:
            ref = PodRef("bench", f"node-{milli}", f"uid-{milli}", "spin")
            runtime.set_node("bench", f"node-{milli}", Limits(cpu_milli=milli))
            env = dict(runtime.traits(ref).env)
            command = ("sh", "-c", "while :; do :; done")
            spec = ContainerSpec(ref, "main", 0, command, env, image=IMAGE, image_id=IMAGE)
            await runtime.start(spec, lambda _stream, _data: None, Limits())
        await asyncio.sleep(1)
        used = [runtime.cpu_ms("bench", f"node-{milli}") for milli in SHARES_MILLI]
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        return [
            ((runtime.cpu_ms("bench", f"node-{milli}") - before) / took - milli) / milli
            for milli, before in zip(SHARES_MILLI, used, strict=True)
        ]
    finally:
        await runtime.close()


def timed(times: int, do: Callable[[], object]) -> float:
    """The median of so many, in milliseconds."""
    took = []
    for _ in range(times):
        started = time.perf_counter()
        do()
        took.append((time.perf_counter() - started) * 1000)
    return percentile(took, 50)


def limits(data: Path, times: int) -> dict[str, float]:
    """The least that a container's start can take: podman by its command, and runc with nothing around it."""
    env = environment(data)
    podman = ["podman", "run", "--rm", "--network", "none", IMAGE, "true"]
    found = {"limit_podman_run_ms": timed(times, lambda: _run(podman, env))}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "rootfs" / "bin"
        root.mkdir(parents=True)
        shutil.copy(str(shutil.which("busybox")), root / "true")
        _run(["runc", "spec", "--bundle", folder], env)
        config = json.loads((Path(folder) / "config.json").read_text())
        config["process"] |= {"args": ["/bin/true"], "terminal": False, "rlimits": []}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        name = f"walras-bench-{os.getpid()}"
        found["limit_runc_ms"] = timed(times, lambda: _run(["runc", "run", "--bundle", folder, name], env))
    return found


def _run(command: list[str], env: dict[str, str]) -> None:
    subprocess.run(command, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)


async def measure(folder: Path, told: argparse.Namespace) -> dict[str, float]:
    found: dict[str, float] = {}
    data = folder / "data"
    has = [each for each in offers(data) if each.make is not None and each.handler in told.runtimes]
    if any(each.handler == CONTAINER for each in has):
        import_image(data)
    with walras(data, "emulated:1") as (server, _):
        _, tokens = await agents(server, 2)
        for offer in has:
            name = offer.handler
            count, at_once = told.count, told.together
            if name == VM:
                # Each has a kernel to boot, and half a gigabyte of memory.
                count, at_once = min(count, MACHINES), min(at_once, MACHINES_AT_ONCE)
            await free(server, tokens[0], name, 2)
            took = await free(server, tokens[0], name, count)
            found[f"{name}_p50_ms"] = percentile(took, 50)
            found[f"{name}_p99_ms"] = percentile(took, 99)
            moved = await displacing(server, tokens, name, told.displaced)
            found[f"{name}_displacing_p50_ms"] = percentile(moved, 50)
            seconds, cost = await together(server, data, tokens, name, at_once)
            found[f"{name}_{at_once}_at_once_s"] = seconds
            found[f"{name}_pod_kib"] = cost
            await _gone(server, tokens)
        if any(each.handler == PROCESS for each in has):
            # From a request to a function at zero to its first byte.
            took, _ = await functions.cold(server, tokens[0], "cold", 250, told.count)
            found["function_cold_p50_ms"] = percentile(took, 50)
    errors = {each.handler: await shares(folder / each.handler, each, told.seconds) for each in has}
    every = [error for those in errors.values() for error in those]
    found["share_error_max"] = max(abs(error) for error in every)
    # What others had to go without; a machine with other work to do gives less than a share, not more.
    found["share_excess_max"] = max(0.0, *every)
    if shutil.which("bwrap"):
        found["limit_sandbox_ms"] = sandbox_ms(20)
    if CONTAINER in errors:
        found |= limits(data, 10)
        service(data).clear()
    return {name: round(value, 3 if "share" in name else 1) for name, value in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtimes", nargs="+", default=[PROCESS, CONTAINER, VM], help="of these")
    parser.add_argument("--count", type=int, default=30, help="pods one after the other")
    parser.add_argument("--displaced", type=int, default=4, help="pods that take another's device")
    parser.add_argument("--together", type=int, default=200, help="pods at once")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long shares are measured")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walras-bench-") as folder:
        print(json.dumps(uvloop.run(measure(Path(folder), told))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
