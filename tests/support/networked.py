"""Pods in the networks of two agents, run by a kubelet, and what they reach there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.kubelet import Events
from support.runtimes import Kind
from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.admission.small import RUNTIME_CLASSES
from walras.kube.api import API
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.runtimes.base import PodRuntime
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.kubelet import Kubelet
from walras.runtimes.network.networks import Networks
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.sandbox import Mode
from walras.runtimes.shares import Shares

Object = dict[str, Any]
ACME, RIVAL = "acme", "rival"
# Not that of a virtual environment, which may be below /tmp: guests have one of their own there.
PYTHON = os.path.realpath(sys.executable)

SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 80))
while True:
    connection, peer = server.accept()
    connection.send(f"{sys.argv[1]} to {peer[0]}".encode())
    connection.close()
"""
# Prints what each place says, or why it cannot be reached.
CLIENT = """
import socket, sys
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 5) as connection:
            print(place, "=", connection.recv(100).decode())
    except OSError as error:
        print(place, "!", error)
"""


@dataclass
class World:
    api: API
    kubelet: Kubelet
    networks: Networks
    data_dir: Path
    runtimes: Mapping[str, PodRuntime] = field(default_factory=dict)
    deadline_s: float = 30.0
    count: int = 0

    async def pod(self, cluster: str, name: str, *command: str, **spec: Any) -> None:
        container = {"name": "main", "image": "i", "command": list(command), **spec.pop("container", {})}
        spec = {"nodeName": "base", "restartPolicy": "Never", "containers": [container], **spec}
        metadata = {"name": name, "namespace": "default"}
        await self.api.create(cluster, "pods", {"metadata": metadata, "spec": spec})

    async def serving(self, cluster: str, name: str, **spec: Any) -> str:
        """A pod that answers on port 80: its address."""
        await self.pod(cluster, name, PYTHON, "-c", SERVER, name, **spec)
        await self.until(lambda: self.status(cluster, name).get("phase") == "Running")
        pod = self.api.get(cluster, "pods", "default", name)
        async with asyncio.timeout(self.deadline_s):
            while True:
                try:
                    _, writer = await self.kubelet.access.dial(cluster, pod, 80)
                    writer.close()
                    return str(self.status(cluster, name)["podIP"])
                except Exception:
                    await asyncio.sleep(0.05)

    async def says(self, cluster: str, *command: str, **spec: Any) -> str:
        """What a pod says that runs to its end."""
        self.count += 1
        name = f"client-{self.count}"
        await self.pod(cluster, name, *command, **spec)
        await self.until(lambda: self.status(cluster, name).get("phase") in ("Succeeded", "Failed"))
        return await self.log(cluster, name)

    async def log(self, cluster: str, name: str) -> str:
        pod = self.api.get(cluster, "pods", "default", name)
        return b"".join([piece async for piece in self.kubelet.access.logs(cluster, pod, "main")]).decode()

    async def asks(self, cluster: str, *places: str, **spec: Any) -> list[str]:
        said = await self.says(cluster, PYTHON, "-c", CLIENT, *places, **spec)
        return said.splitlines()

    async def service(self, cluster: str, name: str, address: str, *targets: str, **spec: Any) -> None:
        ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
        metadata = {"name": name, "namespace": "default"}
        spec = {"clusterIP": address, "ports": ports, **spec}
        await self.api.create(cluster, "services", {"metadata": metadata, "spec": spec})
        labels = {"kubernetes.io/service-name": name}
        endpoints = [
            {"addresses": [each], "conditions": {"ready": True}, "hostname": f"{name}-{index}"}
            for index, each in enumerate(targets)
        ]
        piece = {
            "metadata": {"name": f"{name}-1", "namespace": "default", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            "endpoints": endpoints,
        }
        await self.api.create(cluster, "endpointslices.discovery.k8s.io", piece)
        # The rules follow within a moment.
        await asyncio.sleep(0.2)

    def status(self, cluster: str, name: str) -> Object:
        return dict(self.api.get(cluster, "pods", "default", name).get("status") or {})

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(self.deadline_s):
            while not true():  # noqa: ASYNC110  only other processes know when
                await asyncio.sleep(0.01)


def networked(
    tmp_path: Path,
    story: Callable[[World], Awaitable[None]],
    *,
    mode: Mode | None = None,
    more: tuple[Kind, ...] = (),
    deadline_s: float = 30.0,
) -> None:
    """Plays the story among pods of the process runtime; `more` run those of their names' RuntimeClasses."""

    async def run() -> None:
        networks = Networks()
        shares = Shares(tmp_path, networks=networks, one_path=any(each.image for each in more))
        runtimes: dict[str, PodRuntime] = {"process": ProcessRuntime(tmp_path, mode=mode, shares=shares)}
        runtimes |= {each.name: each.make(tmp_path, shares) for each in more}
        clock = VirtualClock()
        api = API(SqliteStore(MEMORY), clock, SequenceIds())
        for cluster in (ACME, RIVAL):
            await api.create_cluster(cluster)
            status = {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}}
            await api.create(cluster, "nodes", {"metadata": {"name": "base"}, "status": status})
            for name in runtimes:
                await api.create(cluster, RUNTIME_CLASSES, {"metadata": {"name": name}, "handler": name})
        runtime = Runtimes(shares, runtimes, "process")
        kubelet = Kubelet(api, runtime, clock, Events(), tmp_path, networks=networks)
        await kubelet.start()
        try:
            if not networks.available:
                pytest.skip(networks.missing)
            await story(World(api, kubelet, networks, tmp_path, runtimes, deadline_s))
        finally:
            await kubelet.stop(0)
            api.store.close()

    asyncio.run(run())
