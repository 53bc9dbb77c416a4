"""The work queue that every controller shares: level-triggered, deduplicated, fair between clusters.

Like controller-runtime's: a change only says which object to look at again; `reconcile` reads the state as
it is and makes it what it should be. One key is never worked on twice at the same time, a failure comes back
with exponential delay, and clusters take turns: a flooding one costs the others one turn, not a queue.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, Protocol

import structlog

from walras.core.clock import Clock
from walras.core.errors import InternalError, WalrasError
from walras.kube.admission.call import REVIEW, Answered, Review, Unanswered
from walras.kube.record import copy

# Enough for one group commit to carry the writes of many; what waits for its fsync holds one of them.
IN_FLIGHT_MAX: Final = 64
RETRY_MS_MIN: Final = 5
RETRY_MS_MAX: Final = 60_000

_log = structlog.get_logger("walras.tenants")


class Key(NamedTuple):
    """An object by name; what `resource` it is of, the controller knows."""

    cluster: str
    namespace: str
    name: str


class Reconciler(Protocol):
    async def reconcile(self, cluster: str, namespace: str, name: str, /) -> int | None:
        """Makes the state of one object right; milliseconds after which to look again, or None.

        Raises anything: it is tried again with a growing delay.
        """


class Work(NamedTuple):
    controller: Reconciler
    key: Key


class FairQueue:
    """Work of many clusters, each in order of arrival, the clusters in turn."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, OrderedDict[Work, None]] = OrderedDict()
        # True: became due again while it was being worked on.
        self._running: dict[Work, bool] = {}

    def add(self, work: Work) -> None:
        """Queues work once, however often it is added before its turn."""
        if work in self._running:
            self._running[work] = True
            return
        self._waiting.setdefault(work.key.cluster, OrderedDict())[work] = None

    def take(self) -> Work | None:
        """The next work, to be given back to `done`; None when nothing waits."""
        if not self._waiting:
            return None
        cluster, waiting = self._waiting.popitem(last=False)
        work, _ = waiting.popitem(last=False)
        if waiting:
            self._waiting[cluster] = waiting
        self._running[work] = False
        return work

    def done(self, work: Work) -> None:
        if self._running.pop(work):
            self.add(work)

    def clusters(self) -> set[str]:
        """Those that work waits for, or is done on."""
        return {*self._waiting, *(work.key.cluster for work in self._running)}

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running


