"""What is left to do on a machine without bubblewrap and without rights."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from walras.core.errors import ServiceUnavailable
from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, Limits, Mount, PodRef, StartError, Stream
from walras.runtimes.plain import adapted
from walras.runtimes.process import Container, ProcessRuntime

POD = PodRef("acme", "base", "uid-1", "p1")
MARK = "uid-1/main/0"
PATH = f"{sys.prefix}/bin:/usr/bin:/bin"


async def begin(
    runtime: ProcessRuntime, *argv: str, mounts: tuple[Mount, ...] = (), name: str = "main"
) -> tuple[Container, bytearray]:
    said = bytearray()

    def output(_stream: Stream, data: bytes) -> None:
        said.extend(data)

    spec = ContainerSpec(POD, name, 0, argv, {"PATH": PATH}, mounts=mounts)
    return await runtime.start(spec, output, Limits()), said


async def hears(said: bytearray) -> None:
    async with asyncio.timeout(10):
        while not said:  # noqa: ASYNC110  only the other process knows when
            await asyncio.sleep(0.01)


def plainly(tmp_path: Path, story: Callable[[ProcessRuntime], Awaitable[None]]) -> None:
    async def run() -> None:
        runtime = ProcessRuntime(tmp_path, mode="plain", use_cgroups=False)
        await runtime.open()
        try:
            await story(runtime)
        finally:
            await runtime.close()

    asyncio.run(run())


def test_volumes_are_found_where_the_manifest_says_they_are(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print('hello')")

    async def story(runtime: ProcessRuntime) -> None:
        mount = Mount(str(tmp_path / "code"), "/app", True)
        container, said = await begin(runtime, sys.executable, "/app/main.py", mounts=(mount,))
        assert (await container.wait()).code == 0 and said == b"hello\n"

    plainly(tmp_path, story)


def test_only_whole_paths_are_rewritten() -> None:
    mounts = (Mount("/v/app", "/app"), Mount("/v/data", "/app-data"))
    argv = ("sh", "-c", "cat /app/x /apple /my/app '/app-data/y' --dir=/app")
    spec = adapted(ContainerSpec(POD, "main", 0, argv, {"DIR": "/app"}, mounts=mounts), "mark")
    assert spec.argv[2] == "cat /v/app/x /apple /my/app '/v/data/y' --dir=/v/app"
    assert spec.env["DIR"] == "/v/app"


def test_programs_are_started_and_refused_as_in_a_sandbox(tmp_path: Path) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        container, _ = await begin(runtime, "sh", "-c", "kill -KILL $$")
        assert (await container.wait()).code == 128 + signal.SIGKILL
        with pytest.raises(StartError, match="executable file not found"):
            await begin(runtime, "no-such-program")

    plainly(tmp_path, story)


def test_what_leaves_its_session_is_found_by_its_mark_and_killed(tmp_path: Path) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        container, said = await begin(
            runtime, "sh", "-c", "setsid sh -c 'trap \"\" TERM; echo up; sleep 1000' & wait"
        )
        await hears(said)
        assert len(container.pids()) >= 2
        await runtime.remove_node("acme", "base")
        assert not procfs.marked("WALRAS_CONTAINER", MARK)

    plainly(tmp_path, story)


def test_the_end_of_one_container_leaves_the_pods_others_alone(tmp_path: Path) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        lasting, said = await begin(runtime, "sh", "-c", "echo up; sleep 1000", name="lasting")
        await hears(said)
        brief, _ = await begin(runtime, "true", name="brief")
        await brief.wait()
        assert lasting.pids() and procfs.marked("WALRAS_CONTAINER", "uid-1/lasting/0")

    plainly(tmp_path, story)


SERVER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
server.accept()[0].send(b"hello")
"""


def test_only_ports_that_the_pod_itself_listens_on_are_dialled(tmp_path: Path) -> None:
    async def story(runtime: ProcessRuntime) -> None:
        _, said = await begin(runtime, sys.executable, "-c", SERVER)
        await hears(said)
        stranger = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        with pytest.raises(ServiceUnavailable):
            await runtime.dial(POD, stranger.sockets[0].getsockname()[1])
        stranger.close()
        reader, writer = await runtime.dial(POD, int(said))
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()

    plainly(tmp_path, story)


def test_what_an_earlier_server_left_behind_is_ended_at_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        first = ProcessRuntime(tmp_path, mode="plain", use_cgroups=False)
        await first.open()
        container, _ = await begin(first, "sleep", "1000")
        second = ProcessRuntime(tmp_path, mode="plain", use_cgroups=False)
        await second.open()
        assert (await container.wait()).code == 128 + signal.SIGKILL
        await second.close()
        await first.close()

    asyncio.run(run())
