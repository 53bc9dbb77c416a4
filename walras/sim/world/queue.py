"""Requests of one agent and the replicas that answer them, in order of arrival.

Nothing but the market changes which replicas there are, and requests of different agents do not meet. So a
queue is played by itself, up to the next thing that the market does, which is faster than event by event.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heapify, heappop, heappush, heapreplace

import numpy as np

from walras.sim.world.workload import Stream


class Queue:
    """`latency_ms` by request, -1 while it has no answer; the answer may lie in the future."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._arrivals: list[int] = stream.arrivals_ms.tolist()
        self._services: list[int] = (-(-stream.works_ms * 1000 // stream.milli)).tolist()
        self._sums: list[int] = np.concatenate(([0], np.cumsum(stream.works_ms))).tolist()
        self.service_mean_ms = sum(self._services) // max(1, len(self._services))
        self.latency_ms = [-1] * len(self._arrivals)
        self._free: list[tuple[int, int]] = []  # a heap: when each replica is free, its number
        self._serving: dict[int, int] = {}
        self._again: list[int] = []
        self._head = 0
        self.events = 0

    def add(self, replica: int, now_ms: int) -> None:
        """A replica that takes requests from now on."""
        heappush(self._free, (now_ms, replica))

    def drain(self, replica: int) -> None:
        """It answers what it has begun, and takes no more."""
        self._free = [each for each in self._free if each[1] != replica]
        heapify(self._free)

    def remove(self, replica: int, now_ms: int) -> None:
        """It is gone; what it had not answered goes back to the front."""
        self.drain(replica)
        request = self._serving.pop(replica, None)
        if request is not None and self._arrivals[request] + self.latency_ms[request] > now_ms:
            self.latency_ms[request] = -1
            heappush(self._again, request)

    def idle(self, now_ms: int) -> int | None:
        """The replica that is free longest, if one is."""
        return self._free[0][1] if self._free and self._free[0][0] <= now_ms else None

    def play(self, until_ms: int) -> None:
        """Begin every request that can be begun by then."""
        arrivals, services, latency = self._arrivals, self._services, self.latency_ms
        free, serving, head, count = self._free, self._serving, self._head, len(self._arrivals)
        while free:
            if self._again:
                request = self._again[0]
            elif head < count:
                request = head
            else:
                break
            free_ms, replica = free[0]
            came_ms = arrivals[request]
            start_ms = free_ms if free_ms > came_ms else came_ms
            if start_ms > until_ms:
                break
            done_ms = start_ms + services[request]
            heapreplace(free, (done_ms, replica))
            serving[replica] = request
            latency[request] = done_ms - came_ms
            self.events += 2
            if self._again:
                heappop(self._again)
            else:
                head += 1
        self._head = head

    def load(self, now_ms: int, window_ms: int) -> tuple[int, int]:
        """Milli-GPU that the arrivals of the last window keep busy, and the work that waits, in GPU ms."""
        come = bisect_right(self._arrivals, now_ms)
        before = bisect_left(self._arrivals, now_ms - window_ms)
        lately = self._sums[come] - self._sums[before]
        waiting = self._sums[max(come, self._head)] - self._sums[self._head]
        waiting += sum(self._sums[each + 1] - self._sums[each] for each in self._again)
        span_ms = max(1, min(window_ms, now_ms))
        return 1000 * lately // span_ms, waiting

    def waits(self, now_ms: int) -> bool:
        """Whether a request is still to come or to be answered."""
        busy = any(
            self._arrivals[request] + self.latency_ms[request] > now_ms for request in self._serving.values()
        )
        return bool(self._again) or self._head < len(self._arrivals) or busy

    def unanswered(self, now_ms: int) -> int:
        """How many have come and have no answer by then."""
        come = bisect_right(self._arrivals, now_ms)
        return sum(
            latency < 0 or came + latency > now_ms
            for came, latency in zip(self._arrivals[:come], self.latency_ms[:come], strict=True)
        )

    def useful_ms(self, until_ms: int) -> int:
        """Replica time spent by then on requests that were answered."""
        latency, services = np.array(self.latency_ms, np.int64), np.array(self._services, np.int64)
        done = self.stream.arrivals_ms + latency
        spent = np.clip(until_ms - (done - services), 0, services)
        return int(spent[latency >= 0].sum())
