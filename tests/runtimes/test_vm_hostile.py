"""What a program must not be able to do from inside a machine, though it is root there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from support.hostile import (
    ATTEMPTS,
    BEGAN,
    ESCAPED,
    THIEF,
    TREASURE,
    VICTIM,
    Ground,
    listening,
    play,
)
from support.runtimes import vm, whole

from walras.runtimes.base import Process, Wish
from walras.runtimes.network.networks import Networks
from walras.runtimes.shares import Shares
from walras.runtimes.vm.runtime import VmRuntime

pytestmark = pytest.mark.skipif(bool(vm().missing), reason=vm().missing)
# What a guest's root may do to its own kernel is no business of others.
OWN = frozenset(
    (
        "opens a raw socket", "opens a packet socket", "makes a network device", "takes an address",
        "makes a device file", "reads memory", "sets the core pattern", "pulls the trigger",
        "writes to the control groups", "becomes root", "sets the clock",
    )
)  # fmt: skip
STEP_S = 120.0


def ground(tmp_path: Path) -> Ground:
    networks = Networks()
    runtime = vm().make(tmp_path, Shares(tmp_path, networks=networks))
    assert isinstance(runtime, VmRuntime)
    return Ground(runtime, tmp_path, networks=networks)


async def says(process: Process, script: str) -> str:
    """What a shell in the container says of it."""
    async with asyncio.timeout(STEP_S):
        session = await process.enter(("sh", "-c", script), Wish())
        said = await asyncio.gather(*(whole(session, stream) for stream in session.outputs))
        await session.wait()
        await session.close()
    return b"".join(said).decode(errors="replace")


def test_a_thief_who_is_root_of_its_machine_gets_nothing_of_others(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        (tmp_path / "secret").write_text(TREASURE)
        volume = ground.volume(VICTIM)
        await ground.victim()
        thief = await ground.begin(THIEF, "sleep", "600")
        with listening() as (address, port):
            where = {
                "data": tmp_path, "volume": volume, "pid": os.getpid(), "address": address, "port": port,
                "victim": ground.address(VICTIM),
            }  # fmt: skip
            for attempt in ATTEMPTS:
                if attempt.name in OWN:
                    continue
                said = await says(thief, attempt.filled(where))
                assert said.startswith(BEGAN), attempt
                assert ESCAPED not in said and TREASURE not in said, f"{attempt}: {said}"

    play(ground(tmp_path), story)


def test_a_guest_that_ruins_itself_ends_alone_and_another_starts_in_its_place(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        victim = await ground.victim()
        await ground.hears(VICTIM, BEGAN)
        thief = await ground.begin(THIEF, "sh", "-c", "sleep 1; echo c > /proc/sysrq-trigger; sleep 600")
        async with asyncio.timeout(STEP_S):
            assert (await thief.wait()).code == 137
        again = await ground.begin(THIEF, "sh", "-c", f"echo {BEGAN}; sleep 600")
        # The read-only parts of the share stay as they are, whatever is mounted over them.
        tried = (
            "mount -o remount,rw,bind /usr; echo x > /usr/x && echo won; echo x >> /usr/bin/env && echo won"
        )
        assert "won" not in await says(again, tried)
        await victim.kill()

    play(ground(tmp_path), story)
    assert not Path("/usr/x").exists()
