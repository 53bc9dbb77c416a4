"""The container runtime: containers of images, run by Podman, held by the same groups as processes."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from walras.core.errors import ServiceUnavailable, WalrasError
from walras.runtimes.attaching import Fan
from walras.runtimes.base import (
    ContainerSpec,
    CreateError,
    Limits,
    Output,
    PodRef,
    StartError,
    Traits,
)
from walras.runtimes.cgroups import GroupPath, clear, group_name
from walras.runtimes.cgroups_detect import sweep
from walras.runtimes.dial import OpenSocket, connect
from walras.runtimes.engine import body
from walras.runtimes.engine.client import Engine
from walras.runtimes.engine.container import Container
from walras.runtimes.engine.holding import hold, let_go
from walras.runtimes.engine.images import Images
from walras.runtimes.engine.outside import Outside
from walras.runtimes.engine.service import Service, Source
from walras.runtimes.engine.starting import begin, remove
from walras.runtimes.network.networks import PodNetwork
from walras.runtimes.shares import Shares, Sharing
from walras.runtimes.spawn import Spawner
from walras.runtimes.waiting import cancelled

log = structlog.get_logger(__name__)

# More at a time would get none of it done sooner, and hold up everything else.
_TURNS_A_CORE: Final = 2
# Somewhat oftener than the kubelet looks at its images' disk.
_COLLECT_S: Final = 60.0
# The control group of what holds a pod's network.
_HOLDER: Final = "holder"
_CONFIG: Final = "CreateContainerConfigError"


@dataclass
class _Pod:
    """Its containers share the network that the pod joined, or one of which `own` is the descriptor."""

    path: GroupPath
    ready: asyncio.Lock = field(default_factory=asyncio.Lock)
    own: int = -1
    joined: PodNetwork | None = None
    # The container that is in the network for others to join, and the file by which it came there.
    holder: str = ""
    place: Path | None = None
    containers: set[Container] = field(default_factory=set)

    @property
    def network(self) -> int:
        """The descriptor of the namespace, -1 before there is one."""
        return self.joined.namespace if self.joined is not None else self.own

    def close(self) -> None:
        if self.own >= 0:
            os.close(self.own)
            self.own = -1


class ContainerRuntime(Sharing):
    """See base.Runtime. `program`: the OCI runtime under Podman; `socket`: of an operator's engine."""

    name = "container"
    separates_users = False
    warnings: tuple[str, ...] = ()

    def __init__(
        self, data_dir: Path, *, program: str = "", socket: Path | None = None, shares: Shares | None = None
    ) -> None:
        super().__init__(shares or Shares(data_dir, one_path=True))
        directory = data_dir.resolve() / "engine"
        self._mark = self.shares.mark
        # Below a short path: what listens on Unix sockets has some hundred characters.
        run = Path(f"/run/walras-{self._mark}")
        self.service: Source = (
            Outside(socket, directory, run) if socket else Service(directory, run, self._mark, program)
        )
        self.images = Images(self.service, directory / "images.json", {body.MARK: self._mark})
        self._collecting: asyncio.Task[None] | None = None
        self._spawner = Spawner()
        self._pods: dict[tuple[str, str], _Pod] = {}
        self.turns = asyncio.Semaphore(_TURNS_A_CORE * len(os.sched_getaffinity(0)))

    def traits(self, pod: PodRef) -> Traits:
        networks = self.shares.networks
        networked = networks is not None and networks.available
        return Traits(
            "podman" if self.service.joins_paths else "docker",
            {"HOSTNAME": pod.name[:63]},
            self.images,
            networked,
            # Another's engine may see none of the mounts that are made here.
            counts_memory=self.counts_memory and self.service.own,
            sees_mounts=self.service.own,
            fixed=self.shares.fixed,
        )

    async def engine(self) -> Engine:
        return await self.service.engine()

    async def open(self) -> None:
        await self.shares.open()
        # So that `podman` finds the server's images before any pod needs them.
        self.service.prepare()
        await self.service.probe()
        # An engine that was never needed has nothing to end, and is not started before it is.
        if self.service.used:
            self.service.end_earlier()
            await self._end_all()
        self._collecting = asyncio.get_running_loop().create_task(self._collect())

    async def _collect(self) -> None:
        """Keeps room for images, for as long as the server runs."""
        while True:
            await asyncio.sleep(_COLLECT_S)
            await self.images.look()

    async def _end_all(self) -> None:
        filters = msgspec.json.encode({"label": [f"{body.MARK}={self._mark}"]}).decode()
        try:
            engine = await self.engine()
            found = await engine.call("GET", "/containers/json", params={"all": "true", "filters": filters})
        except WalrasError as error:
            log.warning("containers of an earlier run not removed", error=error.message)
            return
        await asyncio.gather(*(remove(self, str(each["Id"])) for each in found))
        self._sweep(())

    async def close(self) -> None:
        if self._collecting is not None:
            await cancelled(self._collecting)
        await self.shares.close()
        containers = [each for pod in self._pods.values() for each in pod.containers]
        await asyncio.gather(*(each.kill() for each in containers))
        pods = list(self._pods.values())
        await asyncio.gather(*(self._let_go(each) for each in pods))
        for pod in pods:
            pod.close()
        self._pods.clear()
        await self.service.close()
        self._sweep(())
        self._spawner.close()

    def _parent(self, path: GroupPath) -> str:
        detected = self.shares.detected
        return "/".join((detected.path, *path)) if detected is not None and detected.path else ""

    def _sweep(self, path: GroupPath) -> None:
        """Removes the groups that the engine made in hierarchies which the server has no use for."""
        if parent := self._parent(path):
            sweep(parent)

    async def _prepare(self, ref: PodRef, limits: Limits) -> _Pod:
        found = self._pods.get(ref.key)
        if found is None:
            found = self._pods[ref.key] = _Pod(self.shares.pod_path(ref))
        async with found.ready:
            if found.network < 0:
                self.shares.enforce_pod(ref, limits)
                networks = self.shares.networks
                found.joined = networks.of(ref) if networks is not None else None
                if found.joined is None:
                    found.own = await self._spawner.make_network()
            if not self.service.joins_paths and not found.holder:
                await self._hold(ref, found)
        return found

    async def _hold(self, ref: PodRef, pod: _Pod) -> None:
        path = (*pod.path, _HOLDER)
        self.shares.enforce(path, Limits())
        place = self.service.run / "networks" / group_name("pod", "-".join(ref.key))
        engine, pod.place = await self.engine(), place
        pod.holder = await hold(
            engine,
            pod.network,
            pod.place,
            hostname=ref.name[:63],
            parent=self._parent(path),
            labels={body.MARK: self._mark},
        )

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> Container:
        self._check_user(spec)
        try:
            pod = await self._prepare(spec.pod, pod_limits)
        except (OSError, WalrasError) as error:
            raise StartError(f"the pod's network cannot be made: {error}") from error
        path = (*pod.path, group_name("container", f"{spec.name}-{spec.attempt}"))
        self.shares.enforce(path, spec.limits)
        made = body.body(
            spec,
            mark=self._mark,
            network=f"{body.CONTAINER}{pod.holder}"
            if pod.holder
            else f"ns:/proc/{os.getpid()}/fd/{pod.network}",
            parent=self._parent(path),
            devices=_there(spec.devices),
        )
        engine_id, started = await begin(self, made, path, spec.stdin)
        container = Container(self, engine_id, spec, path, started, Fan(output))
        self.shares.join(spec.pod, container)
        pod.containers.add(container)
        return container

    def _check_user(self, spec: ContainerSpec) -> None:
        """As the kubelet's verifyRunAsNonRoot."""
        security, where = spec.security, f"(pod: {spec.pod.name}, container: {spec.name})"
        if not security.non_root:
            return
        if security.user is not None:
            if security.user == 0:
                raise CreateError(f"container's runAsUser breaks non-root policy {where}", reason=_CONFIG)
            return
        own = self.images.user(spec.image_id).partition(":")[0]
        if own in ("", "0", "root"):
            raise CreateError(
                f"container has runAsNonRoot and image will run as root {where}", reason=_CONFIG
            )
        if not own.isdigit():
            why = f"container has runAsNonRoot and image has non-numeric user ({own}), "
            raise CreateError(f"{why}cannot verify user is non-root {where}", reason=_CONFIG)

    def forget(self, container: Container, used_ns: int) -> None:
        """The container has ended and everything of it is gone."""
        ref = container.spec.pod
        self.shares.leave(ref, container, used_ns)
        if (pod := self._pods.get(ref.key)) is not None:
            pod.containers.discard(container)

    async def forget_agent(self, cluster: str) -> None:
        self.images.forget_agent(cluster)

    async def remove_pod(self, pod: PodRef) -> None:
        found = self._pods.get(pod.key)
        if found is None:
            return
        await asyncio.gather(*(each.kill() for each in list(found.containers)))
        await self._let_go(found)
        if self.groups is not None:
            await clear(self.groups, found.path)
        self._sweep(found.path)
        found.close()
        self._pods.pop(pod.key, None)

    async def _let_go(self, pod: _Pod) -> None:
        if pod.holder:
            await remove(self, pod.holder)
        if pod.place is not None:
            await let_go(pod.place)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = self._pods.get(pod.key)
        if found is None or not found.containers:
            raise ServiceUnavailable(f'pod "{pod.name}" is not running')
        networks = self.shares.networks
        opener: OpenSocket = partial(self._socket_in, found)
        if found.joined is not None and networks is not None:
            opener = partial(networks.socket_in, found.joined)
        return await connect("root", pod.name, opener, (), port)

    async def _socket_in(self, pod: _Pod, family: socket.AddressFamily) -> socket.socket:
        # Its descriptor may be another's by the time that another family is tried.
        if pod.own < 0:
            raise OSError("the pod's network is gone")
        return await self._spawner.socket_in(pod.own, family)


def _there(devices: tuple[str, ...]) -> tuple[str, ...]:
    """The device files that this machine has, and all devices by CDI names."""
    return tuple(each for each in devices if "=" in each or os.path.exists(each))
