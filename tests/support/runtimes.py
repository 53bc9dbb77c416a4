"""Every real runtime, for stories about programs that any of them must tell alike."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

from walras.runtimes.base import (
    ContainerSpec,
    ExitStatus,
    Limits,
    Mount,
    Output,
    PodRef,
    PodRuntime,
    Process,
    Stream,
    Wish,
)
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.engine.runtime import ContainerRuntime
from walras.runtimes.engine.service import Service
from walras.runtimes.handlers import CONTAINER, Offer, offers
from walras.runtimes.network.networks import Networks
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.shares import Shares
from walras.runtimes.vm import parts
from walras.runtimes.vm.parts import is_static
from walras.runtimes.vm.runtime import VmRuntime

UNLIMITED: Final = Limits()
IMAGE: Final = "localhost/busybox:1"
# The socket of a Docker or Podman that was started for tests, as `walras up --engine` takes one.
ENGINE: Final = os.environ.get("WALRAS_TEST_ENGINE", "").removeprefix("unix://")
# All that the images of tests have: one that needs no libraries.
BUSYBOX: Final = next((each for each in ("/bin/busybox", "/usr/bin/busybox") if is_static(each)), "")


@dataclass(frozen=True)
class Kind:
    """A runtime to be tested. `missing` says why it is not to be had here."""

    name: str
    missing: str
    make: Callable[[Path, Shares], PodRuntime]
    # Called with the runtime once it is open: the image's id.
    image: Callable[[PodRuntime], Awaitable[str]] | None = None
    # Whether its pods are machines: they take so long to start that stories share them, and have processes
    # of their own.
    machines: bool = False

    def __str__(self) -> str:
        return self.name


def kinds() -> list[Kind]:
    busybox = "" if BUSYBOX else "no static busybox is installed"
    bwrap = "" if shutil.which("bwrap") else "bubblewrap is not installed"
    root = "" if os.geteuid() == 0 else "needs root"
    container = container_offer()
    return [
        Kind("process", bwrap or busybox, lambda data, shares: ProcessRuntime(data, shares=shares)),
        Kind(
            "process-user",
            bwrap or busybox or root,
            lambda data, shares: ProcessRuntime(data, mode="user", shares=shares),
        ),
        Kind(
            "container",
            "" if container.make and not busybox else f"{container.detail} {busybox}",
            lambda data, shares: ContainerRuntime(data, program="runc", shares=shares),
            image,
        ),
        Kind(
            "engine",
            "" if ENGINE and not (busybox or root) else f"no engine in WALRAS_TEST_ENGINE {busybox} {root}",
            lambda data, shares: ContainerRuntime(data, socket=Path(ENGINE), shares=shares),
            image,
        ),
        vm(),
    ]


def vm() -> Kind:
    """Virtual machines, emulated: what a guest does is the same, only slower."""
    found, missing = parts.find()

    def make(data: Path, shares: Shares) -> PodRuntime:
        assert found is not None
        return VmRuntime(data, found, shares=shares, accelerator="tcg")

    return Kind("vm", missing, make, machines=True)


def container_offer() -> Offer:
    """Whether the container runtime is to be had on this machine."""
    return next(each for each in offers(Path("/nowhere")) if each.handler == CONTAINER)


async def image(runtime: PodRuntime) -> str:
    """An image with nothing in it but busybox."""
    assert isinstance(runtime, ContainerRuntime)
    if runtime.service.own:
        await asyncio.to_thread(import_image, runtime, IMAGE)
    else:
        await (await runtime.engine()).load(file_system(), IMAGE)
    found = await runtime.images.find(PodRef("any", "any", "any", "any"), IMAGE, ())
    assert found, "it was imported"
    return found


def import_image(runtime: ContainerRuntime, name: str) -> None:
    assert isinstance(runtime.service, Service)
    subprocess.run(
        ["podman", "import", "--change", "ENV PATH=/bin", "--change", 'CMD ["sh", "-c", "echo by itself"]',
         "--change", 'ENTRYPOINT ["env"]', "-", name],
        input=file_system(), env=runtime.service.environment(), check=True, capture_output=True,
    )  # fmt: skip


def file_system() -> bytes:
    """A root file system as a tar archive."""
    text = BytesIO()
    listed = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(fileobj=text, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "root"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        archive.add(BUSYBOX, "bin/busybox")
        for name in listed:
            if name != "busybox":
                entry = tarfile.TarInfo(f"bin/{name}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
        passwd = b"root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1000::/tmp:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, BytesIO(passwd))
    return text.getvalue()


@dataclass
class World:
    """A runtime with one node, and whoever starts programs there. `path` is the programs' $PATH."""

    kind: Kind
    runtime: Runtimes
    shares: Shares
    data_dir: Path
    image: str = ""
    attempts: dict[str, int] = field(default_factory=dict)
    begun: list[Process] = field(default_factory=list)

    def pod(self, name: str = "p1", cluster: str = "acme", node: str = "base") -> PodRef:
        return PodRef(cluster, node, f"uid-{cluster}-{name}", name)

    def spec(self, *argv: str, pod: PodRef | None = None, **more: object) -> ContainerSpec:
        ref = pod or self.pod()
        name = str(more.pop("name", "main"))
        attempt = self.attempts[f"{ref.uid}/{name}"] = self.attempts.get(f"{ref.uid}/{name}", -1) + 1
        env = {**self.runtime.traits(ref).env, **(more.pop("env", None) or {})}  # type: ignore[dict-item]
        return ContainerSpec(
            ref,
            name,
            attempt,
            argv,
            env,
            image=IMAGE,
            image_id=self.image,
            **more,  # type: ignore[arg-type]
        )

    async def begin(
        self,
        *argv: str,
        pod: PodRef | None = None,
        pod_limits: Limits = UNLIMITED,
        env: Mapping[str, str] | None = None,
        mounts: tuple[Mount, ...] = (),
        limits: Limits = UNLIMITED,
        **more: object,
    ) -> tuple[Process, bytearray]:
        """A started program, and what it says as it says it."""
        said = bytearray()
        spec = self.spec(*argv, pod=pod, env=env, mounts=mounts, limits=limits, **more)
        if self.kind.machines and (mounts or pod_limits != UNLIMITED):
            # What a machine has it has from its start.
            await self.runtime.remove_pod(spec.pod)
        self.begun.append(await self.runtime.start(spec, hearing(said), pod_limits))
        return self.begun[-1], said

    async def run(self, *argv: str, **more: object) -> tuple[ExitStatus, str]:
        process, said = await self.begin(*argv, **more)  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            return await process.wait(), said.decode()

    async def shell(self, script: str, **more: object) -> tuple[int, str]:
        status, said = await self.run("sh", "-c", script, **more)
        return status.code, said

    async def until_running(self, process: Process, *argv: str, yes: bool = True) -> None:
        """Returns when a program with this command line runs, or does not, in the container at least."""
        async with asyncio.timeout(60):
            while await self._is_running(process, argv) != yes:  # noqa: ASYNC110  only the guest knows
                await asyncio.sleep(0.02)

    async def _is_running(self, process: Process, argv: tuple[str, ...]) -> bool:
        if not self.kind.machines:
            return bool(processes_with("\0".join(argv)))
        _, said = await self.enter(process, BUSYBOX, "ps")
        return f" {' '.join(argv)}\n".encode() in said

    async def hears(self, said: bytearray, what: bytes = b"\n") -> None:
        """Returns when the program has said it."""
        async with asyncio.timeout(20):
            while what not in said:  # noqa: ASYNC110  only the other process knows when
                await asyncio.sleep(0.01)

    async def enter(self, process: Process, *argv: str, given: bytes = b"") -> tuple[int, bytes]:
        """Another program in the container: its exit code and what it said on both streams."""
        async with asyncio.timeout(60):
            session = await process.enter(argv, Wish(stdin=bool(given), stdout=True, stderr=True))
            if given:
                await session.write(given)
                session.end_input()
            said = await asyncio.gather(*(whole(session, stream) for stream in session.outputs))
            code = await session.wait()
            await session.close()
            return code, b"".join(said)


