"""What pods must not be able to do, whichever runtime runs them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from support.hostile import (
    ATTEMPTS,
    BEGAN,
    ESCAPED,
    GROUNDS,
    THIEF,
    TREASURE,
    VICTIM,
    Attempt,
    Ground,
    listening,
    on,
    play,
)

from walras.runtimes import procfs
from walras.runtimes.base import Limits
from walras.runtimes.process import ProcessRuntime

RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(make is None, reason=f"no {name} runtime here"))
    for name, make in GROUNDS.items()
]
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


async def attempted(ground: Ground, attempt: Attempt) -> str:
    """What the thief says of it."""
    _write(ground.data_dir / "secret", TREASURE)
    await ground.victim()
    await ground.hears(VICTIM, BEGAN)
    with listening() as (address, port):
        where = {"data": ground.data_dir, "volume": ground.volume(VICTIM), "pid": _pid_of("sleep 4711")}
        victim = ground.address(VICTIM)
        script = attempt.filled({**where, "address": address, "port": port, "victim": victim})
        thief = await ground.begin(THIEF, "sh", "-c", script)
        assert (await ground.ends(thief)).code == 0
    return ground.said[THIEF].decode(errors="replace")


@every_runtime
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_a_thief_gets_nothing(tmp_path: Path, runtime: str, attempt: Attempt) -> None:
    async def story(ground: Ground) -> None:
        said = await attempted(ground, attempt)
        assert said.startswith(BEGAN)
        assert ESCAPED not in said and TREASURE not in said, said

    if "python3" in attempt.script and not _has_python(runtime):
        pytest.skip("its containers have no Python")
    on(runtime, tmp_path, story)


@every_runtime
def test_a_friend_reaches_what_a_thief_does_not(tmp_path: Path, runtime: str) -> None:
    reaching = next(each for each in ATTEMPTS if each.name == "reaches another agent's pod")

    async def story(ground: Ground) -> None:
        await ground.victim()
        if ground.networks is None or not ground.networks.available:
            pytest.skip("pods have no network here")
        script = reaching.filled({"victim": ground.address(VICTIM)}).replace("exit 0", "")
        again = f"for each in 1 2 3 4 5 6 7 8 9; do {{ {script.strip().removesuffix(';')}; }}; sleep 1; done"
        await ground.begin(VICTIM, "sh", "-c", again, pod="-friend")
        await ground.hears(VICTIM, ESCAPED)

    on(runtime, tmp_path, story)


@pytest.mark.parametrize(
    "name", ["reads the server's folder", "reads another agent's volume", "reads another's command line",
             "reads another's environment", "reaches the host's loopback", "signals another's process"]
)  # fmt: skip
def test_a_thief_gets_it_where_nothing_holds_it(tmp_path: Path, name: str) -> None:
    """The attempts can succeed: what keeps them from it is the sandbox."""

    async def story(ground: Ground) -> None:
        assert ESCAPED in await attempted(ground, next(each for each in ATTEMPTS if each.name == name))

    play(Ground(ProcessRuntime(tmp_path, mode="plain"), tmp_path), story)


def _has_python(runtime: str) -> bool:
    make = GROUNDS[runtime]
    return make is None or make(Path("/nonexistent")).python


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _pid_of(command: str) -> int:
    """A process of the victim's, as the host numbers it; of one that cannot be seen its own."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if words == command:
            return int(each.parent.name)
    return os.getpid()


@every_runtime
def test_a_program_that_ignores_every_signal_is_gone_once_it_is_killed(tmp_path: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        script = f"trap '' TERM INT HUP QUIT USR1; echo {BEGAN}; while :; do sleep 1; done"
        process = await ground.begin(THIEF, "sh", "-c", script)
        await ground.hears(THIEF, BEGAN)
        process.signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        await process.kill()
        assert (await ground.ends(process)).code == 137

    on(runtime, tmp_path, story)


@every_runtime
def test_what_leaves_its_session_is_gone_with_the_pod(tmp_path: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        script = f"(setsid sh -c 'trap \"\" TERM HUP; exec sleep 4712' &) ; echo {BEGAN}; sleep 4713"
        process = await ground.begin(THIEF, "sh", "-c", script)
        await ground.hears(THIEF, BEGAN)
        await process.kill()
        await ground.ends(process)
        assert _pid_of("sleep 4712") == _pid_of("sleep 4713") == os.getpid()

    on(runtime, tmp_path, story)


@every_runtime
def test_a_fork_bomb_hurts_nobody_else_and_can_be_killed(tmp_path: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        script = f"echo {BEGAN}; bomb() {{ bomb | bomb & }}; bomb; sleep 60"
        process = await ground.begin(THIEF, "sh", "-c", script, limits=Limits(pids=100))
        await ground.hears(THIEF, BEGAN)
        victim = await ground.victim()
        await ground.hears(VICTIM, BEGAN)
        await process.kill()
        await ground.ends(process)
        await victim.kill()

    on(runtime, tmp_path, story)


@every_runtime
def test_memory_beyond_the_limit_is_not_to_be_had(tmp_path: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        limits = Limits(memory_bytes=64 << 20)
        # A shell variable that doubles until the limit, in an image that may have nothing else.
        more = "x=0123456789abcdef; while [ ${#x} -lt 300000000 ]; do x=$x$x; done"
        script = f"echo {BEGAN}; {more}; echo {ESCAPED}"
        process = await ground.begin(THIEF, "sh", "-c", script, limits=limits)
        status = await ground.ends(process)
        said = ground.said[THIEF].decode()
        assert said.startswith(BEGAN) and ESCAPED not in said
        assert status.code != 0

    on(runtime, tmp_path, story)


@every_runtime
def test_nothing_of_a_pod_is_left_when_it_is_removed(tmp_path: Path, runtime: str) -> None:
    async def story(ground: Ground) -> None:
        open_before, children_before = 0, set[int]()
        for number in range(4):
            if number == 1:
                # What a runtime starts with its first pod, it keeps for others.
                open_before = len(os.listdir("/proc/self/fd"))
                children_before = set(procfs.descendants(os.getpid()))
            process = await ground.victim()
            await ground.hears(VICTIM, BEGAN)
            await process.kill()
            pod = process.spec.pod  # type: ignore[attr-defined]
            await ground.runtime.remove_pod(pod)
        assert len(os.listdir("/proc/self/fd")) <= open_before + 2
        assert set(procfs.descendants(os.getpid())) <= children_before

    on(runtime, tmp_path, story)
