"""What is particular to the container runtime: an engine that may go, and what a container is made of."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.runtimes import BUSYBOX, World, container_offer, kinds, tell

from walras.runtimes import procfs
from walras.runtimes.base import ExitStatus, Limits, Security, StartError, Wish
from walras.runtimes.engine import container
from walras.runtimes.shares import Shares

pytestmark = pytest.mark.skipif(
    container_offer().make is None or not BUSYBOX, reason=container_offer().detail
)
Story = Callable[[World], Awaitable[None]]


def with_containers(data_dir: Path, story: Story) -> None:
    tell(next(each for each in kinds() if each.name == "container"), data_dir, story)


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_containers_outlive_an_engine_that_dies_and_are_heard_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"
        process, said = await world.begin("sh", "-c", script)
        await world.hears(said)
        for pid in procfs.marked("WALRAS_ENGINE", world.shares.mark):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            heard = b""
            while heard != b"in\n":
                with suppress(StartError):
                    heard = (await world.enter(process, "echo", "in"))[1]
                await asyncio.sleep(0.01)
            # A listener takes a moment to be there again.
            await asyncio.sleep(3)
            process.signal(signal.SIGTERM)
            assert await process.wait() == ExitStatus(3)
        assert said == b"up\nbye\n"
        assert (await world.shell("echo more"))[1] == "more\n"

    with_containers(tmp_path, story)


def test_a_monitor_that_is_not_in_the_containers_group_is_heard_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"
        process, said = await world.begin("sh", "-c", script)
        await world.hears(said)
        monitor = parent_of(
            next(each for each in world.runtime.pids("acme", "base") if "trap" in cmdline(each))
        )
        os.kill(monitor, signal.SIGSTOP)
        process.signal(signal.SIGTERM)
        await asyncio.sleep(0.5)
        os.kill(monitor, signal.SIGCONT)
        assert await process.wait() == ExitStatus(9)

    monkeypatch.setattr(container, "_MONITOR", "elsewhere")
    with_containers(tmp_path, story)


def test_the_oci_runtime_knows_nothing_of_a_container_that_was_killed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", "echo up; sleep 1000")
        await world.hears(said)
        states = f"/run/walras-{world.shares.mark}/oci"
        assert os.listdir(states) == [process.id]
        await process.kill()
        assert not os.listdir(states)

    with_containers(tmp_path, story)


def test_a_container_is_made_as_its_security_context_says(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        show = "id -u; id -g; id -G; grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>&1; true"
        security = Security(
            user=1000,
            group=2000,
            groups=(3000,),
            dropped=("ALL",),
            read_only_root=True,
            no_new_privileges=True,
        )
        _, said = await world.shell(show, security=security)
        lines = said.splitlines()
        assert lines[:3] == ["1000", "2000", "2000 3000"]
        assert "CapEff:\t0000000000000000" in lines and "NoNewPrivs:\t1" in lines
        assert "Read-only file system" in lines[-1]
        _, said = await world.shell("grep -E 'CapEff|Seccomp:' /proc/self/status; ls /dev | tr '\\n' ' '")
        assert "CapEff:\t00000000800405fb" in said and "Seccomp:\t2" in said
        assert not {"sda", "vda", "mem", "kmsg", "fuse", "kvm"} & set(said.split())

    with_containers(tmp_path, story)


def test_a_container_with_input_and_terminal_is_typed_to(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin(
            "sh", "-c", "read word; test -t 1 && echo heard $word; stty size; exit 4", tty=True, stdin=True
        )
        session = process.attach(Wish(stdin=True, stdout=True, tty=True))
        session.resize(101, 33)
        await asyncio.sleep(0.3)
        await session.write(b"hello\n")
        async with asyncio.timeout(10):
            assert await process.wait() == ExitStatus(4)
        await session.close()
        assert b"heard hello\r\n" in said and b"33 101\r\n" in said

    with_containers(tmp_path, story)


def test_who_talks_without_end_is_held_up_and_the_server_is_not(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        heard = 0

        def output(_stream: object, data: bytes) -> None:
            nonlocal heard
            heard += len(data)

        spec = world.spec("sh", "-c", "cat /dev/zero")
        process = await world.runtime.start(spec, output, Limits())
        loop, longest_s = asyncio.get_running_loop(), 0.0
        until_s = loop.time() + 2
        while (began_s := loop.time()) < until_s:
            await asyncio.sleep(0.01)
            longest_s = max(longest_s, loop.time() - began_s)
        assert 0 < heard < 64 << 20
        assert longest_s < 1
        await process.kill()

    with_containers(tmp_path, story)


def test_what_a_container_writes_over_its_image_counts_for_it_under_a_name_or_none(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        script = (
            "dd if=/dev/zero of=/named bs=1M count=16; echo one; read go; "
            "exec 5>/nameless; rm /nameless; dd if=/dev/zero bs=1M count=16 >&5; "
            "dd if=/dev/zero of=/dev/shm/memory bs=1M count=16; echo two; sleep 1000"
        )
        process, said = await world.begin("sh", "-c", script, stdin=True)
        other, _ = await world.begin("sleep", "1000", name="other")
        session = process.attach(Wish(stdin=True))
        await world.hears(said, b"one\n")
        assert 16 << 20 <= (process.disk_bytes() or 0) < 20 << 20
        await session.write(b"go\n")
        await world.hears(said, b"two\n")
        os.sync()
        assert 32 << 20 <= (process.disk_bytes() or 0) < 36 << 20
        assert (other.disk_bytes() or 0) < 1 << 20
        await session.close()

    with_containers(tmp_path, story)


def test_the_engine_starts_with_the_first_container(tmp_path: Path) -> None:
    async def run() -> None:
        runtime = next(each for each in kinds() if each.name == "container").make
        shares = Shares(tmp_path, one_path=True)
        one = runtime(tmp_path, shares)
        await one.open()
        assert not procfs.marked("WALRAS_ENGINE", shares.mark)
        await one.close()

    asyncio.run(run())


DYING = """
import asyncio, os, sys
from pathlib import Path
from walras.runtimes.engine.runtime import ContainerRuntime

async def main():
    runtime = ContainerRuntime(Path(sys.argv[1]), program="runc")
    await runtime.open()
    await runtime.engine()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_the_engine_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    shares, deadline_s = Shares(tmp_path, one_path=True), time.monotonic() + 20
    while procfs.marked("WALRAS_ENGINE", shares.mark):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    with_containers(tmp_path, _again)


async def _again(world: World) -> None:
    assert (await world.shell("echo again"))[1] == "again\n"
