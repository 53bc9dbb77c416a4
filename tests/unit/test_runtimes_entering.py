"""Programs that enter a running container: as its user, in its place, within its limits, gone with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from unit.test_runtimes_sandboxed import World, as_root, sandboxed

from walras.runtimes.base import Session, StartError, Stream, Wish
from walras.runtimes.entering import Files, opened
from walras.runtimes.process import ENTERED_MAX, Container
from walras.runtimes.sandbox import Mode, uid_of
from walras.runtimes.spawn import Handle, resolve

pytestmark = pytest.mark.skipif(
    shutil.which("bwrap") is None or shutil.which("nsenter") is None,
    reason="bubblewrap or nsenter is missing",
)
MODES: tuple[Mode, ...] = ("root", "user", "plain") if os.geteuid() == 0 else ("user", "plain")


async def said(session: Session) -> tuple[int, dict[Stream, str]]:
    """The exit code and all output."""
    heard: dict[Stream, str] = {}
    for stream in session.outputs:
        text = b""
        while data := await session.read(stream):
            text += data
        heard[stream] = text.decode()
    code = await session.wait()
    await session.close()
    return code, heard


def told(
    tmp_path: Path, mode: Mode, story: Callable[[World, Container], Awaitable[None]], *argv: str
) -> None:
    async def run(world: World) -> None:
        container, _ = await world.begin(*(argv or ("sleep", "1000")), env={"GREETING": "it's me"})
        async with asyncio.timeout(60):
            await story(world, container)

    sandboxed(tmp_path, run, mode)


@pytest.mark.parametrize("mode", MODES)
def test_it_has_the_containers_environment_and_its_own_streams_and_code(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        script = 'echo "$GREETING"; echo odd >&2; exit 7'
        code, heard = await said(await container.enter(("sh", "-c", script), Wish()))
        assert (code, heard) == (7, {"stdout": "it's me\n", "stderr": "odd\n"})
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_it_can_do_no_more_than_the_containers_own_program(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        script = "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status | cut -f2; ls /proc/self/fd | wc -l"
        _, heard = await said(await container.enter(("sh", "-c", script), Wish()))
        uid, effective, no_new, _ = heard["stdout"].split()
        if mode != "plain":
            assert (int(effective, 16), no_new) == (0, "1")
            assert uid == str(uid_of("acme") if mode == "root" else os.getuid())
            # The same processes and files: the container's own program is seen, the server is not.
            _, heard = await said(
                await container.enter(("sh", "-c", "ps ax -o args | grep -c ^sleep"), Wish())
            )
            assert heard["stdout"].strip() == "1"
            _, heard = await said(await container.enter(("ls", str(world.data_dir)), Wish()))
            assert heard["stdout"] == ""

    told(tmp_path, mode, story)


@as_root
def test_descriptors_of_the_server_are_not_passed_on(tmp_path: Path) -> None:
    async def story(world: World, container: Container) -> None:
        script = "for each in /proc/$$/fd/*; do readlink $each; done | grep -c -e pipe: -e socket:"
        _, heard = await said(await container.enter(("sh", "-c", script), Wish()))
        # Its output and its errors.
        assert heard["stdout"].strip() == "2"
        del world

    told(tmp_path, "root", story)


@pytest.mark.parametrize("mode", MODES)
def test_input_goes_in_and_ends(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        session = await container.enter(("wc", "-c"), Wish(stdin=True))
        for _ in range(100):
            await session.write(b"x" * 10_000)
        session.end_input()
        assert (await said(session))[1]["stdout"].strip() == "1000000"
        deaf = await container.enter(("true",), Wish(stdin=True))
        await deaf.wait()
        # What nobody reads is not waited for.
        await deaf.write(b"x" * 1_000_000)
        await deaf.close()
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_terminal_has_a_size_and_interrupts(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        wish = Wish(stdin=True, stderr=False, tty=True)
        script = 'test -t 0 && trap "echo interrupted; exit 4" INT; echo ready; while :; do sleep 0.05; done'
        session = await container.enter(("sh", "-c", script), wish)
        heard = b""
        while b"ready" not in heard:
            heard += await session.read("stdout")
        await session.write(b"\x03")
        code, rest = await said(session)
        assert code == 4
        assert "interrupted" in rest["stdout"]
        sized = await container.enter(("sh", "-c", "read _; stty size"), wish)
        sized.resize(101, 37)
        await sized.write(b"\n")
        assert "37 101" in (await said(sized))[1]["stdout"]
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_a_program_that_is_not_there_is_named(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        with pytest.raises(StartError, match=r'exec: "nonesuch": executable file not found in \$PATH'):
            await container.enter(("nonesuch",), Wish())
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_closing_the_session_ends_what_it_started(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        session = await container.enter(("sh", "-c", "sleep 900 & sleep 901"), Wish())
        await session.close()
        assert await session.wait() == 137
        script = "while ps ax -o args | grep -q '^sleep 90'; do sleep 0.02; done"
        assert (await said(await container.enter(("sh", "-c", script), Wish())))[0] == 0
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_what_it_leaves_behind_does_not_hold_its_end(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        session = await container.enter(("sh", "-c", "sleep 900 & echo done"), Wish())
        assert await said(session) == (0, {"stdout": "done\n", "stderr": ""})
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_it_ends_with_the_container(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        session = await container.enter(("sleep", "900"), Wish())
        await container.kill()
        assert await session.wait() == 137
        with pytest.raises(StartError, match="has ended"):
            await container.enter(("true",), Wish())
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", [each for each in MODES if each != "plain"])
def test_a_container_that_has_just_ended_is_said_to_have(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        first = Handle(container.init_pid)
        first.signal(signal.SIGKILL)
        await first.ended()
        with pytest.raises(StartError, match=r"^the container has ended$"):
            await container.enter(("true",), Wish())
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_what_it_said_before_the_container_ended_can_still_be_heard(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        session = await container.enter(("sh", "-c", "echo one; echo two >&2; kill -STOP $$"), Wish())
        script = "until ps ax -o stat,args | grep -q '^T.*[k]ill -STOP'; do sleep 0.02; done"
        await said(await container.enter(("sh", "-c", script), Wish()))
        await container.kill()
        assert await said(session) == (137, {"stdout": "one\n", "stderr": "two\n"})
        del world

    told(tmp_path, mode, story)


@pytest.mark.parametrize("mode", MODES)
def test_its_cpu_time_is_the_containers(tmp_path: Path, mode: Mode) -> None:
    async def story(world: World, container: Container) -> None:
        before = container.cpu_ns()
        script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
        assert (await said(await container.enter(("sh", "-c", script), Wish())))[0] == 0
        assert container.cpu_ns() - before >= 50_000_000
        del world

    told(tmp_path, mode, story)


def test_only_so_many_enter_a_container_at_a_time(tmp_path: Path) -> None:
    async def story(world: World, container: Container) -> None:
        sessions = [await container.enter(("sleep", "900"), Wish()) for _ in range(ENTERED_MAX)]
        with pytest.raises(StartError, match=f"{ENTERED_MAX} programs have entered"):
            await container.enter(("true",), Wish())
        for session in sessions:
            await session.close()
        assert (await said(await container.enter(("true",), Wish())))[0] == 0
        del world

    told(tmp_path, MODES[0], story)


def test_those_that_come_at_once_are_counted_too(tmp_path: Path) -> None:
    async def story(world: World, container: Container) -> None:
        at_once = (container.enter(("sleep", "900"), Wish()) for _ in range(ENTERED_MAX + 3))
        found = await asyncio.gather(*at_once, return_exceptions=True)
        refused = [each for each in found if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [StartError] * 3
        for each in found:
            if not isinstance(each, BaseException):
                await each.close()
        assert (await said(await container.enter(("true",), Wish())))[0] == 0
        del world

    told(tmp_path, MODES[0], story)


def test_who_attaches_hears_the_main_program_until_its_end(tmp_path: Path) -> None:
    async def story(world: World, container: Container) -> None:
        session = container.attach(Wish())
        assert await session.read("stdout") == b"tick\n"
        await container.kill()
        while await session.read("stdout"):
            pass
        assert await session.wait() == 137
        await session.close()
        del world

    told(tmp_path, MODES[0], story, "sh", "-c", "while :; do sleep 0.1; echo tick; done")


def test_an_input_that_ends_while_somebody_waits_for_it_leaves_its_number_to_others() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        files = Files(Wish(stdin=True))
        feeding = asyncio.ensure_future(files.feed(b"x" * 1_000_000, loop.create_future()))
        await asyncio.sleep(0)
        number = files.input
        files.end_input()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.dup2(writer, number)
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(number, resolve, ready)
        await ready
        loop.remove_writer(number)
        # Once it is read the wait is over, and the input ends.
        assert os.read(files.theirs[0], 1 << 20)
        await feeding
        while os.read(files.theirs[0], 1 << 20):
            pass
        for fd in {reader, writer, number}:
            os.close(fd)
        files.close()

    asyncio.run(asyncio.wait_for(story(), 10))


# A pipe for each stream and one to tell of the start; two copies of each end of a terminal, and the pipe.
@pytest.mark.parametrize(
    ("tty", "there"), [*((False, number) for number in range(4)), *((True, number) for number in range(5))]
)
def test_streams_that_cannot_all_be_had_leave_no_descriptor_behind(
    monkeypatch: pytest.MonkeyPatch, tty: bool, there: int
) -> None:
    left = there

    def scarce(real: Any) -> Any:
        def made(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("too many open files")
            return real(*arguments)

        return made

    before = os.listdir("/proc/self/fd")
    for name in ("pipe2", "dup"):
        monkeypatch.setattr(os, name, scarce(getattr(os, name)))
    with pytest.raises(OSError, match="too many"):
        opened(Wish(stdin=True, tty=tty))
    assert os.listdir("/proc/self/fd") == before
