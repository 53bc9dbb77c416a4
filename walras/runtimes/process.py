"""The process runtime: containers are processes of this machine, shut in by bubblewrap, held by cgroups."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from walras.core.errors import ServiceUnavailable
from walras.runtimes import keyrings, procfs
from walras.runtimes.attaching import Attached, AttachedInput, Fan
from walras.runtimes.base import (
    ContainerSpec,
    CreateError,
    ExitStatus,
    Limits,
    Output,
    PodRef,
    Session,
    StartError,
    Traits,
    Wish,
)
from walras.runtimes.cgroups import GroupPath, clear, group_name
from walras.runtimes.dial import OpenSocket, connect
from walras.runtimes.entering import Entered, enter
from walras.runtimes.launch import Launched, launch
from walras.runtimes.nesting import Nesting, nesting_of
from walras.runtimes.network.networks import PodNetwork
from walras.runtimes.plain import MARK, adapted, rewritten
from walras.runtimes.probe import Probed, probe
from walras.runtimes.sandbox import Mode, Place, Sandbox, search_path, uid_of
from walras.runtimes.shares import POD_PIDS_MAX, Shares, Sharing
from walras.runtimes.spawn import Spawner
from walras.runtimes.usage import nameless_bytes

log = structlog.get_logger(__name__)

NO_COMMAND: Final = (
    'container "{name}" has no command: the process runtime runs programs of this machine '
    'and pulls no images (image "{image}")'
)
# Programs that may be in one container at a time beside its own.
ENTERED_MAX: Final = 32
_NUMBERS = count(1)


@dataclass
class _Pod:
    """`own` is the descriptor of the network namespace of its containers, where the runtime made it."""

    path: GroupPath
    ready: asyncio.Lock = field(default_factory=asyncio.Lock)
    prepared: bool = False
    own: int | None = None
    joined: PodNetwork | None = None
    containers: set[Container] = field(default_factory=set)

    @property
    def place(self) -> Place:
        """Where its programs start."""
        if self.joined is None:
            return Place(self.own)
        # What has a way in is entered by its programs themselves.
        return Place(None if self.joined.way_in else self.joined.namespace, self.joined.way_in)

    def close(self) -> None:
        if self.own is not None:
            os.close(self.own)
            self.own = None


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
        # Programs that are on their way in.
        self._entering = 0
        self._cpu_ns = 0
        self.nesting: Nesting | None = None
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
        # A copy: `disk_bytes` asks from another thread, while programs come and go.
        return [*self._started.pids(), *(pid for each in tuple(self._entered) for pid in each.pids())]

    def cpu_ns(self) -> int:
        """CPU time so far, with what its processes have waited for; a moment old once it has ended."""
        self._cpu_ns = max(self._cpu_ns, self._started.cpu_ns())
        return self._cpu_ns + self._left_ns + sum(each.cpu_ns() for each in self._entered)

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        if self._end.done() or len(self._entered) + self._entering >= ENTERED_MAX:
            why = "the container has ended" if self._end.done() else f"{ENTERED_MAX} programs have entered it"
            raise StartError(why)
        command, env, place = self._runtime.way_in(self, argv, wish)
        nested = (self.nesting.outer, self.nesting.inner) if self.nesting is not None else ()
        self._entering += 1
        try:
            session = await enter(
                self._runtime.spawner, command, env, wish, self._gone, place.namespace, nested
            )
        except StartError as error:
            if self._started.has_ended:
                raise StartError("the container has ended") from error
            raise
        finally:
            self._entering -= 1
        if not session.over:
            self._entered.add(session)
        if self._end.done():
            try:
                await session.end()
            except BaseException:
                await session.close()
                raise
        return session

    def is_nested(self) -> bool:
        """Whether it has two user namespaces, one in the other. Raises StartError."""
        if self.nesting is None:
            try:
                self.nesting = nesting_of(self.init_pid)
            except OSError as error:
                raise StartError(f"the container cannot be entered: {error}") from error
        return self.nesting is not None

    def disk_bytes(self) -> int | None:
        return nameless_bytes(self.pids())

    def attach(self, wish: Wish) -> Session:
        spec = self.spec
        if not (spec.stdin or spec.tty):
            return Attached(self._fan, wish, self._end)
        return AttachedInput(
            self._fan,
            replace(wish, stdin=wish.stdin and spec.stdin),
            self._end,
            self._started.files,
            tty=spec.tty,
            once=spec.stdin_once,
        )

    def _gone(self, session: Entered) -> None:
        self._entered.discard(session)
        self._left_ns += session.cpu_ns()

    async def _watch(self) -> ExitStatus:
        started, groups = self._started, self._runtime.groups
        await started.monitor.ended()
        used_ns = self.cpu_ns()
        code = started.code()
        oom_killed = groups is not None and groups.oom_kills(self.path) > 0
        await self._sweep()
        started.close()
        if self.nesting is not None:
            self.nesting.close()
            self.nesting = None
        self._runtime.forget(self, used_ns)
        return ExitStatus(128 - code if code < 0 else code, oom_killed)

    async def _sweep(self) -> None:
        """Kills everything and returns when it is gone."""
        groups, started = self._runtime.groups, self._started
        for each in list(self._entered):
            await each.end()
        if groups is not None:
            await clear(groups, self.path)
        if groups is None or started.init is not None:
            await started.kill()


class ProcessRuntime(Sharing):
    """See base.Runtime. `mode` None takes the best that this machine lets the server do."""

    name = "process"

    def __init__(
        self,
        data_dir: Path,
        *,
        mode: Mode | None = None,
        use_cgroups: bool = True,
        shares: Shares | None = None,
    ) -> None:
        super().__init__(shares or Shares(data_dir, use_cgroups=use_cgroups))
        self._data_dir = data_dir.resolve()
        self._mark = self.shares.mark
        self._wanted_mode = mode
        self.spawner = Spawner()
        self.probed: Probed | None = None
        self._sandbox: Sandbox | None = None
        self._pods: dict[tuple[str, str], _Pod] = {}

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

    def traits(self, pod: PodRef) -> Traits:
        env = {"PATH": search_path(), "HOSTNAME": pod.name[:63], "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
        networks, sandbox = self.shares.networks, self._sandbox
        shut_in = sandbox is not None and sandbox.mode != "plain"
        networked = shut_in and networks is not None and networks.available
        return Traits(
            "process",
            env,
            networked=networked,
            counts_memory=self.counts_memory,
            sees_mounts=shut_in and os.geteuid() == 0,
            fixed=self.shares.fixed,
        )

    async def open(self) -> None:
        await self.shares.open()
        for pid in procfs.marked(MARK, self._mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        identities = self._data_dir / "runtime"
        self.probed = await probe(
            self.spawner, self._wanted_mode, self.shares.detected, self._data_dir, identities
        )
        self._sandbox = self.probed.sandbox
        log.info("runtime ready", mode=self.probed.sandbox.mode, notes=list(self.probed.notes))

    async def close(self) -> None:
        await self.shares.close()
        for pod in self._pods.values():
            pod.close()
        self._pods.clear()
        self.spawner.close()

    # Pods and containers

    def _pod(self, ref: PodRef) -> _Pod:
        found = self._pods.get(ref.key)
        if found is None:
            found = self._pods[ref.key] = _Pod(self.shares.pod_path(ref))
        return found

    async def _prepare(self, ref: PodRef, pod: _Pod, limits: Limits) -> None:
        async with pod.ready:
            if pod.prepared:
                return
            self.shares.enforce_pod(ref, limits)
            networks = self.shares.networks
            found = networks.of(ref) if networks is not None else None
            # Of a machine the guest alone is in the network.
            pod.joined = found if found is not None and found.has_namespace else None
            if pod.joined is None and self._sandbox is not None and self._sandbox.mode == "root":
                pod.own = await self.spawner.make_network()
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
        if not spec.command:
            raise CreateError(NO_COMMAND.format(name=spec.name, image=spec.image))
        pod = self._pod(spec.pod)
        path = (*pod.path, group_name("container", f"{spec.name}-{spec.attempt}"))
        try:
            await self._prepare(spec.pod, pod, pod_limits)
            self.shares.enforce(path, spec.limits)
            entrances = self.groups.entrances(path) if self.groups is not None else ()
            if self._sandbox.mode == "plain":
                spec = adapted(spec, self._mark)
            rlimits = self._rlimits(spec.limits)
            fan = Fan(output)
            started = await launch(
                self.spawner, self._sandbox, spec, entrances, pod.place, fan, rlimits=rlimits
            )
        except OSError as error:
            raise StartError(f"the sandbox cannot be made: {error}") from error
        except StartError:
            if self.groups is not None:
                await clear(self.groups, path)
            raise
        container = Container(self, spec, path, started, fan)
        self.shares.join(spec.pod, container)
        pod.containers.add(container)
        return container

    def way_in(
        self, container: Container, argv: tuple[str, ...], wish: Wish
    ) -> tuple[list[str], dict[str, str], Place]:
        """Command line, environment and place of another program in the container. Raises StartError."""
        assert self._sandbox is not None, "open comes first"
        spec, sandbox = container.spec, self._sandbox
        missing = [name for name in ("nsenter", "setsid") if not getattr(sandbox.tools, name)]
        if missing and (sandbox.mode != "plain" or wish.tty):
            raise StartError(f"{' and '.join(missing)} of util-linux not found on the server's machine")
        entrances = self.groups.entrances(container.path) if self.groups is not None else ()
        pod = self._pods.get(spec.pod.key)
        place = pod.place if pod is not None else Place()
        nested = sandbox.mode == "user" and os.geteuid() != 0 and container.is_nested()
        adapted_argv = rewritten(argv, spec.mounts) if sandbox.mode == "plain" else argv
        command = sandbox.entering(
            spec,
            adapted_argv,
            container.init_pid,
            entrances,
            tty=wish.tty,
            rlimits=self._rlimits(spec.limits),
            place=place,
            nested=nested,
        )
        terminal = {"TERM": "xterm"} if wish.tty else {}
        env = {**(spec.env if sandbox.mode == "plain" else {"PATH": "/usr/bin:/bin"}), **terminal}
        return command, env, place

    def forget(self, container: Container, used_ns: int) -> None:
        """The container has ended and everything of it is gone."""
        ref = container.spec.pod
        self.shares.leave(ref, container, used_ns)
        if (pod := self._pods.get(ref.key)) is not None:
            pod.containers.discard(container)

    async def forget_agent(self, cluster: str) -> None:
        """See base.PodRuntime."""
        if self.separates_users:
            await asyncio.to_thread(keyrings.clear, uid_of(cluster))

    async def remove_pod(self, pod: PodRef) -> None:
        found = self._pods.get(pod.key)
        if found is None:
            return
        await asyncio.gather(*(each.kill() for each in list(found.containers)))
        if self.groups is not None:
            await clear(self.groups, found.path)
        found.close()
        self._pods.pop(pod.key, None)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = self._pods.get(pod.key)
        if found is None or not found.containers or self._sandbox is None:
            raise ServiceUnavailable(f'pod "{pod.name}" is not running')
        pids = [each.init_pid for each in found.containers]
        return await connect(self._sandbox.mode, pod.name, self._opener(found), pids, port)

    def _opener(self, pod: _Pod) -> OpenSocket | None:
        networks = self.shares.networks
        if pod.joined is not None and networks is not None:
            return partial(networks.socket_in, pod.joined)
        return partial(self._socket_in, pod) if pod.own is not None else None

    async def _socket_in(self, pod: _Pod, family: socket.AddressFamily) -> socket.socket:
        # Its descriptor may be another's by the time that another family is tried.
        if pod.own is None:
            raise OSError("the pod's network is gone")
        return await self.spawner.socket_in(pod.own, family)