def hearing(said: bytearray) -> Output:
    def output(_stream: Stream, data: bytes) -> None:
        said.extend(data)

    return output


async def whole(session: object, stream: Stream) -> bytes:
    """What a session says on a stream until its end."""
    text = b""
    while data := await session.read(stream):  # type: ignore[attr-defined]
        text += data
    return text


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def processes_with(word: str) -> list[int]:
    """Processes of this machine whose command line has the word in it, wherever they run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if word.encode() in (path / "cmdline").read_bytes() and int(path.name) != os.getpid():
                found.append(int(path.name))
    return [pid for pid in found if alive(pid)]


class Kept:
    """A runtime that stays open from one story to the next, until Python ends."""

    def __init__(self, kind: Kind) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._kind, self._data_dir = kind, Path(self._directory.name)
        self._shares = Shares(self._data_dir)
        self._runtime = Runtimes(
            self._shares, {kind.name: kind.make(self._data_dir, self._shares)}, kind.name
        )
        self._attempts: dict[str, int] = {}
        self._runner = asyncio.Runner()
        self._runner.run(self._runtime.open())
        atexit.register(self._close)

    def play(self, story: Callable[[World], Awaitable[None]]) -> None:
        world = World(self._kind, self._runtime, self._shares, self._data_dir, attempts=self._attempts)

        async def run() -> None:
            try:
                await story(world)
            finally:
                await asyncio.gather(*(each.kill() for each in world.begun))
                await self._runtime.remove_pod(world.pod("p2"))
                self._runtime.set_node("acme", "base", UNLIMITED)

        self._runner.run(run())

    def _close(self) -> None:
        self._runner.run(self._runtime.close())
        self._runner.close()
        self._directory.cleanup()


_kept: dict[str, Kept] = {}


def tell_alike(kind: Kind, data_dir: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """As `tell`, but that stories may find machines of earlier ones, without what ran there."""
    if not kind.machines:
        tell(kind, data_dir, story)
        return
    if kind.name not in _kept:
        _kept[kind.name] = Kept(kind)
    _kept[kind.name].play(story)


def tell(
    kind: Kind,
    data_dir: Path,
    story: Callable[[World], Awaitable[None]],
    *,
    use_cgroups: bool = True,
    networks: Networks | None = None,
) -> None:
    """Runs the story with the runtime open, and closes it. `networks`: where its pods may meet."""

    async def run() -> None:
        one_path = kind.image is not None
        shares = Shares(data_dir, use_cgroups=use_cgroups, one_path=one_path, networks=networks)
        one = kind.make(data_dir, shares)
        runtime = Runtimes(shares, {kind.name: one}, kind.name)
        await runtime.open()
        try:
            found = await kind.image(one) if kind.image is not None else ""
            await story(World(kind, runtime, shares, data_dir, found))
        finally:
            await runtime.close()
            if networks is not None:
                await networks.close()

    asyncio.run(run())
