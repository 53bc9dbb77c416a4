"""Machines by themselves: how it is found out what runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from support.runtimes import World, tell_alike, vm

from walras.runtimes.base import Pausable, StartError
from walras.runtimes.process import ProcessRuntime
from walras.runtimes.vm import acceleration, parts

pytestmark = pytest.mark.skipif(bool(vm().missing), reason=vm().missing)
Story = Callable[[ProcessRuntime, parts.Parts], Awaitable[None]]


def with_runtime(tmp_path: Path, story: Story) -> None:
    async def run() -> None:
        runtime = ProcessRuntime(tmp_path)
        await runtime.open()
        found, _ = parts.find()
        assert found is not None
        try:
            await story(runtime, found)
        finally:
            await runtime.close()

    asyncio.run(run())


def test_a_guest_that_runs_is_known_by_its_end_and_by_its_readiness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(runtime: ProcessRuntime, found: parts.Parts) -> None:
        assert await acceleration.smallest(runtime, found, tmp_path / "vm", "tcg") == ""
        monkeypatch.setattr(acceleration, "_BOOT_S", 120.0)
        assert await acceleration.boots(runtime, found, tmp_path / "vm", "tcg") == ""
        assert list((tmp_path / "vm" / "run").iterdir()) == []

    with_runtime(tmp_path, story)


def test_what_hangs_is_given_up_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(runtime: ProcessRuntime, found: parts.Parts) -> None:
        # Instructions that end nothing.
        monkeypatch.setattr(acceleration, "_PROGRAM", bytes((0xEB, 0xFE)))
        said = await acceleration.smallest(runtime, found, tmp_path / "vm", "tcg")
        assert "a guest hangs" in said

    with_runtime(tmp_path, story)


def test_programs_that_entered_and_left_leave_nothing_in_the_guest(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", "echo up; while :; do sleep 1; done")
        await world.hears(said)
        for _ in range(3):
            assert (await world.enter(process, "true"))[0] == 0
            with pytest.raises(StartError):
                await world.enter(process, "no-such-program")
        _, listed = await world.enter(process, "sh", "-c", "ls -d /sys/fs/cgroup/[0-9]*/*/ /proc/1/fd/*")
        groups = [each for each in listed.split() if each.startswith(b"/sys")]
        # That of `ls` itself, and of one that is just going.
        assert len(groups) <= 2
        assert len(listed.split()) - len(groups) < 24

    tell_alike(vm(), tmp_path, story)


def test_a_machine_that_is_held_says_nothing_until_it_goes_on_and_can_be_killed_meanwhile(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        process, said = await world.begin("sh", "-c", "while :; do echo on; sleep 0.1; done")
        await world.hears(said, b"on\non\n")
        assert isinstance(process, Pausable)
        await process.pause(True)
        await asyncio.sleep(0.5)
        before = bytes(said)
        await asyncio.sleep(1.0)
        assert bytes(said) == before
        await process.pause(False)
        del said[:]
        await world.hears(said, b"on\n")
        await process.pause(True)
        async with asyncio.timeout(30):
            await process.kill()

    tell_alike(vm(), tmp_path, story)
