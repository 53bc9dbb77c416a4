"""Waiting for the first of two things, and for a time that may be shortened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


async def first(one: Awaitable[Any], other: Awaitable[Any]) -> bool:
    """Whether `one` is done, when either is; what is not done is cancelled. Raises what `one` raises."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return False
        tasks[0].result()
        return True
    finally:
        await cancelled(*tasks)


async def within(sleep: Sleep, seconds: float, work: Awaitable[T]) -> T:
    """What `work` returns or raises. Raises TimeoutError when it takes longer than `seconds`."""
    task = asyncio.ensure_future(work)
    if await first(task, sleep(seconds)):
        return task.result()
    raise TimeoutError


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancels them; returns when all have ended, however they did."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Grace:
    """The time that programs have to end; it begins with its making and may be shortened."""

    def __init__(self, seconds: float, sleep: Sleep) -> None:
        self.seconds = seconds
        self._sleep = sleep
        self._began_s = asyncio.get_running_loop().time()
        self._changed = asyncio.Event()
        self._over = seconds <= 0

    def shorten(self, seconds: float) -> None:
        """To `seconds` from the beginning; a longer time changes nothing."""
        if seconds < self.seconds:
            self.seconds = seconds
            self._changed.set()

    async def over(self) -> None:
        """Returns when the time is over."""
        clock = asyncio.get_running_loop().time
        while not self._over and (left_s := self._began_s + self.seconds - clock()) > 0:
            self._changed.clear()
            if not await first(self._changed.wait(), self._sleep(left_s)):
                self._over = True
