"""One container of the engine, from its start until nothing of it is left."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from walras.core.errors import WalrasError
from walras.runtimes import procfs, usage
from walras.runtimes.attaching import Attached, AttachedInput, Fan
from walras.runtimes.base import ContainerSpec, ExitStatus, Session, StartError, Stream, Wish
from walras.runtimes.cgroups import GroupPath, Groups, clear, read
from walras.runtimes.engine.client import Engine, EngineError, Streams, has_just_ended
from walras.runtimes.engine.service import Source
from walras.runtimes.engine.sessions import Entered, Typing, enter
from walras.runtimes.engine.streams import frames
from walras.runtimes.spawn import Handle, open_handle

log = structlog.get_logger(__name__)

# Programs that may be in one container at a time beside its own.
ENTERED_MAX: Final = 32
# A program that says more than this in a second is held up, not the server.
_BYTES_PER_SECOND_MAX: Final = 8 << 20
_BREATH_BYTES: Final = 65_536
# How long the engine may take to learn what the kernel already said.
_TELL_S: Final = 10.0
_LINGER_S: Final = 2.0
_REMOVE_TRIES: Final = 4
_KILLED: Final = 128 + signal.SIGKILL
# The group of Podman's monitor of a container, beside the container's own.
_MONITOR: Final = "conmon"


class Host(Protocol):
    """What a container asks its runtime for."""

    @property
    def groups(self) -> Groups | None: ...

    # As many things as the engine does at a time.
    turns: asyncio.Semaphore

    @property
    def service(self) -> Source: ...

    async def engine(self) -> Engine: ...

    def forget(self, container: Container, used_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Started:
    """`pid`: the main process, 0 when it has ended. `layer`: where what it writes over its image lies."""

    streams: Streams
    pid: int
    layer: Path | None


class Container:
    """A started container; see base.Process."""

    def __init__(
        self,
        host: Host,
        engine_id: str,
        spec: ContainerSpec,
        path: GroupPath,
        started: Started,
        fan: Fan,
    ) -> None:
        self.id, self.spec, self.path = engine_id, spec, path
        pid, self._layer = started.pid, started.layer
        self._host = host
        self._reader, self._writer = started.streams
        self._fan = fan
        self._main: Handle | None = open_handle(pid) if pid else None
        # Set when the main process has ended.
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.init_pid = pid
        self._cpu_ns = 0
        self._told_oom = False
        # Docker has none, and Podman before 5 leaves it outside where control groups are of version 2.
        self._has_monitor = self._is_watched()
        self._in_a_breath = 0
        self._entered: set[Entered] = set()
        # Programs that are on their way in.
        self._entering = 0
        self._asked: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        self._saying = loop.create_task(self._listen())
        self._end = loop.create_task(self._watch())

    async def _listen(self) -> None:
        """Passes on what the container says; takes it up again when the engine went and came back."""
        while True:
            await frames(self._reader, self.spec.tty, self._say)
            # The end of its output is told a moment before its own.
            await asyncio.wait((self._gone,), timeout=_LINGER_S)
            if self._gone.done():
                return
            try:
                streams = await attach(await self._host.engine(), self.id, self.spec.stdin)
            except WalrasError:
                continue
            self._writer.close()
            self._reader, self._writer = streams

    async def _say(self, stream: Stream, data: bytes) -> None:
        self._fan(stream, data)
        self._in_a_breath += len(data)
        if self._in_a_breath >= _BREATH_BYTES:
            breath_s, self._in_a_breath = self._in_a_breath / _BYTES_PER_SECOND_MAX, 0
            await asyncio.sleep(breath_s)

    def signal(self, signum: int) -> None:
        if self._main is not None:
            self._main.signal(signum)

    async def kill(self) -> None:
        if self._host.groups is not None:
            # The monitor first: what it would have to tell is known.
            self._host.groups.kill((*self.path, _MONITOR))
        # The first process of a pid namespace takes all others with it.
        self.signal(signal.SIGKILL)
        await asyncio.shield(self._end)

    async def wait(self) -> ExitStatus:
        return await asyncio.shield(self._end)

    def pids(self) -> list[int]:
        """The container's processes as far as they can be told."""
        if self._host.groups is not None:
            return self._host.groups.pids(self._own_group())
        return [self.init_pid, *procfs.descendants(self.init_pid)] if self.init_pid else []

    def cpu_ns(self) -> int:
        """CPU time so far; a moment old once it has ended."""
        self._cpu_ns = max(self._cpu_ns, sum(procfs.cpu_ns(pid) for pid in self.pids()))
        return self._cpu_ns

    def disk_bytes(self) -> int | None:
        written = usage.disk_bytes(self._layer) if self._layer is not None else 0
        return usage.added(written, usage.nameless_bytes(self.pids()))

    def _own_group(self) -> GroupPath:
        """Where the engine puts the container's processes, in the group that the server made for it."""
        return (*self.path, self._host.service.group(self.id))

    async def enter(self, argv: tuple[str, ...], wish: Wish) -> Session:
        if self._end.done() or len(self._entered) + self._entering >= ENTERED_MAX:
            why = "the container has ended" if self._end.done() else f"{ENTERED_MAX} programs have entered it"
            raise StartError(why)
        self._entering += 1
        try:
            engine = await self._host.engine()
            session = await enter(engine, self.id, argv, wish, self._entered.discard)
        except StartError:
            raise
        except WalrasError as error:
            raise StartError(error.message) from error
        finally:
            self._entering -= 1
        if not session.over:
            self._entered.add(session)
        return session

    def attach(self, wish: Wish) -> Session:
        spec = self.spec
        if not (spec.stdin or spec.tty):
            return Attached(self._fan, wish, self._end)
        way = Typing(lambda: self._writer, self._resize, tty=spec.tty)
        heard = replace(wish, stdin=wish.stdin and spec.stdin)
        return AttachedInput(self._fan, heard, self._end, way, tty=spec.tty, once=spec.stdin_once)

    def _resize(self, columns: int, rows: int) -> None:
        size = {"w": min(columns, 0xFFFF), "h": min(rows, 0xFFFF)}

        async def tell() -> None:
            with suppress(WalrasError):
                engine = await self._host.engine()
                await engine.call("POST", f"/containers/{self.id}/resize", params=size)

        task = asyncio.get_running_loop().create_task(tell())
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    # Its end

    async def _watch(self) -> ExitStatus:
        if self._main is not None:
            await self._main.ended()
        self._gone.set_result(None)
        used_ns, oom_killed = self.cpu_ns(), self._was_oom()
        code = await self._code()
        await asyncio.gather(*(each.end() for each in list(self._entered)))
        groups = self._host.groups
        if groups is not None:
            # With it goes what Podman's monitor starts to clean up, which for many at once is too much.
            await clear(groups, self.path)
        await asyncio.wait((self._saying,), timeout=_LINGER_S)
        self._saying.cancel()
        self._writer.close()
        await remove(self._host, self.id)
        self._host.forget(self, used_ns)
        return ExitStatus(code, (oom_killed or self._told_oom) and code == _KILLED)

    def _was_oom(self) -> bool:
        groups = self._host.groups
        return groups is not None and any(groups.oom_kills(path) for path in (self.path, self._own_group()))

    def _is_watched(self) -> bool:
        """Whether Podman's monitor is there to tell of the end; it dies with all that is killed around it."""
        groups = self._host.groups
        return self._host.service.own if groups is None else bool(groups.pids((*self.path, _MONITOR)))

    async def _code(self) -> int:
        """What the monitor wrote down when it had passed on all output; without one, what the server did."""
        loop = asyncio.get_running_loop()
        deadline_s, pause_s = loop.time() + _TELL_S, 0.001
        while loop.time() < deadline_s:
            watched = self._is_watched()
            if said := read(self._host.service.exits / self.id).strip():
                return int(said)
            if not watched:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        # It may have been cleaned up before anybody looked.
        with suppress(WalrasError):
            engine = await self._host.engine()
            while True:
                state = (await engine.look(self.id))["State"]
                if state.get("Status") == "exited":
                    # Docker's groups of containers end with them, and what was counted there.
                    self._told_oom = bool(state.get("OOMKilled"))
                    return int(state["ExitCode"])
                # One that was killed with all others tells nobody.
                if self._has_monitor or loop.time() > deadline_s:
                    break
                await asyncio.sleep(pause_s)
        return _KILLED


