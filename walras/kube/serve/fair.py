"""Whose request is next: the server's time shared out between clusters, and turns between the users of each.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over the one thing that all share, the time of
the event loop, which is measured: whoever has had least of it for its weight goes first. While nobody waits,
nobody is held up; an idle watch holds nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from walras.core.errors import TooManyRequests

T = TypeVar("T")
# (cluster, user) whose limits a request counts against; see Identity.payer.
Payer = tuple[str, str]

# Work that is begun in one turn of the loop; what comes after it waits for the next.
QUANTUM_NS: Final = 500_000
# Requests of one payer that are being answered, which one commit lets go all at once, and that wait; and that
# wait of all payers together.
RUNNING_MAX: Final = 64
WAITING_MAX: Final = 1024
WAITING_ALL_MAX: Final = 16_384
OPERATOR_WEIGHT: Final = 4
# What a request is taken to cost before its payer's are known, and what each costs around its turn.
_TYPICAL_NS: Final = 200_000
_AROUND_NS: Final = 60_000
_FLOWS_KEPT: Final = 64


class _Flow:
    """A payer: what it has had, in nanoseconds by its weight, and its users that wait."""

    __slots__ = ("queued", "running", "spent", "typical_ns", "users", "waiting", "weight")

    def __init__(self, weight: int, spent: float) -> None:
        self.weight = weight
        self.spent = spent
        self.typical_ns = _TYPICAL_NS
        self.running = 0
        self.waiting = 0
        self.queued = False
        self.users: OrderedDict[str, deque[asyncio.Future[int]]] = OrderedDict()

    def push(self, user: str, turn: asyncio.Future[int]) -> None:
        self.users.setdefault(user, deque()).append(turn)
        self.waiting += 1

    def pop(self) -> asyncio.Future[int]:
        """The turn of the user who has waited longest for one."""
        user, turns = self.users.popitem(last=False)
        turn = turns.popleft()
        if turns:
            self.users[user] = turns
        self.waiting -= 1
        return turn


class Fair:
    """Belongs to one event loop. `timer` is a clock that runs on, in nanoseconds."""

    def __init__(self, timer: Callable[[], int] = time.perf_counter_ns) -> None:
        self.timer = timer
        self._flows: dict[Payer, _Flow] = {}
        # Who waits, by what it has had when it was put there.
        self._heap: list[tuple[float, int, _Flow]] = []
        self._pushes = 0
        self._waiting = 0
        # Those that wait to go on.
        self._going_on = 0
        # What whoever was begun last has had: newcomers start there.
        self._now = 0.0
        self._begun_ns = 0
        self._ticking = False
        self._running = 0
        self._sweep_at = _FLOWS_KEPT

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._waiting

    async def turn(self, payer: Payer, user: str, *, goes_on: bool = False) -> Turn:
        """Waits for the payer's turn, which the caller leaves. Raises TooManyRequests.

        What `goes_on`, a part of a request that has begun, waits however many do.
        """
        flow = self._flow(payer)
        if flow.waiting or flow.running >= RUNNING_MAX or not self._is_next(flow):
            return await self._waited(flow, user, goes_on=goes_on)
        self._wake()
        return Turn(self, flow, self._reserve(flow))

    def _is_next(self, flow: _Flow) -> bool:
        """Whether one of the payer's would be begun now if it waited."""
        if self._heap:
            return max(flow.spent, self._now) < self._heap[0][0]
        return self._begun_ns < QUANTUM_NS

    def _flow(self, payer: Payer) -> _Flow:
        flow = self._flows.get(payer)
        if flow is None:
            if len(self._flows) >= self._sweep_at:
                self._sweep()
            flow = self._flows[payer] = _Flow(1 if payer[0] else OPERATOR_WEIGHT, self._now)
        return flow

    def _sweep(self) -> None:
        """Forgets who is idle and has had no more than newcomers."""
        idle = [
            payer
            for payer, flow in self._flows.items()
            if not flow.running and not flow.waiting and flow.spent <= self._now
        ]
        for payer in idle:
            del self._flows[payer]
        self._sweep_at = max(_FLOWS_KEPT, 2 * len(self._flows))

    async def _waited(self, flow: _Flow, user: str, *, goes_on: bool) -> Turn:
        is_full = flow.waiting >= WAITING_MAX or self._waiting - self._going_on >= WAITING_ALL_MAX
        if is_full and not goes_on:
            raise TooManyRequests("too many requests, please try again later", retry_after_s=1)
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        flow.push(user, turn)
        self._waiting += 1
        self._going_on += goes_on
        self._queue(flow)
        try:
            return Turn(self, flow, await turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                Turn(self, flow, turn.result()).leave()
            raise
        finally:
            self._going_on -= goes_on

    def _queue(self, flow: _Flow) -> None:
        """Puts the payer among those of whom one is begun, if it has something to begin."""
        if flow.waiting and not flow.queued and flow.running < RUNNING_MAX:
            flow.queued = True
            flow.spent = max(flow.spent, self._now)
            self._pushes += 1
            heapq.heappush(self._heap, (flow.spent, self._pushes, flow))
        if self._heap:
            self._wake()

    def _wake(self) -> None:
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        """A new turn of the loop: as many begin as fit into it, of those first who have had least."""
        self._ticking = False
        self._begun_ns = 0
        while self._heap and self._begun_ns < QUANTUM_NS:
            spent, _, flow = heapq.heappop(self._heap)
            flow.queued = False
            if spent >= flow.spent and flow.running < RUNNING_MAX:
                turn = flow.pop()
                self._waiting -= 1
                if not turn.done():
                    turn.set_result(self._reserve(flow))
            self._queue(flow)
        if self._heap:
            self._wake()

    def _reserve(self, flow: _Flow) -> int:
        """Begins one as if it had cost what it usually does, so that another is before the next of these."""
        flow.spent = self._now = max(flow.spent, self._now)
        flow.running += 1
        self._running += 1
        self._begun_ns += flow.typical_ns + _AROUND_NS
        flow.spent += flow.typical_ns / flow.weight
        return flow.typical_ns

    def left(self, flow: _Flow) -> None:
        flow.running -= 1
        self._running -= 1
        if not self._running and not self._waiting:
            # Nobody has kept anybody waiting: what each has had is over and done with.
            self._flows.clear()
        self._queue(flow)


class Turn:
    """From the first step of a request to its answer."""

    __slots__ = ("_cost_ns", "_fair", "_flow", "_left", "_reserved_ns")

    def __init__(self, fair: Fair, flow: _Flow, reserved_ns: int) -> None:
        self._fair = fair
        self._flow = flow
        self._reserved_ns = reserved_ns
        self._cost_ns = 0
        self._left = False

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of the work, whose time on the loop is the payer's, also after the turn was left."""
        outcome: T = await Metered(work, self.charge, self._fair.timer)
        return outcome

    def charge(self, cost_ns: int) -> None:
        """Has the payer pay for time that was not `run`."""
        self._cost_ns += cost_ns
        self._flow.spent += cost_ns / self._flow.weight

    def leave(self) -> None:
        """Lets another one in. Idempotent."""
        if self._left:
            return
        self._left, flow = True, self._flow
        flow.spent -= self._reserved_ns / flow.weight
        flow.typical_ns += (self._cost_ns - flow.typical_ns) // 8
        self._fair.left(flow)


class Metered:
    """Work that is told, after each of its steps, how long it was."""

    __slots__ = ("_charge", "_timer", "_work")

    def __init__(
        self, work: Coroutine[Any, Any, Any], charge: Callable[[int], None], timer: Callable[[], int]
    ) -> None:
        self._work = work
        self._charge = charge
        self._timer = timer

    def __await__(self) -> Generator[Any, Any, Any]:
        work, charge, timer = self._work, self._charge, self._timer
        given: Any = None
        raised: BaseException | None = None
        try:
            while True:
                began_ns = timer()
                try:
                    waits = work.send(given) if raised is None else work.throw(raised)
                except StopIteration as stop:
                    return stop.value
                finally:
                    charge(timer() - began_ns)
                given = raised = None
                try:
                    given = yield waits
                except GeneratorExit:
                    raise
                except BaseException as error:
                    raised = error
        finally:
            # What is raised leads to this frame, and is not to be led to by it.
            raised = None
            work.close()