class Manager:
    """Runs the controllers' work on the event loop, at most IN_FLIGHT_MAX at a time."""

    def __init__(self, clock: Clock, rouse: Callable[[str], bool] = lambda _: True) -> None:
        """`rouse`: wakes a cluster that there is work for; whether it is still there, so that it has a point.

        Work for the cluster "" is for none in particular.
        """
        self.clock = clock
        self._rouse = rouse
        self.failures: dict[Work, int] = {}
        self._queue = FairQueue()
        self._timers: list[tuple[int, int, Work]] = []
        self._due: dict[Work, int] = {}
        self._sequence = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # Webhooks that are being asked take no turn of others; what they answered, until the work is done.
        self._asking: set[asyncio.Task[None]] = set()
        self._reviews: dict[Work, Review] = {}
        self._pump_planned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._quiet = asyncio.Event()

    def start(self) -> None:
        """Begins to work; what was added before starts now."""
        self._loop = asyncio.get_running_loop()
        self._plan_pump()
        self._set_alarm()

    async def stop(self) -> None:
        """Takes no new work and waits for what is under way."""
        self._loop = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for task in self._asking:
            task.cancel()
        while self._tasks or self._asking:
            await asyncio.gather(*self._tasks, *self._asking, return_exceptions=True)

    def add(self, controller: Reconciler, key: Key, after_ms: int = 0) -> None:
        """Has the controller look at the object, now or after a while; the earliest of several counts."""
        work = Work(controller, key)
        if after_ms > 0:
            self._delay(work, self.clock.now_ms() + after_ms)
            return
        self._queue.add(work)
        self._plan_pump()

    def retry(self, controller: Reconciler, key: Key, error: Exception) -> None:
        """Has it looked at again after a failure, later each time; `reconcile` without one ends the row."""
        work = Work(controller, key)
        self._delay(work, self.clock.now_ms() + self._failed(work, error))

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine that `stop` and `settle` wait for; it must not raise."""
        # Not self._loop: work that is under way while we stop may still begin its last part.
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def busy(self) -> set[str]:
        """The clusters that there is work for, now or later."""
        waiting = {work.key.cluster for work in (*self._due, *self._reviews)}
        return self._queue.clusters() | waiting

    async def settle(self) -> None:
        """Returns when nothing is left to do at the clock's time. For tests and for a clean start."""
        while True:
            self._fire()
            if self._queue.idle and not self._tasks and not self._asking:
                return
            self._quiet.clear()
            await self._quiet.wait()

    def _delay(self, work: Work, due_ms: int) -> None:
        if self._due.get(work, due_ms + 1) <= due_ms:
            return
        self._due[work] = due_ms
        self._sequence += 1
        heapq.heappush(self._timers, (due_ms, self._sequence, work))
        if self._timers[0][2] is work:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._loop is not None and self._timers:
            wait_ms = max(1, self._timers[0][0] - self.clock.now_ms())
            self._alarm = self._loop.call_later(wait_ms / 1000, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._fire()
        self._set_alarm()

    def _fire(self) -> None:
        now_ms = self.clock.now_ms()
        while self._timers and self._timers[0][0] <= now_ms:
            due_ms, _, work = heapq.heappop(self._timers)
            # An entry that an earlier one replaced is stale.
            if self._due.get(work) == due_ms:
                del self._due[work]
                self._queue.add(work)
        self._plan_pump()

    def _plan_pump(self) -> None:
        if self._loop is None or self._pump_planned or not self._queue.waiting:
            return
        self._pump_planned = True
        self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_planned = False
        while self._loop is not None and len(self._tasks) < IN_FLIGHT_MAX:
            work = self._queue.take()
            if work is None:
                break
            self.spawn(self._work(work))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task failed", error=str(error), exc_info=error)
        self._plan_pump()
        if not self._tasks:
            self._quiet.set()

    async def _work(self, work: Work) -> None:
        again_ms = None
        try:
            if self._concerns(work):
                again_ms = await self._reconciled(work)
        except Unanswered as unanswered:
            self._ask(work, unanswered)
        except Exception as error:
            self._reviews.pop(work, None)
            # What fails because its cluster is being removed needs no second try.
            again_ms = self._failed(work, error) if self._concerns(work) else None
        else:
            self._reviews.pop(work, None)
            self.failures.pop(work, None)
        finally:
            self._queue.done(work)
        if again_ms is not None:
            self.add(work.controller, work.key, again_ms)

    async def _reconciled(self, work: Work) -> int | None:
        review = self._reviews.get(work)
        if review is not None:
            review.rewind()
        token = REVIEW.set(review)
        try:
            return await work.controller.reconcile(*work.key)
        finally:
            REVIEW.reset(token)

    def _ask(self, work: Work, unanswered: Unanswered) -> None:
        """Has an agent's webhooks asked about what is made for it, beside the work of all others."""
        admission = unanswered.call.api.admission
        review = self._reviews.get(work)
        if review is None:
            self._reviews[work] = admission.review()
            self.add(work.controller, work.key)
            return

        if review.is_endless:
            del self._reviews[work]
            error = InternalError("the object changes faster than its admission webhooks answer")
            self.add(work.controller, work.key, self._failed(work, error))
            return
        call = unanswered.call
        asked_about = None if call.new is None else copy(call.new)

        async def ask() -> None:
            try:
                answered = await admission.ask(unanswered)
            except WalrasError as refusal:
                # The controller hears it where it makes the object, and tells the object's owner.
                answered = Answered(unanswered.phase, call.old, asked_about, None, refusal)
            review.answers.append(answered)
            self.add(work.controller, work.key)

        task = asyncio.get_running_loop().create_task(ask())
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._quiet.set()

    def _concerns(self, work: Work) -> bool:
        cluster = work.key.cluster
        return not cluster or self._rouse(cluster)

    def _failed(self, work: Work, error: Exception) -> int:
        """Counts and tells the failure; milliseconds until the next try."""
        count = self.failures.get(work, 0) + 1
        self.failures[work] = count
        _log.warning(
            "reconcile failed",
            controller=type(work.controller).__name__,
            key="/".join(work.key),
            tries=count,
            error=str(error) or type(error).__name__,
            # What is raised on purpose says enough; anything else is a fault of the program.
            exc_info=None if isinstance(error, WalrasError) else error,
        )
        return min(RETRY_MS_MIN << min(count - 1, 20), RETRY_MS_MAX)
