"""The process runtime: containers are processes of this machine, shut in by bubblewrap, held by cgroups."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from walras.core.errors import ServiceUnavailable
from walras.runtimes import procfs
from walras.runtimes.attaching import Attached, Fan
from walras.runtimes.base import (
    ContainerSpec,
    ExitStatus,
    Limits,
    Output,
    PodRef,
    Session,
    StartError,
    Wish,
)
from walras.runtimes.cgroups import GroupPath, Groups, group_name, kill_all
from walras.runtimes.cgroups_detect import detect
from walras.runtimes.dial import connect
from walras.runtimes.entering import Entered, enter
from walras.runtimes.launch import Launched, launch
from walras.runtimes.plain import MARK, adapted, rewritten
from walras.runtimes.probe import Probed, probe
from walras.runtimes.sandbox import Mode, Sandbox
from walras.runtimes.spawn import Spawner
from walras.runtimes.throttle import Throttle

log = structlog.get_logger(__name__)

POD_PIDS_MAX: Final = 1024
# Programs that may be in one container at a time beside its own.
ENTERED_MAX: Final = 32
_REMEMBERED_NODES: Final = 4096
_NUMBERS = count(1)


@dataclass
class _Node:
    """`ended_ns` is CPU time of containers that are gone; only used where no cgroup counts it."""

    path: GroupPath
    limits: Limits
    throttle: Throttle | None = None
    containers: set[Container] = field(default_factory=set)
    ended_ns: int = 0

    def uncounted_cpu_ns(self) -> int:
        """CPU time of all its containers, past and present, as /proc tells it."""
        return self.ended_ns + sum(each.cpu_ns() for each in self.containers)


@dataclass
class _Pod:
    """`network` is the descriptor of the network namespace that its containers share, where it is ours."""

    path: GroupPath
    ready: asyncio.Lock = field(default_factory=asyncio.Lock)
    prepared: bool = False
    network: int | None = None
    containers: set[Container] = field(default_factory=set)

    def close(self) -> None:
        if self.network is not None:
            os.close(self.network)
            self.network = None


class Container:
    """A started container; see base.Process."""

    def __init__(
        self, runtime: ProcessRuntime, spec: ContainerSpec, path: GroupPath, started: Launched, fan: Fan
    ) -> None:
        self.id = hashlib.sha256(f"{spec.pod.uid}/{spec.name}/{next(_NUMBERS)}".encode()).hexdigest()
        self.spec = spec
        self._runtime = runtime
        self.path = path
        self._started = started
        self._fan = fan
        self._entered: set[Entered] = set()
        self._cpu_ns = 0
        # CPU time of programs that entered and are gone.
        self._left_ns = 0
        self._end = asyncio.get_running_loop().create_task(self._watch())

    @property
    def init_pid(self) -> int:
        """A process inside the container's namespaces."""
        return self._started.init.pid if self._started.init is not None else self._started.monitor.pid

    def signal(self, signum: int) -> None:
        if self._started.main is not None:
            self._started.main.signal(signum)

    async def kill(self) -> None:
        await self._sweep()
        await asyncio.shield(self._end)

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self._end)

    def pids(self) -> list[int]:
        """The container's processes as far as they can be told."""
        groups = self._runtime.groups
        if groups is not None:
            return groups.pids(self.path)
        return [*self._started.pids(), *(pid for each in self._entered for pid in each.pids())]

    def cpu_ns(self) -> int:
        """CPU time so far, with what its processes have waited for; a moment old once it has ended."""
        self._cpu_ns = max(self._cpu_ns, self._started.cpu_ns())
        return self._cpu_ns + self._left_ns + sum(each.cpu_ns() for each in self._entered)

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        if self._end.done() or len(self._entered) >= ENTERED_MAX:
            why = "the container has ended" if self._end.done() else f"{ENTERED_MAX} programs have entered it"
            raise StartError(why)
        command, env = self._runtime.way_in(self, argv, wish)
        session = await enter(self._runtime.spawner, command, env, wish, self._gone)
        if not session.over:
            self._entered.add(session)
        if self._end.done():
            await session.close()
        return session

    def attach(self, wish: Wish) -> Session:
        return Attached(self._fan, wish, self._end)

    def _gone(self, session: Entered) -> None:
        self._entered.discard(session)
        self._left_ns += session.cpu_ns()

    async def _watch(self) -> ExitStatus:
        started, groups = self._started, self._runtime.groups
        await started.monitor.ended()
        used_ns = self.cpu_ns()
        code = started.popen.poll()
        assert code is not None, "its pidfd says that it has ended"
        oom_killed = groups is not None and groups.oom_kills(self.path) > 0
        await self._sweep()
        started.close()
        self._runtime.forget(self, used_ns)
        return ExitStatus(128 - code if code < 0 else code, oom_killed)

    async def _sweep(self) -> None:
        """Kills everything and returns when it is gone."""
        groups, started = self._runtime.groups, self._started
        for each in list(self._entered):
            await each.close()
        if groups is not None:
            await kill_all(groups, self.path)
        if groups is None or started.init is not None:
            await started.kill()


