"""One container of the engine, from its start until nothing of it is left."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from walras.core.errors import WalrasError
from walras.runtimes import procfs, usage
from walras.runtimes.attaching import Attached, AttachedInput, Fan
from walras.runtimes.base import KILLED, ContainerSpec, ExitStatus, Session, StartError, Stream, Wish
from walras.runtimes.cgroups import GroupPath, clear, read
from walras.runtimes.engine.sessions import Entered, Typing, enter
from walras.runtimes.engine.starting import Host as Starting
from walras.runtimes.engine.starting import Started, attach, remove
from walras.runtimes.engine.streams import frames
from walras.runtimes.spawn import Handle, open_handle

# Programs that may be in one container at a time beside its own.
ENTERED_MAX: Final = 32
# A program that says more than this in a second is held up, not the server.
_BYTES_PER_SECOND_MAX: Final = 8 << 20
_BREATH_BYTES: Final = 65_536
# How long the engine may take to learn what the kernel already said.
_TELL_S: Final = 10.0
_LINGER_S: Final = 2.0
_ASK_AGAIN_S: Final = 0.05
# The group of Podman's monitor of a container, beside the container's own.
_MONITOR: Final = "conmon"


class Host(Starting, Protocol):
    """What a container asks its runtime for."""

    def forget(self, container: Container, used_ns: int) -> None: ...


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
            if await self._has_ended():
                return
            try:
                streams = await attach(await self._host.engine(), self.id, self.spec.stdin)
            except WalrasError:
                continue
            self._writer.close()
            self._reader, self._writer = streams

    async def _has_ended(self) -> bool:
        """Whether that was all it says; else the engine has gone, and nobody hears it meanwhile."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _LINGER_S
        while True:
            # The end of its output is told a moment before its own.
            await asyncio.wait((self._gone,), timeout=_ASK_AGAIN_S)
            if self._gone.done() or not self._host.service.running or loop.time() > deadline_s:
                return self._gone.done()

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
            session = await enter(engine, self.id, argv, wish, self._entered.discard, self._gone)
        except StartError as error:
            if self._gone.done():
                raise StartError("the container has ended") from error
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
        return ExitStatus(code, (oom_killed or self._told_oom) and code == KILLED)

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
        return KILLED
