"""What every runtime does for the pods on it, with real programs: the contract of base.Runtime."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.runtimes import BUSYBOX, Kind, World, alive, kinds, processes_with, tell, tell_alike, whole

from walras.core.errors import ServiceUnavailable
from walras.runtimes.base import ExitStatus, Limits, Mount, Resize, ResizeError, StartError, Wish
from walras.runtimes.network.networks import Networks
from walras.runtimes.sandbox import uid_of

Story = Callable[[World], Awaitable[None]]
FOREVER = "while :; do sleep 1; done"


@pytest.fixture(params=[pytest.param(each, id=each.name) for each in kinds()])
def kind(request: pytest.FixtureRequest) -> Kind:
    found = request.param
    assert isinstance(found, Kind)
    if found.missing:
        pytest.skip(found.missing)
    return found


@pytest.fixture
def within(kind: Kind, tmp_path: Path) -> Callable[[Story], None]:
    return lambda story: tell_alike(kind, tmp_path, story)


Within = Callable[[Story], None]


# What a program is given, and what comes of it


def test_a_program_gets_its_arguments_environment_directory_and_exit_code(within: Within) -> None:
    async def story(world: World) -> None:
        script = 'echo "$GREETING $1"; pwd; echo odd >&2; exit 7'
        status, said = await world.run(
            "sh",
            "-c",
            script,
            "sh",
            "a  b",
            env={"GREETING": "it's\n$HOME", "my.dotted-name": "x"},
            working_dir="/tmp",
        )
        assert status == ExitStatus(7)
        # Which of two streams is heard first is nobody's promise.
        assert "it's\n$HOME a  b\n" in said and "/tmp\n" in said and "odd\n" in said

    within(story)


def test_variables_whose_names_a_shell_has_no_word_for_arrive(within: Within) -> None:
    async def story(world: World) -> None:
        _, said = await world.run("env", env={"my.dotted-name": "x y"})
        assert "my.dotted-name=x y\n" in said

    within(story)


def test_all_that_a_program_says_arrives_before_its_end_is_told(within: Within) -> None:
    async def story(world: World) -> None:
        code, said = await world.shell(
            "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exit 4"
        )
        assert code == 4
        assert said.splitlines() == [f"line {number}" for number in range(20_000)]

    within(story)


def test_what_a_program_of_this_machine_is_to_inherit_it_has_and_nothing_else(
    kind: Kind, within: Within
) -> None:
    if not kind.name.startswith("process"):
        pytest.skip("only programs of this machine are given any")

    async def story(world: World) -> None:
        ours, theirs = os.pipe()
        try:
            script = "echo words >&6; ls /proc/self/fd"
            status, said = await world.run("sh", "-c", script, inherited=(theirs,))
            assert os.read(ours, 100) == b"words\n"
        finally:
            os.close(ours)
            os.close(theirs)
        # The last is what `ls` looks at.
        assert status == ExitStatus(0) and said.split() == ["0", "1", "2", "3", "6"]

    within(story)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ],
)
def test_a_program_that_cannot_be_started_is_named_and_why(within: Within, argv: str, why: str) -> None:
    async def story(world: World) -> None:
        with pytest.raises(StartError) as caught:
            await world.begin(argv)
        assert why in caught.value.message and argv in caught.value.message
        # Nothing is in the way of another try.
        assert (await world.shell("exit 0"))[0] == 0

    within(story)


def test_volumes_are_where_the_container_wants_them_and_read_only_ones_stay_as_they_are(
    within: Within, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        kept, given = tmp_path / "kept", tmp_path / "given"
        for path in (kept, given):
            path.mkdir()
            if os.geteuid() == 0 and world.runtime.separates_users:
                os.chown(path, uid_of("acme"), uid_of("acme"))
        (given / "word").write_text("treasure")
        mounts = (Mount(str(kept), "/kept"), Mount(str(given), "/given", read_only=True))
        code, said = await world.shell("cat /given/word > /kept/copy; echo x > /given/word", mounts=mounts)
        assert code != 0 and said
        assert (kept / "copy").read_text() == "treasure" == (given / "word").read_text()

    within(story)


# Its input


def test_a_program_reads_what_is_typed_until_the_first_who_was_attached_is_done(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("cat", stdin=True, stdin_once=True)
        session = process.attach(Wish(stdin=True))
        deaf = process.attach(Wish(stdin=False))
        await deaf.write(b"not heard\n")
        await session.write(b"one\n")
        await world.hears(said)
        await session.write(b"two" * 100_000)
        session.end_input()
        async with asyncio.timeout(20):
            assert await process.wait() == ExitStatus(0)
        await deaf.close()
        await session.close()
        assert said == b"one\n" + b"two" * 100_000

    within(story)


def test_input_that_is_not_for_once_outlives_who_is_attached(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", "read a; echo $a; read b; echo $b; exit 3", stdin=True)
        for word in (b"one\n", b"two\n"):
            session = process.attach(Wish(stdin=True))
            await session.write(word)
            session.end_input()
            await world.hears(said, word)
            await session.close()
        async with asyncio.timeout(20):
            assert await process.wait() == ExitStatus(3)

    within(story)


def test_a_program_without_input_finds_its_end_at_once(within: Within) -> None:
    async def story(world: World) -> None:
        assert await world.run("cat") == (ExitStatus(0), "")

    within(story)


def test_a_program_with_a_terminal_is_in_a_session_of_its_own(within: Within) -> None:
    async def story(world: World) -> None:
        script = (
            "trap 'echo stopped; exit 5' INT; test -t 0 && test -t 1 && echo ready; while :; do read a; done"
        )
        process, said = await world.begin("sh", "-c", script, stdin=True, tty=True)
        await world.hears(said, b"ready\r\n")
        session = process.attach(Wish(stdin=True, tty=True))
        session.resize(101, 33)
        # As a terminal does, it turns the character into a signal.
        await session.write(b"\x03")
        async with asyncio.timeout(20):
            assert await process.wait() == ExitStatus(5)
        await session.close()
        assert b"stopped\r\n" in said

    within(story)


# Signals, and what is left


def test_a_signal_reaches_the_program_and_the_time_it_takes_is_its_own(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", f"trap 'echo saved; exit 9' TERM; echo up; {FOREVER}")
        await world.hears(said)
        process.signal(signal.SIGTERM)
        assert await process.wait() == ExitStatus(9)
        assert said == b"up\nsaved\n"
        process.signal(signal.SIGTERM)

    within(story)


def test_a_program_that_is_killed_is_told_as_128_and_nine(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", f"trap '' TERM; echo up; {FOREVER}")
        await world.hears(said)
        process.signal(signal.SIGTERM)
        await process.kill()
        assert await process.wait() == ExitStatus(137)
        await process.kill()

    within(story)


def test_what_a_program_leaves_behind_dies_with_it(within: Within) -> None:
    async def story(world: World) -> None:
        word = f"10{os.getpid()}7"
        code, _ = await world.shell(f"setsid sleep {word} & sleep 0.2; exit 3")
        assert code == 3
        assert not processes_with(f"sleep\0{word}")

    within(story)


ESCAPE = """
trap '' TERM HUP INT
setsid sh -c "trap '' TERM HUP INT; sleep {word} & wait" &
echo up; wait; sleep {word}
"""


def test_what_leaves_its_session_and_ignores_signals_dies_with_its_node(within: Within) -> None:
    async def story(world: World) -> None:
        word = f"10{os.getpid()}8"
        process, said = await world.begin("sh", "-c", ESCAPE.format(word=word))
        await world.hears(said)
        process.signal(signal.SIGTERM)
        began = time.monotonic()
        await world.runtime.remove_node("acme", "base")
        assert not processes_with(word)
        assert (await process.wait()).code == 137
        assert time.monotonic() - began < 5

    within(story)


def test_what_leaves_its_session_and_ignores_signals_dies_with_its_pod(within: Within) -> None:
    async def story(world: World) -> None:
        word = f"10{os.getpid()}9"
        process, said = await world.begin("sh", "-c", ESCAPE.format(word=word))
        await world.hears(said)
        await world.runtime.remove_pod(world.pod())
        assert not processes_with(word)
        assert (await process.wait()).code == 137
        await world.runtime.remove_pod(world.pod())

    within(story)


def test_another_pod_goes_on_when_one_is_removed(within: Within) -> None:
    async def story(world: World) -> None:
        stays, said = await world.begin("sh", "-c", f"trap 'exit 5' TERM; echo up; {FOREVER}")
        goes, _ = await world.begin("sleep", "1000", pod=world.pod("p2"))
        await world.hears(said)
        await world.runtime.remove_pod(world.pod("p2"))
        assert (await goes.wait()).code == 137
        stays.signal(signal.SIGTERM)
        assert (await stays.wait()).code == 5

    within(story)


DYING = """
import asyncio, os, sys
from pathlib import Path
from support.runtimes import kinds, World
from walras.runtimes.dispatch import Runtimes
from walras.runtimes.shares import Shares

