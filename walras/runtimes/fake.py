"""A runtime that runs nothing and remembers everything, for tests of what stands on the port."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field

from walras.core.errors import ServiceUnavailable
from walras.runtimes.attaching import Attached, Fan
from walras.runtimes.base import (
    KILLED,
    ContainerSpec,
    CreateError,
    ExitStatus,
    Images,
    Limits,
    Output,
    PodRef,
    Process,
    Resize,
    ResizeError,
    Session,
    StartError,
    Traits,
    Wish,
    no_runtime,
)

Answer = Callable[["FakeProcess", tuple[str, ...]], int | None]
Server = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(eq=False)
class FakeProcess:
    """Runs until `exit` is called or it is signalled; `stubborn` ones ignore every signal but SIGKILL."""

    id: str
    spec: ContainerSpec
    output: Fan
    stubborn: bool = False
    # The exit code of a program that enters, None for one that goes on; without it all go on.
    answer: Answer | None = None
    entered: list[tuple[str, ...]] = field(default_factory=list)
    taken_bytes: int | None = 0
    signals: list[int] = field(default_factory=list)
    _ended: asyncio.Future[ExitStatus] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    def exit(self, code: int, *, oom_killed: bool = False) -> None:
        if self.alive:
            self._ended.set_result(ExitStatus(code, oom_killed))

    def signal(self, signum: int) -> None:
        self.signals.append(signum)
        if not self.stubborn:
            self.exit(128 + signum)

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        """A program that says what the main one does."""
        self.entered.append(argv)
        code = self.answer(self, argv) if self.answer is not None else None
        if code is None:
            return self.attach(wish)
        over: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        over.set_result(ExitStatus(code))
        return Attached(Fan(lambda _stream, _data: None), wish, over)

    def attach(self, wish: Wish) -> Session:
        return Attached(self.output, wish, self._ended)

    def disk_bytes(self) -> int | None:
        return self.taken_bytes

    async def kill(self) -> None:
        if not self.alive:
            return
        self.signals.append(signal.SIGKILL)
        self.exit(KILLED)

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self._ended)


class FakeRuntime:
    """See base.Runtime. `refuse` may give a message with which a start fails.

    `answer` is asked for the exit code of a program that enters, `ports` are what every pod listens on.
    """

    separates_users = False
    warnings = ()

    def __init__(
        self,
        refuse: Callable[[ContainerSpec], str] | None = None,
        *,
        stubborn: bool = False,
        fixed: str = "",
        images: Images | None = None,
        handlers: Collection[str] = ("",),
        answer: Answer | None = None,
        counts_memory: bool = False,
        sees_mounts: bool = False,
    ) -> None:
        self.processes: list[FakeProcess] = []
        self.nodes: dict[tuple[str, str], Limits] = {}
        self.removed_pods: list[PodRef] = []
        self.forgotten: list[str] = []
        self.used_ms: dict[tuple[str, str], int] = {}
        self.ports: dict[int, Server] = {}
        self._refuse, self._stubborn, self._images, self._handlers = refuse, stubborn, images, handlers
        self._answer, self._counts_memory, self._sees_mounts = answer, counts_memory, sees_mounts
        self._fixed = fixed
        # Why pods cannot be resized now, and what was changed.
        self.unwilling = ""
        self.resized: list[tuple[Resize, dict[str, Resize]]] = []
        self._serving: set[asyncio.Task[None]] = set()

    def traits(self, pod: PodRef) -> Traits:
        if pod.handler not in self._handlers:
            raise no_runtime(pod.handler)
        return Traits(
            "fake",
            {"HOSTNAME": pod.name},
            self._images,
            counts_memory=self._counts_memory,
            sees_mounts=self._sees_mounts,
            fixed=self._fixed,
        )

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for process in self.processes:
            await process.kill()

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        self.nodes[cluster, node] = limits

    def resize(self, pod: PodRef, whole: Resize, parts: Mapping[str, tuple[Process, Resize]]) -> None:
        del pod
        if self.unwilling:
            raise ResizeError(self.unwilling)
        self.resized.append((whole, {name: change for name, (_, change) in parts.items()}))

    async def remove_node(self, cluster: str, node: str) -> None:
        for process in self.processes:
            if (process.spec.pod.cluster, process.spec.pod.node) == (cluster, node):
                await process.kill()
        self.nodes.pop((cluster, node), None)

    def cpu_ms(self, cluster: str, node: str) -> int:
        return self.used_ms.get((cluster, node), 0)

    def pids(self, cluster: str, node: str) -> list[int]:
        del cluster, node
        return []

    async def start(self, spec: ContainerSpec, output: Output, pod_limits: Limits) -> FakeProcess:
        del pod_limits
        if not spec.command and self._images is None:
            raise CreateError(f'container "{spec.name}" has no command')
        if self._refuse is not None and (message := self._refuse(spec)):
            raise StartError(message)
        number = len(self.processes)
        process = FakeProcess(f"fake-{number}", spec, Fan(output), self._stubborn, self._answer)
        self.processes.append(process)
        return process

    async def forget_agent(self, cluster: str) -> None:
        self.forgotten.append(cluster)

    async def remove_pod(self, pod: PodRef) -> None:
        for process in self.processes:
            if process.spec.pod == pod:
                await process.kill()
        self.removed_pods.append(pod)

    async def dial(self, pod: PodRef, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = self.ports.get(port)
        if server is None:
            raise ServiceUnavailable(f'pod "{pod.name}" does not answer on port {port}')
        ours, theirs = socket.socketpair()
        task = asyncio.ensure_future(_serve(server, theirs))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return await asyncio.open_connection(sock=ours)


async def _serve(server: Server, sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        await server(reader, writer)
    finally:
        writer.close()
