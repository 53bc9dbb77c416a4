"""Podman's API as a child of the server, with images and containers of the server's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final, Protocol

import structlog

from walras.core.errors import StorageError
from walras.runtimes import procfs
from walras.runtimes.engine.apart import Apart
from walras.runtimes.engine.client import Engine, EngineError

log = structlog.get_logger(__name__)

_START_S: Final = 30.0
_STOP_S: Final = 5.0
# Below the directory, for what is fetched and not unpacked.
_SCRATCH: Final = "scratch"
_NUMBERS = count(1)
# What the environment of a service says: whose it is.
_ENGINE: Final = "WALRAS_ENGINE"
_MINIMAL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Source(Protocol):
    """Where the engine comes from."""

    # Whether images and containers in it are the server's alone; its writes are counted, its files known.
    own: bool
    # How long the engine may go on with a pull that was cut off.
    settles_s: float
    # Whether containers join a network namespace by its path; else by a container that is in it.
    joins_paths: bool
    # Where the images are, once there is an engine.
    storage: Path
    # A folder for sockets and the like, gone with the next start of the machine.
    run: Path

    @property
    def used(self) -> bool:
        """Whether it may have something of an earlier run."""

    @property
    def running(self) -> bool: ...

    @property
    def registries(self) -> Path:
        """The operator's own words on registries."""

    @property
    def exits(self) -> Path:
        """Where Podman's monitors write the exit codes of containers, in files of their ids."""

    def group(self, engine_id: str) -> str:
        """What it calls a container's control group."""

    def forget(self, engine_id: str) -> None:
        """Deletes what is left of a container that the engine has removed."""

    async def engine(self) -> Engine:
        """A client of it. Raises EngineError, StorageError, Invalid."""

    def apart(self) -> AbstractAsyncContextManager[Apart]:
        """An engine on the same images for one piece of work. Raises EngineError."""

    async def probe(self) -> None:
        """Raises Invalid when it is known that it will not do."""

    def prepare(self) -> None:
        """Makes its folder and what is configured there. Raises OSError."""

    def end_earlier(self) -> None:
        """Ends an engine that outlived the server which started it."""

    async def close(self) -> None:
        """Containers are the caller's to remove before."""


