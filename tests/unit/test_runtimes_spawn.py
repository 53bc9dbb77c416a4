"""How children get their descriptors from the thread that starts them."""

from __future__ import annotations

import asyncio
import os
import threading

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
