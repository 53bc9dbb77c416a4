"""How children are started, and what becomes of their descriptors and of what they say meanwhile."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from walras.runtimes.base import Stream
from walras.runtimes.launch import Witness
from walras.runtimes.spawn import Spawner


def test_a_child_has_the_files_it_was_given_though_their_numbers_are_anothers_by_its_turn() -> None:
    async def run() -> None:
        spawner, turn = Spawner(), threading.Event()
        mine, given = os.pipe()
        theirs, other = os.pipe()
        try:
            spawner._pool.submit(turn.wait)
            starting = asyncio.ensure_future(
                spawner.spawn(("/bin/sh", "-c", "echo mine"), {}, (mine, given, given))
            )
            await asyncio.sleep(0)
            os.dup2(other, given)
            turn.set()
            await asyncio.to_thread(os.waitpid, await starting, 0)
            os.close(given)
            os.set_blocking(mine, False)
            assert os.read(mine, 100) == b"mine\n"
        finally:
            spawner.close()
            for fd in (mine, theirs, other):
                os.close(fd)

    asyncio.run(run())


def test_a_child_that_nobody_waits_for_any_more_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    running, turn, pids = threading.Event(), threading.Event(), list[int]()
    start = os.posix_spawn

    def slow(*arguments: Any, **more: Any) -> int:
        running.set()
        turn.wait()
        pids.append(start(*arguments, **more))
        return pids[-1]

    async def run() -> None:
        monkeypatch.setattr(os, "posix_spawn", slow)
        spawner = Spawner()
        mine, given = os.pipe()
        try:
            starting = asyncio.ensure_future(spawner.spawn(("/bin/sleep", "1000"), {}, (given,)))
            await asyncio.to_thread(running.wait)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            turn.set()
            await asyncio.wrap_future(spawner._pool.submit(lambda: None))
            os.close(given)
            # Nobody holds the other end, and there is no child to be waited for.
            os.set_blocking(mine, False)
            assert os.read(mine, 1) == b""
            with pytest.raises(ChildProcessError):
                os.waitpid(pids[0], os.WNOHANG)  # noqa: ASYNC222  it does not wait
        finally:
            spawner.close()
            os.close(mine)

    asyncio.run(run())


def test_what_a_program_says_before_it_is_noticed_that_it_runs_is_all_kept_on_its_stream() -> None:
    heard: list[tuple[Stream, bytes]] = []
    witness = Witness(lambda stream, data: heard.append((stream, data)))
    said: list[tuple[Stream, bytes]] = [("stdout", b"x" * 70_000), ("stderr", b"oops\n"), ("stdout", b"y\n")]
    for stream, data in said:
        witness(stream, data)
    assert not heard
    witness.release()
    witness("stdout", b"more\n")
    assert heard == [*said, ("stdout", b"more\n")]