async def remove(host: Host, engine_id: str) -> None:
    """Takes the container from the engine, with all that it wrote."""
    why = ""
    for _ in range(_REMOVE_TRIES):
        try:
            engine = await host.engine()
            async with host.turns:
                await engine.call("DELETE", f"/containers/{engine_id}", params={"force": "true", "v": "true"})
        except WalrasError as error:
            if isinstance(error, EngineError) and error.status == 404:
                return
            # One that was killed from under its monitor takes two.
            why = error.message
            await asyncio.sleep(0.05)
        else:
            return
    log.warning("container not removed", container=engine_id, error=why)


async def attach(engine: Engine, engine_id: str, stdin: bool) -> Streams:
    """The container's streams; one that was only made gets ready by it. Raises EngineError."""
    wanted = {"stream": "true", "stdout": "true", "stderr": "true", **({"stdin": "true"} if stdin else {})}
    return await engine.hijack(f"/containers/{engine_id}/attach", params=wanted)


async def watch_start(engine: Engine, engine_id: str, stdin: bool) -> Started:
    """Attaches and starts. Raises EngineError."""
    streams = await attach(engine, engine_id, stdin)
    try:
        await _start(engine, engine_id)
        found = await engine.look(engine_id)
    except BaseException:
        streams[1].close()
        raise
    layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    return Started(streams, int(found["State"].get("Pid") or 0), Path(layer) if layer else None)


async def _start(engine: Engine, engine_id: str) -> None:
    try:
        await engine.call("POST", f"/containers/{engine_id}/start")
    except EngineError as error:
        if not has_just_ended(error):
            raise
