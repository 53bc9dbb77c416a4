"""What is particular to the process runtime: its sandbox, with what this machine lets the server do."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from walras.runtimes import messages, procfs
from walras.runtimes.base import ContainerSpec, Limits, Mount, PodRef, Stream
from walras.runtimes.process import Container, ProcessRuntime
from walras.runtimes.sandbox import Mode, uid_of
from walras.runtimes.volumes import Places

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
UNLIMITED = Limits()
PATH = f"{sys.prefix}/bin:/usr/bin:/bin"


@dataclass
class World:
    runtime: ProcessRuntime
    data_dir: Path

    async def begin(
        self,
        *argv: str,
        pod: str = "p1",
        mounts: tuple[Mount, ...] = (),
        limits: Limits = UNLIMITED,
        pod_limits: Limits = UNLIMITED,
        env: dict[str, str] | None = None,
    ) -> tuple[Container, bytearray]:
        said = bytearray()

        def output(_stream: Stream, data: bytes) -> None:
            said.extend(data)

        ref = PodRef("acme", "base", f"uid-{pod}", pod)
        environment = {"PATH": PATH, **(env or {})}
        spec = ContainerSpec(ref, "main", 0, argv, environment, mounts=mounts, limits=limits)
        return await self.runtime.start(spec, output, pod_limits), said

    async def run(self, *argv: str, pod: str = "p1", mounts: tuple[Mount, ...] = ()) -> tuple[int, str]:
        container, said = await self.begin(*argv, pod=pod, mounts=mounts)
        status = await container.wait()
        return status.code, said.decode()

    async def shell(self, script: str) -> tuple[int, str]:
        return await self.run("sh", "-c", script)

    async def hears(self, said: bytearray) -> None:
        """Returns when the program has said anything."""
        async with asyncio.timeout(10):
            while not said:  # noqa: ASYNC110  only the other process knows when
                await asyncio.sleep(0.01)

    def claim(self, cluster: str) -> Path:
        """A volume of an agent's with a secret in it, as kubelet makes them."""
        path = self.data_dir / "agents" / cluster / "volumes" / "default" / "data"
        path.mkdir(parents=True)
        (path / "secret").write_text("treasure")
        if os.geteuid() == 0:
            os.chown(path, uid_of(cluster), uid_of(cluster))
        return path


def sandboxed(tmp_path: Path, story: Callable[[World], Awaitable[None]], mode: Mode | None = None) -> None:
    async def run() -> None:
        runtime = ProcessRuntime(tmp_path, mode=mode)
        await runtime.open()
        try:
            await story(World(runtime, tmp_path))
        finally:
            await runtime.close()

    asyncio.run(run())


@contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_signal_that_ends_the_program_is_told_as_128_and_more(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        assert (await world.shell("kill -TERM $$"))[0] == 128 + signal.SIGTERM

    sandboxed(tmp_path, story)


def test_the_loader_is_never_led_by_a_pods_environment_while_it_has_privileges(tmp_path: Path) -> None:
    """LD_PRELOAD is honoured for the program alone: what comes before it would complain on stderr."""

    async def story(world: World) -> None:
        container, said = await world.begin("true", env={"LD_PRELOAD": "/no/such/library.so"})
        await container.wait()
        assert said.count(b"/no/such/library.so") == 1

    sandboxed(tmp_path, story)


def test_neither_the_data_directory_nor_home_nor_roots_files_are_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        other = world.claim("rival")
        (world.data_dir / "key.pem").write_text("key")
        script = "; ".join(
            f"cat {path} 2>&1 >/dev/null && echo LEAK {path}"
            for path in (
                other / "secret",
                world.data_dir / "key.pem",
                "/etc/shadow",
                "/root/.bashrc",
                "/root/.ssh/*",
            )
        )
        assert "LEAK" not in (await world.shell(script))[1]
        assert (await world.shell("ls /home /var /srv 2>/dev/null"))[1] == ""

    sandboxed(tmp_path, story)


def test_pods_of_two_agents_are_two_though_a_backup_gave_them_one_uid(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        sees, running = [], []
        for cluster in ("acme", "rival"):
            said = bytearray()

            def output(_: Stream, data: bytes, to: bytearray = said) -> None:
                to.extend(data)

            script = "readlink /proc/self/ns/net; cat /proc/self/cgroup; exec sleep 60"
            spec = ContainerSpec(
                PodRef(cluster, "base", "uid", "p"), "main", 0, ("sh", "-c", script), {"PATH": PATH}
            )
            container = await world.runtime.start(spec, output, UNLIMITED)
            running.append(container)
            await world.hears(said)
            sees.append(said.split(b"\n")[0])
        assert sees[0] != sees[1]
        assert running[0].path != running[1].path
        await world.runtime.remove_pod(running[1].spec.pod)
        assert not running[1].pids() and running[0].pids()

    sandboxed(tmp_path, story)


# Puts a key into each keyring of its uid, or says how many of them have it.
KEYS = """
import ctypes, sys
call, word = ctypes.CDLL(None).syscall, sys.argv[1]
add, keyctl = (248, 250) if sys.argv[2] == "x86_64" else (217, 219)
rings = (-4, -5, call(keyctl, 22, -1, -2, 0))
if word == "add":
    print(sum(call(add, b"user", b"secret", b"x", 1, ring) > 0 for ring in rings))
else:
    print(sum(call(keyctl, 10, ring, b"user", b"secret", 0) > 0 for ring in rings))
"""


@as_root
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="other numbers of system calls")
def test_keys_in_the_kernel_are_not_the_next_agents_of_the_name(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        if not world.runtime.separates_users:
            pytest.skip("programs do not run under a uid of their agent")

        async def keys(word: str, pod: str) -> int:
            code, said = await world.run("python", "-c", KEYS, word, platform.machine(), pod=pod)
            assert code == 0, said
            return int(said)

        await world.runtime.forget_agent("acme")
        added = await keys("add", "p1")
        if not added:
            pytest.skip("programs may put no keys into the kernel")
        assert await keys("find", "p2") == added
        await world.runtime.forget_agent("acme")
        assert await keys("find", "p3") == 0
        assert await keys("add", "p4") == added

    sandboxed(tmp_path, story)


def test_shared_memory_is_the_pods_own(tmp_path: Path) -> None:
    """What multiprocessing needs for its locks."""

    async def story(world: World) -> None:
        assert (await world.shell("echo mine > /dev/shm/x && cat /dev/shm/x"))[1] == "mine\n"
        assert (await world.shell("ls /dev/shm"))[1] == ""

    sandboxed(tmp_path, story)


def test_the_data_directory_is_hidden_even_inside_a_directory_that_is_seen(tmp_path: Path) -> None:
    inside = Path(sys.prefix) / f"walras-test-{os.getpid()}"

    async def story(world: World) -> None:
        (inside / "key.pem").write_text("key")
        assert (await world.shell(f"ls {inside}; cat {inside}/key.pem"))[0] != 0

    inside.mkdir()
    try:
        sandboxed(inside, story)
    finally:
        shutil.rmtree(inside)


def test_the_file_for_the_last_words_can_be_written_to(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        places = Places(tmp_path / "data", lambda each: uid_of(each) if world.runtime.separates_users else -1)
        container = {"name": "main", "terminationMessagePath": "/dev/termination-log"}
        pod = PodRef("acme", "base", "uid-p1", "p1")
        mount = messages.make(places, pod, container, 0, (), whole=False)
        assert mount is not None
        code, _ = await world.run("sh", "-c", "echo because > /dev/termination-log", mounts=(mount,))
        assert code == 0
        assert messages.read(Path(mount.source)) == "because\n"

    sandboxed(tmp_path, story)


def test_the_system_cannot_be_written_to(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for place in ("/usr/bin/x", "/etc/passwd", f"{sys.prefix}/x", "/proc/sys/kernel/core_pattern"):
            assert (await world.shell(f"echo x > {place}"))[0] != 0
        assert (await world.shell("echo x > /tmp/x && cat /tmp/x"))[1] == "x\n"

    sandboxed(tmp_path, story)


@as_root
def test_programs_of_root_run_without_its_rights(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        code, said = await world.shell("id -u; grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status")
        lines = said.split("\n")
        assert code == 0 and int(lines[0]) == uid_of("acme") and uid_of("acme") != uid_of("rival")
        assert {line.split()[1] for line in lines[1:5]} >= {"0000000000000000"}
        assert "NoNewPrivs:\t1" in said

    sandboxed(tmp_path, story)


def test_other_processes_cannot_be_seen_or_signalled(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        code, said = await world.shell("ls -d /proc/[0-9]* | wc -l; kill -0 " + str(os.getpid()))
        assert int(said.split()[0]) < 8
        assert code != 0

    sandboxed(tmp_path, story)


def test_the_hosts_loopback_is_out_of_reach_and_the_pods_own_is_not(tmp_path: Path) -> None:
    probe = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
    own = "from socket import *; s = create_server(('127.0.0.1', 0)); create_connection(s.getsockname(), 2)"

    async def story(world: World) -> None:
        with listener() as port:
            code, said = await world.run(sys.executable, "-c", probe, str(port))
            assert code != 0 and "refused" in said
        assert (await world.run(sys.executable, "-c", own))[0] == 0

    sandboxed(tmp_path, story)


ESCAPE_PY = """
import os, signal, sys, time
for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(each, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.environ.clear()
        time.sleep(1000)
    os._exit(0)
print("up", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("mode", [pytest.param("root", marks=as_root), "user"])
@pytest.mark.parametrize("groups", [True, False])
def test_what_forks_leaves_its_session_and_ignores_signals_dies_with_its_node(
    tmp_path: Path, mode: Mode, groups: bool
) -> None:
    async def run() -> None:
        runtime = ProcessRuntime(tmp_path, mode=mode, use_cgroups=groups)
        await runtime.open()
        world = World(runtime, tmp_path)
        container, said = await world.begin(sys.executable, "-c", ESCAPE_PY)
        await world.hears(said)
        pids = [container.init_pid, *procfs.descendants(container.init_pid)]
        assert len(pids) >= 3
        container.signal(signal.SIGTERM)
        await runtime.remove_node("acme", "base")
        assert not [pid for pid in pids if _alive(pid)]
        assert (await container.wait()).code == 137
        await runtime.close()

    asyncio.run(run())


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _limits(runtime: ProcessRuntime, controller: str) -> None:
    if runtime.groups is None or controller not in runtime.groups.controllers:
        pytest.skip(f"no cgroup {controller} controller here")


def test_a_fork_bomb_that_goes_on_forking_is_killed_to_the_last(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        _limits(world.runtime, "pids")
        script = "echo up; bomb() { bomb | bomb & wait; }; bomb"
        container, said = await world.begin("sh", "-c", script, pod_limits=Limits(pids=200))
        await world.hears(said)
        await world.runtime.remove_node("acme", "base")
        assert not _alive(container.init_pid)
        assert not container.pids()

    sandboxed(tmp_path, story)


def test_a_symbolic_link_in_a_volume_leads_nowhere(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        mine, other = world.claim("acme"), world.claim("rival")
        mount = (Mount(str(mine), "/data"),)
        assert (await world.run("ln", "-s", str(other / "secret"), "/data/link", mounts=mount))[0] == 0
        assert (await world.run("cat", "/data/link", mounts=mount))[0] != 0

    sandboxed(tmp_path, story)


@pytest.mark.e2e
def test_the_cpu_share_of_a_node_holds_without_control_groups(tmp_path: Path) -> None:
    """Two programs that spin share 300 milli; loosely, because other work shares the machine."""

    async def run() -> None:
        runtime = ProcessRuntime(tmp_path, use_cgroups=False)
        await runtime.open()
        runtime.set_node("acme", "base", Limits(cpu_milli=300))
        world = World(runtime, tmp_path)
        for pod in ("p1", "p2"):
            await world.begin("sh", "-c", "while :; do :; done", pod=pod)
        await asyncio.sleep(0.5)
        began, used = time.monotonic(), runtime.cpu_ms("acme", "base")
        await asyncio.sleep(2)
        share = (runtime.cpu_ms("acme", "base") - used) / (time.monotonic() - began)
        await runtime.close()
        assert 200 < share < 380

    asyncio.run(run())