class Service:
    """See Source. `podman system service`, started when it is first needed and again when it has died."""

    own, joins_paths, settles_s = True, True, 0.0

    def __init__(self, directory: Path, run: Path, mark: str, runtime: str) -> None:
        self._directory, self._runtime = directory, runtime
        self.run, self.storage = run, directory / "storage"
        self._mark = mark
        self._child: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._engine: Engine | None = None
        # Where services apart put what they fetch.
        self._apart: set[Path] = set()

    @property
    def used(self) -> bool:
        return self.storage.is_dir()

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def registries(self) -> Path:
        return self._directory / "registries.conf"

    @property
    def exits(self) -> Path:
        return self.run / "libpod" / "exits"

    async def engine(self) -> Engine:
        async with self._starting:
            if self._engine is not None and self.running:
                return self._engine
            await self._let_go()
            self._engine = await self._start()
            return self._engine

    def group(self, engine_id: str) -> str:
        return f"libpod-{engine_id}"

    @property
    def _states(self) -> Path:
        """Where the OCI runtime keeps what it knows of containers."""
        return self.run / "oci"

    def forget(self, engine_id: str) -> None:
        # Podman does not have the OCI runtime forget a container whose monitor was killed.
        shutil.rmtree(self._states / engine_id, ignore_errors=True)

    async def probe(self) -> None:
        """It is not started before it is needed."""

    def prepare(self) -> None:
        self.environment()

    def end_earlier(self) -> None:
        for pid in procfs.marked(_ENGINE, self._mark):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Apart]:
        """Another service, which ends with all that it began."""
        # The first one makes ready what they share.
        await self.engine()
        name = f"apart-{next(_NUMBERS)}"
        socket, scratch = self.run / f"{name}.sock", self._directory / _SCRATCH / name
        self._apart.add(scratch)
        try:
            child, engine = await self._spawn(socket, scratch)
            try:
                yield Apart(engine, child.pid, scratch)
            finally:
                _kill(child, signal.SIGKILL)
                await engine.close()
                await child.wait()
        finally:
            socket.unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
            self._apart.discard(scratch)

    async def _start(self) -> Engine:
        await asyncio.to_thread(self._tidy)
        self._child, engine = await self._spawn(self.run / "api.sock", self._directory / _SCRATCH)
        log.info("container engine ready", directory=str(self._directory))
        return engine

    def _tidy(self) -> None:
        """Takes away what earlier services fetched, but not what others fetch at the moment."""
        for each in (self._directory / _SCRATCH).glob("*"):
            if each.is_dir() and each not in self._apart:
                shutil.rmtree(each, ignore_errors=True)
            elif not each.is_dir():
                each.unlink(missing_ok=True)

    async def _spawn(self, socket: Path, scratch: Path) -> tuple[asyncio.subprocess.Process, Engine]:
        """A service that listens. `scratch`: where it puts what it fetches until it is unpacked."""
        podman = shutil.which("podman")
        if podman is None:
            raise EngineError("podman is not installed")
        env = self._prepared(socket, scratch)
        with open(self._directory / "service.log", "ab") as said:  # noqa: ASYNC230  a local file, once
            child = await asyncio.create_subprocess_exec(
                *_with_its_parent(), podman, "--runtime-flag", f"root={self._states}",
                "system", "service", "--time=0", f"unix://{socket}",
                env={**env, _ENGINE: self._mark, "TMPDIR": str(scratch)},
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                cwd=self.run,  # where what it starts may leave files
            )  # fmt: skip
        try:
            return child, await self._ready(child, socket)
        except BaseException:
            _kill(child, signal.SIGKILL)
            raise

    def _prepared(self, socket: Path, scratch: Path) -> dict[str, str]:
        """Makes its places: the environment to start it in. Raises StorageError."""
        try:
            env = self.environment()
            self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.mkdir(parents=True, exist_ok=True)
            socket.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{self._directory} cannot be written: {error.strerror or error}") from error
        return env

    async def _ready(self, child: asyncio.subprocess.Process, socket: Path) -> Engine:
        engine = Engine(str(socket))
        deadline_s = asyncio.get_running_loop().time() + _START_S
        try:
            while child.returncode is None and asyncio.get_running_loop().time() < deadline_s:
                with suppress(EngineError):
                    await engine.call("GET", "/version")
                    return engine
                await asyncio.sleep(0.02)
        except BaseException:
            await engine.close()
            raise
        await engine.close()
        raise EngineError(f"podman does not start; see {self._directory / 'service.log'}")

    def environment(self) -> dict[str, str]:
        """Writes its configuration: the variables with which `podman` finds it. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in self._files().items():
            path = self._directory / name
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        if not self.registries.exists():
            self.registries.write_text(
                "# Registries without TLS, mirrors and blocked ones: containers-registries.conf(5)\n"
            )
        kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
        return kept | {
            "PATH": os.environ.get("PATH", _MINIMAL_PATH),
            "HOME": str(self._directory),
            "CONTAINERS_CONF": str(self._directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self._directory / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.registries),
        }

    def _files(self) -> dict[str, str]:
        ulimits = ", ".join(f'"{each}"' for each in _ulimits())
        return {
            "containers.conf": f"""\
# Written by the server at every start.
[containers]
default_ulimits = [{ulimits}]
log_driver = "none"
[engine]
cgroup_manager = "cgroupfs"
compat_api_enforce_docker_hub = false
events_logger = "none"
runtime = "{self._runtime}"
tmp_dir = "{self.run}/libpod"
""",
            "storage.conf": f"""\
# Written by the server at every start.
[storage]
driver = "overlay"
graphroot = "{self._directory}/storage"
runroot = "{self.run}/storage"
""",
        }

    async def close(self) -> None:
        async with self._starting:
            await self._let_go()
        await asyncio.to_thread(self.clear)

    def clear(self) -> None:
        """Takes away what Podman mounted, and all that it would not keep over a start of the machine."""
        unmount((self._directory, self.run))
        shutil.rmtree(self.run, ignore_errors=True)

    async def _let_go(self) -> None:
        engine, child, self._engine, self._child = self._engine, self._child, None, None
        if engine is not None:
            await engine.close()
        if child is None or child.returncode is not None:
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            _kill(child, signum)
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), _STOP_S)
                return


def _kill(child: asyncio.subprocess.Process, signum: int) -> None:
    """To it and to what it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signum)


def _with_its_parent() -> tuple[str, ...]:
    """What a command starts with that is to end when the server does, however that ends."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def unmount(directories: Sequence[Path]) -> None:
    """Takes away what was mounted below them and left."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if any(Path(point.replace("\\040", " ")).is_relative_to(each) for each in directories):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _ulimits() -> list[str]:
    """Those that Podman would otherwise set higher than this machine lets anybody; it lowers its own too."""
    import resource  # noqa: PLC0415  there is none on other systems

    found = []
    most = {"nofile": (resource.RLIMIT_NOFILE, 1_048_576), "nproc": (resource.RLIMIT_NPROC, _pids_max())}
    for name, (number, limit) in most.items():
        hard = resource.getrlimit(number)[1]
        held = limit if hard == resource.RLIM_INFINITY else min(hard, limit)
        found.append(f"{name}={held}:{held}")
    return found


def _pids_max() -> int:
    return int(Path("/proc/sys/kernel/pid_max").read_text())
