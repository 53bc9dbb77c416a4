"""The instances of a revision, the requests that they answer, and those that are held until one can."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import ServiceUnavailable
from walras.functions.autoscaler import Meter, Mind, begin
from walras.functions.connections import Link
from walras.functions.settings import Limits, Scaling
from walras.functions.words import Where
from walras.tenants.objects import DISRUPTION_TARGET, Object, deleting, is_true, uid

# Requests that wait for an instance of one revision.
WAITING_MAX: Final = 1_000
# When it may be worth to ask for a revision again that is not there.
RETRY_S: Final = 5
# A connection that was used so lately is there still.
_FRESH_S: Final = 1.0


@dataclass(eq=False, slots=True)
class Instance:
    """A pod that answers requests, or will."""

    pod: Object
    port: int
    in_flight: int = 0
    # It accepts connections, and its probe has passed where it has one.
    ready: bool = False
    # It is one too many: it gets no more requests, and goes when it has none.
    closing: bool = False
    # Connections that are open and not in use, the one used last at the end.
    idle: list[Link] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return uid(self.pod)

    @property
    def is_leaving(self) -> bool:
        """Whether its pod is being deleted, or its node taken away."""
        return deleting(self.pod) or is_true(self.pod, DISRUPTION_TARGET)

    @property
    def is_staying(self) -> bool:
        return not self.closing and not self.is_leaving

    def reusable(self, *, is_repeatable: bool) -> Link | None:
        """A connection that is kept, for a request that may be sent again, or that it is fresh enough for."""
        now_s = asyncio.get_running_loop().time()
        while self.idle:
            link = self.idle.pop()
            if link.is_open and (is_repeatable or now_s - link.used_s < _FRESH_S):
                return link
            link.close()
        return None

    def keep(self, link: Link) -> bool:
        """Keeps a connection for the next request, if it may be used again."""
        if not (link.is_open and self.ready):
            return False
        link.used_s = asyncio.get_running_loop().time()
        self.idle.append(link)
        return True

    def end(self) -> None:
        """Nobody is sent to it any more."""
        self.ready, self.closing = False, True
        self.disconnect()

    def disconnect(self) -> None:
        for connection in self.idle:
            connection.close()
        self.idle.clear()


class Backend:
    """One revision, as long as it has instances or requests. `changed` is told when there is work on it."""

    def __init__(
        self,
        where: Where,
        clock: Clock,
        scaling: Scaling,
        limits: Limits,
        changed: Callable[[], None],
        *,
        is_http2: bool = False,
    ) -> None:
        self.where, self.scaling, self.limits = where, scaling, limits
        # Whether instances are spoken to in HTTP/2.
        self.is_http2 = is_http2
        self.instances: dict[str, Instance] = {}
        # How many instances there shall be, as far as requests are concerned.
        self.wanted = 0
        self.is_reachable = True
        self.meter = Meter(clock.now_ms(), max(scaling.window_ms, scaling.panic_window_ms))
        self.mind: Mind = begin(0, clock.now_ms())
        self._clock, self._changed = clock, changed
        self._waiting: deque[asyncio.Future[Instance]] = deque()
        self._is_over = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> int:
        return sum(each.ready and each.is_staying for each in self.instances.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it has to be remembered."""
        return not self.instances and not self.meter.level and not self.wanted

    # Requests

    def enter(self) -> None:
        """A request is there. Raises ServiceUnavailable where too many wait already."""
        if len(self._waiting) >= WAITING_MAX:
            raise ServiceUnavailable(
                f"{WAITING_MAX} requests wait for an instance of revision "
                f'"{self.where.name}" already; try again later',
                retry_after_s=1,
            )
        self.meter.change(self._clock.now_ms(), 1)

    def leave(self) -> None:
        """A request is over."""
        self.meter.change(self._clock.now_ms(), -1)

    async def acquire(self) -> Instance:
        """An instance with room for one more request, to be given back to `release`; in order of arrival.

        Raises ServiceUnavailable where the revision is gone.
        """
        if self._is_over:
            raise self._gone()
        found = None if self._waiting else self._free()
        if found is not None:
            found.in_flight += 1
            return found
        future: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())
            raise
        finally:
            if not future.done() or future.cancelled():
                self._waiting = deque(each for each in self._waiting if each is not future)

    def release(self, instance: Instance) -> None:
        instance.in_flight -= 1
        if instance.is_staying:
            self.dispatch()
        elif not instance.in_flight:
            self._changed()

    def end(self) -> None:
        """The revision is gone, or nothing goes on: who waits is told, who is answered already is not."""
        self._is_over = True
        for instance in self.instances.values():
            instance.end()
        for future in self._waiting:
            if not future.done():
                future.set_exception(self._gone())
        self._waiting.clear()

    def _gone(self) -> ServiceUnavailable:
        return ServiceUnavailable(f'revision "{self.where.name}" not found', retry_after_s=RETRY_S)

    def dispatch(self) -> None:
        """Hands instances that have room to those who wait."""
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            found = self._free()
            if found is None:
                return
            found.in_flight += 1
            self._waiting.popleft().set_result(found)

    def _free(self) -> Instance | None:
        """The instance with the fewest requests, if it may have another."""
        usable = [each for each in self.instances.values() if each.ready and each.is_staying]
        found = min(usable, key=lambda each: each.in_flight, default=None)
        limit = self.limits.concurrency
        return found if found is not None and (not limit or found.in_flight < limit) else None

    def _wake(self) -> None:
        """From nothing, the autoscaler is not waited for."""
        if not self.wanted:
            self.wanted = min(self.scaling.activation, self.scaling.maximum)
            self._changed()

    # Instances

    def begin(self, count: int) -> None:
        """So many instances are there, and the autoscaler begins to measure: until it has, they stay."""
        self.wanted = max(self.wanted, count)
        self.mind = begin(count, self._clock.now_ms())

    def lose(self, instance: Instance) -> None:
        """It does not answer: no request for it until it is ready again."""
        instance.ready = False
        instance.disconnect()

    def fewer(self, by: int) -> list[Instance]:
        """Marks so many instances to go, those with the fewest requests; all that may go at once now."""
        staying = [each for each in self.instances.values() if each.is_staying]
        order = sorted(staying, key=lambda each: (each.ready, each.in_flight, _newest_first(each)))
        for each in order[: max(0, by)]:
            each.closing = True
        return [each for each in self.instances.values() if not each.is_staying and not each.in_flight]

    def more(self, by: int) -> int:
        """Takes back up to so many that were to go; how many are missing then."""
        for each in self.instances.values():
            if by > 0 and each.closing and not each.is_leaving:
                each.closing, by = False, by - 1
        self.dispatch()
        return max(0, by)


def _newest_first(instance: Instance) -> tuple[int, ...]:
    return tuple(-ord(char) for char in instance.pod["metadata"]["creationTimestamp"])