async def main():
    data, name, word = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    kind = next(each for each in kinds() if each.name == name)
    shares = Shares(data, one_path=kind.image is not None)
    one = kind.make(data, shares)
    runtime = Runtimes(shares, {name: one}, name)
    await runtime.open()
    world = World(kind, runtime, shares, data, await kind.image(one) if kind.image else "")
    process, said = await world.begin("sh", "-c", f"setsid sleep {word} & echo up; sleep {word}")
    await world.hears(said)
    print("up", flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_a_server_that_was_killed_leaves_nothing_for_the_next_one(kind: Kind, tmp_path: Path) -> None:
    word = f"10{os.getpid()}5"
    died = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path), kind.name, word],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": "tests"},
    )  # fmt: skip
    assert died.stdout.split()[-1] == "up", died.stderr

    async def story(world: World) -> None:
        assert not processes_with(word)
        assert (await world.shell("echo again"))[1] == "again\n"

    tell(kind, tmp_path, story)


# Others in the container


def test_another_program_runs_in_the_container_with_its_environment_and_files(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin(
            "sh", "-c", f"echo mine > /tmp/x; echo up; {FOREVER}", env={"COLOUR": "red"}
        )
        await world.hears(said)
        code, heard = await world.enter(process, "sh", "-c", 'cat /tmp/x; echo "$COLOUR" >&2; exit 6')
        assert code == 6 and heard == b"mine\nred\n"
        code, heard = await world.enter(process, "cat", given=b"there and back")
        assert (code, heard) == (0, b"there and back")
        with pytest.raises(StartError, match="no-such-program"):
            await world.enter(process, "no-such-program")
        await process.kill()
        with pytest.raises(StartError):
            await world.enter(process, "true")

    within(story)


def test_a_terminal_has_the_size_that_its_user_says(within: Within) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", f"echo up; {FOREVER}")
        await world.hears(said)
        async with asyncio.timeout(20):
            wish = Wish(stdin=True, stdout=True, tty=True)
            script = "read a; stty size; test -t 1 && echo a terminal; read b; exit 2"
            session = await process.enter(("sh", "-c", script), wish)
            session.resize(123, 45)
            heard = b""
            await asyncio.sleep(0.2)
            await session.write(b"go\n")
            while b"a terminal" not in heard:
                heard += await session.read("stdout")
            assert b"45 123" in heard
            await session.write(b"\n")
            assert await session.wait() == 2
            await session.close()

    within(story)


def test_whoever_leaves_takes_the_program_along(within: Within) -> None:
    async def story(world: World) -> None:
        word = f"10{os.getpid()}6"
        process, said = await world.begin("sh", "-c", f"echo up; {FOREVER}")
        await world.hears(said)
        session = await process.enter(("sleep", word), Wish(stdout=True))
        await world.until_running(process, "sleep", word)
        await session.close()
        await world.until_running(process, "sleep", word, yes=False)
        assert (await session.wait()) == 137

    within(story)


async def _eventually(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not true():  # noqa: ASYNC110  only the other process knows when
            await asyncio.sleep(0.02)


def test_who_attaches_hears_what_is_said_from_then_on(within: Within) -> None:
    async def story(world: World) -> None:
        script = "trap 'echo bye; echo sorry >&2; exit 1' TERM; echo up; while :; do sleep 0.1; done"
        process, said = await world.begin("sh", "-c", script)
        await world.hears(said)
        session = process.attach(Wish(stdout=True, stderr=True))
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await whole(session, "stdout") == b"bye\n"
            assert await whole(session, "stderr") == b"sorry\n"
            assert await session.wait() == 1
        await session.close()

    within(story)


# The network


SERVE = (BUSYBOX, "nc", "-l", "-p", "8080", "-e", "echo", "hello")
ASK = (BUSYBOX, "nc", "127.0.0.1", "8080")


def _here(world: World, argv: tuple[str, ...]) -> tuple[str, ...]:
    """Where there is an image, all that is in it is busybox."""
    return argv[1:] if world.image else argv


def test_a_pods_ports_answer_to_the_server_and_to_no_other_pod(within: Within) -> None:
    async def story(world: World) -> None:
        await world.begin(*_here(world, SERVE))
        other = await world.run(*_here(world, ASK), pod=world.pod("p2"))
        assert other[0].code != 0 and "hello" not in other[1]
        with pytest.raises(ServiceUnavailable):
            await world.runtime.dial(world.pod(), 8081)
        assert await _dialled(world, 8080) == b"hello\n"

    within(story)


def test_the_containers_of_a_pod_share_its_ports(kind: Kind, within: Within) -> None:
    if kind.name == "process-user":
        pytest.skip("without root each container has a network of its own")

    async def story(world: World) -> None:
        await world.begin(*_here(world, SERVE))
        async with asyncio.timeout(10):
            while (await world.run(*_here(world, ASK), name="other"))[1] != "hello\n":
                pass

    within(story)


async def _dialled(world: World, port: int) -> bytes:
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await world.runtime.dial(world.pod(), port)
            except ServiceUnavailable:
                await asyncio.sleep(0.02)
                continue
            said = await reader.read()
            writer.close()
            return said


def test_pods_of_an_agent_meet_in_its_network_and_others_are_not_there(kind: Kind, tmp_path: Path) -> None:
    networks = Networks()

    async def join(world: World, name: str, cluster: str) -> str:
        ref = world.pod(name, cluster)
        found = await networks.join(ref, machine=world.runtime.traits(ref).machine)
        assert found is not None
        return found.address

    async def story(world: World) -> None:
        if not networks.available or not world.runtime.traits(world.pod()).networked:
            pytest.skip(networks.missing or networks.no_taps)
        address = await join(world, "p1", "acme")
        await join(world, "p2", "acme")
        # So that the stranger's own address is another.
        await networks.join(world.pod("first", "rival"))
        await join(world, "p3", "rival")
        serve = f"while :; do {BUSYBOX} nc -l -p 7070 -e echo here; done"
        await world.begin("sh", "-c", serve, pod=world.pod("p1"))
        ask = f"{BUSYBOX} nc -w 2 {address} 7070"
        tries = f"n=0; until {ask} || [ $((n=n+1)) -gt 50 ]; do sleep 0.2; done"
        assert (await world.shell(tries, pod=world.pod("p2")))[1] == "here\n"
        code, said = await world.shell(ask, pod=world.pod("p3", "rival"))
        assert code != 0 and "here" not in said

    tell(kind, tmp_path, story, networks=networks)


# Limits


def _needs(world: World, controller: str) -> None:
    groups = world.shares.groups
    if groups is None or controller not in groups.controllers:
        pytest.skip(f"no cgroup {controller} controller here")


HUNGRY = 'x=x; while :; do x="$x$x"; done'


@pytest.mark.parametrize("whose", ["container", "pod", "node"])
def test_memory_beyond_the_limit_is_an_oom_kill(within: Within, whose: str) -> None:
    async def story(world: World) -> None:
        _needs(world, "memory")
        if world.kind.machines and whose == "node":
            pytest.skip("a machine is larger than that: it ends before a program of it begins")
        tight = Limits(memory_bytes=48 << 20)
        world.runtime.set_node("acme", "base", tight if whose == "node" else Limits(memory_bytes=512 << 20))
        process, _ = await world.begin(
            "sh", "-c", HUNGRY, limits=tight if whose == "container" else Limits(),
            pod_limits=tight if whose == "pod" else Limits(),
        )  # fmt: skip
        async with asyncio.timeout(30):
            assert await process.wait() == ExitStatus(137, oom_killed=True)

    within(story)


def test_limits_are_changed_while_the_program_runs_and_not_below_what_it_has(within: Within) -> None:
    async def story(world: World) -> None:
        _needs(world, "memory")
        if world.runtime.traits(world.pod()).fixed:
            pytest.skip(world.runtime.traits(world.pod()).fixed)
        small, large, tiny = _sized(100, 48 << 20), _sized(300, 256 << 20), _sized(100, 64 << 10)
        script = "read a; dd if=/dev/zero of=/dev/null bs=100M count=1 && echo up; read a; echo $a"
        process, said = await world.begin(
            "sh", "-c", script, stdin=True, limits=small, pod_limits=small
        )  # fmt: skip

        def resize(was: Limits, to: Limits) -> None:
            change = Resize(was, to)
            world.runtime.resize(world.pod(), change, {"main": (process, change)})

        resize(small, large)
        session = process.attach(Wish(stdin=True))
        await session.write(b"go\n")
        # With what it had before it would have been killed.
        await world.hears(said, b"up")
        with pytest.raises(ResizeError, match="below current usage"):
            resize(large, tiny)
        resize(large, small)
        await session.write(b"still here\n")
        await world.hears(said, b"still here")
        async with asyncio.timeout(20):
            assert await process.wait() == ExitStatus(0)
        await session.close()

    within(story)


def _sized(cpu_milli: int, memory_bytes: int) -> Limits:
    return Limits(cpu_milli, memory_bytes, weight_milli=cpu_milli, period_us=100_000)


def test_a_fork_bomb_is_bounded_and_killed_to_the_last(within: Within) -> None:
    async def story(world: World) -> None:
        _needs(world, "pids")
        word = f"1{os.getpid()}4"
        script = f"i=0; while [ $i -lt 400 ]; do sleep {word} & i=$((i+1)); done; echo up; wait"
        process, said = await world.begin("sh", "-c", script, pod_limits=Limits(pids=60))
        del process
        await _eventually(lambda: b"fork" in said or len(processes_with(f"sleep\0{word}")) > 30)
        assert len(processes_with(f"sleep\0{word}")) <= 60
        await world.runtime.remove_node("acme", "base")
        assert not processes_with(f"sleep\0{word}")

    within(story)


def test_cpu_time_is_counted_and_is_known_when_the_node_is_gone(within: Within) -> None:
    async def story(world: World) -> None:
        burn = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
        await world.shell(burn)
        first = world.runtime.cpu_ms("acme", "base")
        assert first > 20
        await world.shell(burn, pod=world.pod("p2"))
        second = world.runtime.cpu_ms("acme", "base")
        assert second > first
        assert world.runtime.cpu_ms("acme", "other") == 0
        await world.runtime.remove_node("acme", "base")
        assert world.runtime.cpu_ms("acme", "base") >= second

    within(story)


@pytest.mark.e2e
def test_the_cpu_share_of_a_node_holds_for_all_of_its_pods_together(within: Within) -> None:
    """Two programs that spin share 300 milli; loosely, because other work shares the machine."""

    async def story(world: World) -> None:
        world.runtime.set_node("acme", "base", Limits(cpu_milli=300))
        for name in ("p1", "p2"):
            await world.begin("sh", "-c", "while :; do :; done", pod=world.pod(name))
        await asyncio.sleep(0.5)
        began, used = time.monotonic(), world.runtime.cpu_ms("acme", "base")
        await asyncio.sleep(2)
        share = (world.runtime.cpu_ms("acme", "base") - used) / (time.monotonic() - began)
        assert 200 < share < 380

    within(story)


def test_nothing_is_left_of_a_runtime_that_was_closed(kind: Kind, tmp_path: Path) -> None:
    word = f"10{os.getpid()}3"
    marks: list[str] = []

    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", f"setsid sleep {word} & echo up; sleep {word}")
        await world.hears(said)
        marks.append(world.shares.mark)
        del process

    tell(kind, tmp_path, story)
    assert not processes_with(word)
    assert not [each for each in Path("/sys/fs/cgroup").glob(f"**/walras-{marks[0]}/*") if each.is_dir()]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert alive(os.getpid())
