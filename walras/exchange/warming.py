"""The compiled engine made ready beside the market, once there is so much to decide that it pays.

Compiling takes a minute, the first time on a machine, so a process of its own does it and leaves the result
on disk. Until the engine is loaded the market clears plainly, with the same decisions.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import structlog

from walras.market.large import load, loading

_log = structlog.get_logger("walras.exchange")


class Warming:
    """Defers the engine until it is wanted and ready. One a process."""

    def __init__(self) -> None:
        loading.deferred = True
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Begin, if a clearing would have used the engine and nobody began yet."""
        if loading.wanted and self._task is None:
            self._task = asyncio.create_task(self._load())

    async def cancel(self) -> None:
        """Wait for it no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _load(self) -> None:
        compiler = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "walras.exchange.warming"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            status = await compiler.wait()
        except asyncio.CancelledError:
            compiler.kill()
            raise
        if status:
            _log.warning("no compiled engine: large markets are cleared plainly", status=status)
            return
        await asyncio.to_thread(load)
        _log.info("large markets are cleared by the compiled engine from now on")


if __name__ == "__main__":
    os.nice(10)
    load()
