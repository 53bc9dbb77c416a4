"""Long steps of writes, taken beside the event loop: a write is begun anew with what they came to.

A step looks only at what it is given, changes none of it, and gives the same whenever it is taken.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from walras.core.errors import WalrasError, bare

if TYPE_CHECKING:
    from walras.kube.context import Context

T = TypeVar("T")

# Objects of so many bytes have long steps: about a millisecond for each of them in 16 KiB.
BYTES_MIN: Final = 32 << 10
# How many one write may have; patches of what keeps changing are then done where they are.
STEPS_MAX: Final = 24
# How soon the loop has the interpreter back from a step. Python's own 5 ms are felt by everybody.
SWITCH_S: Final = 0.0005


class Untaken(Exception):
    """Staging cannot go on before a step is taken; it is begun anew with what that came to."""

    def __init__(self, step: Callable[..., Any], given: tuple[Any, ...]) -> None:
        super().__init__(getattr(step, "__name__", ""))
        self.step = step
        self.given = given


class Steps:
    """What the steps of one write came to."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: list[tuple[Callable[..., Any], tuple[Any, ...], Any, WalrasError | None]] = []

    def take(self, step: Callable[..., T], *given: Any) -> T:
        """What it comes to; to be read only. Raises Untaken the first time, then what the step raises."""
        for known, before, came_to, refusal in self._taken:
            if known is step and before == given:
                if refusal is not None:
                    raise refusal
                return came_to  # type: ignore[no-any-return]
        if len(self._taken) >= STEPS_MAX:
            return step(*given)
        raise Untaken(step, given)

    def learn(self, untaken: Untaken, came_to: Any, refusal: WalrasError | None = None) -> None:
        self._taken.append((untaken.step, untaken.given, came_to, refusal))


def taken(ctx: Context | None, step: Callable[..., T], *given: Any) -> T:
    """What a step comes to: here and now, or else where nobody waits for it. Raises Untaken."""
    return step(*given) if ctx is None or ctx.steps is None else ctx.steps.take(step, *given)


class Payer(Protocol):
    """Whose time a step takes: a request, or the context of one."""

    @property
    def cluster(self) -> str: ...

    @property
    def charge(self) -> Callable[[int], None] | None:
        """Told of the nanoseconds."""


class Aside:
    """Takes steps in a thread: one at a time, of one cluster after another."""

    def __init__(self) -> None:
        self._thread = asyncio.Semaphore(1)
        self._mine: dict[str, asyncio.Semaphore] = {}
        self._waiting: Counter[str] = Counter()

    async def take(self, payer: Payer, step: Callable[..., T], *given: Any) -> T:
        """What it comes to, in time that the caller pays for. Raises what the step raises."""
        cluster = payer.cluster
        self._waiting[cluster] += 1
        try:
            async with self._mine.setdefault(cluster, asyncio.Semaphore(1)), self._thread:
                return await _taken(payer, step, given)
        finally:
            self._waiting[cluster] -= 1
            if not self._waiting[cluster]:
                del self._waiting[cluster], self._mine[cluster]

    async def learn(self, ctx: Context, untaken: Untaken) -> None:
        """Takes the step that a write waits for; why it refuses is told where the write comes to it."""
        if ctx.steps is None:
            return
        came_to: Any = None
        refusal: WalrasError | None = None
        try:
            came_to = await self.take(ctx, untaken.step, *untaken.given)
        except WalrasError as error:
            refusal = bare(error)
        ctx.steps.learn(untaken, came_to, refusal)


async def _taken(payer: Payer, step: Callable[..., T], given: tuple[Any, ...]) -> T:
    spent_ns = 0

    def take() -> T:
        nonlocal spent_ns
        began_ns = time.thread_time_ns()
        try:
            return step(*given)
        finally:
            spent_ns = time.thread_time_ns() - began_ns

    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        return await asyncio.to_thread(take)
    finally:
        sys.setswitchinterval(usual_s)
        if payer.charge is not None:
            payer.charge(spent_ns)