class ProcessRuntime:
    """See base.Runtime. `mode` None takes the best that this machine lets the server do."""

    name = "process"

    def __init__(self, data_dir: Path, *, mode: Mode | None = None, use_cgroups: bool = True) -> None:
        self._data_dir = data_dir.resolve()
        self._mark = hashlib.sha256(str(self._data_dir).encode()).hexdigest()[:12]
        self._wanted_mode = mode
        self._use_cgroups = use_cgroups
        self.spawner = Spawner()
        self.groups: Groups | None = None
        self.probed: Probed | None = None
        self._sandbox: Sandbox | None = None
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._pods: dict[str, _Pod] = {}
        self._final_ms: OrderedDict[tuple[str, str], int] = OrderedDict()

    @property
    def separates_users(self) -> bool:
        return self._sandbox is not None and self._sandbox.mode == "root"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever starts the server has to know before running programs of others, once open."""
        if self._sandbox is None or self._sandbox.mode != "plain":
            return ()
        return (
            "pods are not shut in: run only programs that you trust; `walras doctor` says what is missing",
        )

    async def open(self) -> None:
        detected = detect(f"walras-{self._mark}") if self._use_cgroups else None
        self.groups = detected.groups if detected is not None else None
        if self.groups is not None:
            await kill_all(self.groups, ())
        for pid in procfs.marked(MARK, self._mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        identities = self._data_dir / "runtime"
        self.probed = await probe(self.spawner, self._wanted_mode, detected, self._data_dir, identities)
        self._sandbox = self.probed.sandbox
        log.info("runtime ready", mode=self.probed.sandbox.mode, notes=list(self.probed.notes))

    async def close(self) -> None:
        for cluster, node in list(self._nodes):
            await self.remove_node(cluster, node)
        for pod in self._pods.values():
            pod.close()
        self._pods.clear()
        if self.groups is not None:
            await kill_all(self.groups, ())
        self.spawner.close()

    # Nodes

    def _node(self, cluster: str, node: str) -> _Node:
        found = self._nodes.get((cluster, node))
        if found is None:
            path = (group_name("agent", cluster), group_name("node", node))
            found = self._nodes[cluster, node] = _Node(path, Limits())
            self._enforce(path, Limits())
        return found

    def _enforce(self, path: GroupPath, limits: Limits) -> None:
        if self.groups is None:
            return
        try:
            self.groups.make(path, limits)
        except OSError as error:
            log.warning("limit not enforced", group="/".join(path), limits=str(limits), error=str(error))

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        found = self._node(cluster, node)
        if found.limits == limits:
            return
        found.limits = limits
        self._enforce(found.path, limits)
        if self.groups is not None and "cpu" in self.groups.controllers:
            return
        if found.throttle is not None:
            found.throttle.close()
            found.throttle = None
        if limits.cpu_milli is not None:
            containers = found.containers
            found.throttle = Throttle(
                lambda: [pid for each in containers for pid in each.pids()], found.uncounted_cpu_ns
            )
            found.throttle.start(limits.cpu_milli)

    async def remove_node(self, cluster: str, node: str) -> None:
        found = self._nodes.get((cluster, node))
        if found is None:
            return
        if self.groups is not None:
            while self.groups.pids(found.path):
                self.groups.kill(found.path)
                await asyncio.sleep(0.001)
        await asyncio.gather(*(each.kill() for each in list(found.containers)))
        if self._nodes.get((cluster, node)) is not found:
            return
        self._final_ms[cluster, node] = self.cpu_ms(cluster, node)
        while len(self._final_ms) > _REMEMBERED_NODES:
            self._final_ms.popitem(last=False)
        del self._nodes[cluster, node]
        if found.throttle is not None:
            found.throttle.close()
        if self.groups is not None:
            await kill_all(self.groups, found.path)
            with suppress(OSError):
                self.groups.remove_empty(found.path[:1])

    def cpu_ms(self, cluster: str, node: str) -> int:
        found = self._nodes.get((cluster, node))
        if found is None:
            return self._final_ms.get((cluster, node), 0)
        if self.groups is not None and (used_ns := self.groups.cpu_ns(found.path)):
            return used_ns // 1_000_000
        return found.uncounted_cpu_ns() // 1_000_000

    # Pods and containers

    def _pod(self, ref: PodRef) -> _Pod:
        found = self._pods.get(ref.uid)
        if found is None:
            path = (*self._node(ref.cluster, ref.node).path, group_name("pod", ref.uid))
            found = self._pods[ref.uid] = _Pod(path)
        return found

    async def _prepare(self, pod: _Pod, limits: Limits) -> None:
        async with pod.ready:
            if pod.prepared:
                return
            self._enforce(
                pod.path, Limits(limits.cpu_milli, limits.memory_bytes, limits.pids or POD_PIDS_MAX)
            )
            if self._sandbox is not None and self._sandbox.mode == "root":
                pod.network = await self.spawner.make_network()
            pod.prepared = True

    def _rlimits(self, limits: Limits) -> Limits:
        """What a process's own limits must stand in for."""
        held = self.groups.controllers if self.groups is not None else frozenset()
        return Limits(
            memory_bytes=None if "memory" in held else limits.memory_bytes,
            pids=None if "pids" in held else POD_PIDS_MAX,
        )

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> Container:
        assert self._sandbox is not None, "open comes first"
        pod, node = self._pod(spec.pod), self._node(spec.pod.cluster, spec.pod.node)
        path = (*pod.path, group_name("container", f"{spec.name}-{spec.attempt}"))
        try:
            await self._prepare(pod, pod_limits)
            self._enforce(path, spec.limits)
            entrances = self.groups.entrances(path) if self.groups is not None else ()
            if self._sandbox.mode == "plain":
                spec = adapted(spec, self._mark)
            rlimits = self._rlimits(spec.limits)
            fan = Fan(output)
            started = await launch(
                self.spawner, self._sandbox, spec, entrances, pod.network, fan, rlimits=rlimits
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StartError(f"the sandbox cannot be made: {error}") from error
        except StartError:
            if self.groups is not None:
                await kill_all(self.groups, path)
            raise
        container = Container(self, spec, path, started, fan)
        node.containers.add(container)
        pod.containers.add(container)
        return container

    def way_in(
        self, container: Container, argv: tuple[str, ...], wish: Wish
    ) -> tuple[list[str], dict[str, str]]:
        """The command line and environment of another program in the container. Raises StartError."""
        assert self._sandbox is not None, "open comes first"
        spec, sandbox = container.spec, self._sandbox
        missing = [name for name in ("nsenter", "setsid") if not getattr(sandbox.tools, name)]
        if missing and (sandbox.mode != "plain" or wish.tty):
            raise StartError(f"{' and '.join(missing)} of util-linux not found on the server's machine")
        entrances = self.groups.entrances(container.path) if self.groups is not None else ()
        adapted_argv = rewritten(argv, spec.mounts) if sandbox.mode == "plain" else argv
        command = sandbox.entering(
            spec,
            adapted_argv,
            container.init_pid,
            entrances,
            tty=wish.tty,
            rlimits=self._rlimits(spec.limits),
        )
        terminal = {"TERM": "xterm"} if wish.tty else {}
        return command, {**(spec.env if sandbox.mode == "plain" else {"PATH": "/usr/bin:/bin"}), **terminal}

    def forget(self, container: Container, used_ns: int) -> None:
        """The container has ended and everything of it is gone."""
        ref = container.spec.pod
        if (node := self._nodes.get((ref.cluster, ref.node))) is not None:
            node.containers.discard(container)
            node.ended_ns += used_ns
        if (pod := self._pods.get(ref.uid)) is not None:
            pod.containers.discard(container)

    async def remove_pod(self, pod: PodRef) -> None:
        found = self._pods.get(pod.uid)
        if found is None:
            return
        await asyncio.gather(*(each.kill() for each in list(found.containers)))
        if self.groups is not None:
            await kill_all(self.groups, found.path)
        found.close()
        self._pods.pop(pod.uid, None)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = self._pods.get(pod.uid)
        if found is None or not found.containers or self._sandbox is None:
            raise ServiceUnavailable(f'pod "{pod.name}" is not running')
        pids = [each.init_pid for each in found.containers]
        return await connect(self.spawner, self._sandbox.mode, pod.name, found.network, pids, port)
