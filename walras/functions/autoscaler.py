"""How many instances a revision needs: Knative's pod autoscaler (KPA) as a function. Pure.

Two averages decide, over a long window and over a short one. While the short one asks for a multiple of what
there is, the autoscaler panics: it follows the short one, and only upwards.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final

from walras.functions.settings import Scaling

# Knative's max-scale-up-rate and max-scale-down-rate: factors for one decision.
UP_RATE: Final = 1000
DOWN_RATE: Final = 2
BUCKET_MS: Final = 1_000


class Meter:
    """What goes on, over time: how many requests at once, and how many began. Times must not fall."""

    def __init__(self, now_ms: int, span_ms: int) -> None:
        """Remembers `span_ms`."""
        self.level = 0
        self._span_ms, self._first_ms, self._last_ms = span_ms, now_ms, now_ms
        # (when a bucket begins, milliseconds times requests within it, requests that began within it).
        self._buckets: deque[list[int]] = deque()

    def change(self, now_ms: int, by: int) -> None:
        """One request more, or one less."""
        self._advance(now_ms)
        self.level += by
        assert self.level >= 0, "more requests ended than began"
        if by > 0:
            self._bucket(now_ms)[2] += 1

    def concurrency_milli(self, now_ms: int, window_ms: int) -> int:
        """The mean number of requests at once over the window, in thousandths, rounded up."""
        self._advance(now_ms)
        since_ms = self._since(now_ms, window_ms)
        area = sum(bucket[1] for bucket in self._buckets if bucket[0] >= since_ms)
        return -(-area * 1000 // max(1, now_ms - since_ms))

    def rate_milli(self, now_ms: int, window_ms: int) -> int:
        """The mean number of requests that began in a second of the window, in thousandths, rounded up."""
        self._advance(now_ms)
        since_ms = self._since(now_ms, window_ms)
        count = sum(bucket[2] for bucket in self._buckets if bucket[0] >= since_ms)
        return -(-count * 1_000_000 // max(BUCKET_MS, now_ms - since_ms))

    def _since(self, now_ms: int, window_ms: int) -> int:
        """Where the window begins: with a bucket, and not before there was anything to measure."""
        begins_ms = now_ms - window_ms
        return max(self._first_ms, begins_ms - begins_ms % BUCKET_MS)

    def _bucket(self, at_ms: int) -> list[int]:
        begins_ms = max(self._first_ms, at_ms - at_ms % BUCKET_MS)
        if not self._buckets or self._buckets[-1][0] < begins_ms:
            self._buckets.append([begins_ms, 0, 0])
        return self._buckets[-1]

    def _advance(self, now_ms: int) -> None:
        """Counts the level into the buckets up to now, and forgets what is too old."""
        oldest_ms = now_ms - self._span_ms - BUCKET_MS
        self._last_ms = max(self._last_ms, oldest_ms)
        while self.level and self._last_ms < now_ms:
            bucket = self._bucket(self._last_ms)
            end_ms = min(now_ms, self._last_ms - self._last_ms % BUCKET_MS + BUCKET_MS)
            bucket[1] += self.level * (end_ms - self._last_ms)
            self._last_ms = end_ms
        self._last_ms = max(self._last_ms, now_ms)
        while self._buckets and self._buckets[0][0] < oldest_ms:
            self._buckets.popleft()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a decision is made of: averages in thousandths, instances that are ready, the time."""

    stable_milli: int
    panic_milli: int
    ready: int
    now_ms: int
    # Whether a route leads to the revision.
    is_reachable: bool = True


@dataclass(frozen=True, slots=True)
class Mind:
    """What the autoscaler remembers between decisions."""

    # Since when it has had something to measure.
    since_ms: int
    panic_ms: int | None = None
    panic_most: int = 0
    # (when, how many), those of the scale-down delay.
    wanted: tuple[tuple[int, int], ...] = ()
    # Since when nobody needs an instance.
    idle_ms: int | None = None


def begin(ready: int, now_ms: int) -> Mind:
    """The mind of an autoscaler that has measured nothing yet: what runs is kept until it has."""
    return Mind(now_ms, now_ms, ready) if ready > 1 else Mind(now_ms)


def decide(mind: Mind, scaling: Scaling, seen: Seen) -> tuple[Mind, int]:
    """How many instances there shall be, within the bounds, and what to remember."""
    ready = max(1, seen.ready)
    stable = -(-seen.stable_milli // scaling.target_milli)
    panic = -(-seen.panic_milli // scaling.target_milli)
    least, most = (ready // DOWN_RATE if seen.is_reachable else 0), ready * UP_RATE
    mind = _panic(mind, scaling, seen, is_over=panic * 100 >= ready * scaling.panic_threshold_percent)
    wanted = _activated(min(max(stable, least), most), stable, scaling)
    if mind.panic_ms is not None:
        wanted = max(wanted, _activated(min(max(panic, least), most), panic, scaling), mind.panic_most)
        mind = replace(mind, panic_most=wanted)
    mind, wanted = _delayed(mind, scaling, wanted, seen.now_ms)
    mind, wanted = _kept(mind, scaling, wanted, seen)
    lowest = scaling.minimum if seen.is_reachable else 0
    return mind, min(max(wanted, lowest), scaling.maximum)


def _activated(wanted: int, needed: int, scaling: Scaling) -> int:
    return max(wanted, scaling.activation) if needed else wanted


def _panic(mind: Mind, scaling: Scaling, seen: Seen, *, is_over: bool) -> Mind:
    if is_over:
        return replace(mind, panic_ms=seen.now_ms)
    if mind.panic_ms is not None and mind.panic_ms + scaling.window_ms < seen.now_ms:
        return replace(mind, panic_ms=None, panic_most=0)
    return mind


def _delayed(mind: Mind, scaling: Scaling, wanted: int, now_ms: int) -> tuple[Mind, int]:
    """The most that was wanted within the scale-down delay."""
    if not scaling.down_delay_ms:
        return mind, wanted
    since_ms = now_ms - scaling.down_delay_ms
    # A smaller number before a greater one decides nothing any more.
    kept = tuple(each for each in mind.wanted if each[0] > since_ms and each[1] > wanted)
    kept = (*kept, (now_ms, wanted))
    return replace(mind, wanted=kept), kept[0][1]


def _kept(mind: Mind, scaling: Scaling, wanted: int, seen: Seen) -> tuple[Mind, int]:
    """The last instance stays for a window after it began, and for the retention after its last request."""
    if wanted:
        return replace(mind, idle_ms=None), wanted
    if not seen.ready:
        return mind, 0
    if seen.is_reachable and seen.now_ms - mind.since_ms < scaling.window_ms:
        return mind, 1
    idle_ms = seen.now_ms if mind.idle_ms is None else mind.idle_ms
    is_over = seen.now_ms - idle_ms >= scaling.retention_ms or not seen.is_reachable
    return replace(mind, idle_ms=idle_ms), 0 if is_over else 1
