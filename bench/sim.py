"""How fast the simulation runs: `scripts/bench sim` prints one line of JSON.

Events a second of processor time, each request two (its begin and its end), under mechanisms of different
cost: with them, and what the rest does in the time that it takes itself. Beside them the queue alone, and as
the limit of the same run what Python's heap does. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from heapq import heapreplace
from random import Random

from walras.market.mechanism import Mechanism
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Outcome, Snapshot
from walras.sim.traces import synthetic
from walras.sim.world.queue import Queue
from walras.sim.world.study import workload
from walras.sim.world.workload import Workload
from walras.sim.world.world import World, devices


def load_of(gpus: int, minutes: int, request_ms: int) -> Workload:
    """Mostly requests, and jobs beside them; nine tenths of what the pool can do."""
    spec = synthetic.parse(
        f"minutes={minutes},serving=8,training=8,serving_percent=80,"
        f"request_ms_min={request_ms // 4},request_ms_max={request_ms * 2}"
    )
    source = synthetic.source(spec, gpus, 0.9, Random(1))
    return workload(source, gpus, 1)


class Timed:
    """A mechanism, and how long it took."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self.took_s, self.calls = 0.0, 0

    def clear(self, snapshot: Snapshot) -> Outcome:
        return self._timed(lambda: self._mechanism.clear(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return self._timed(lambda: self._mechanism.express(snapshot, bid_id))

    def _timed(self, decide: Callable[[], Outcome]) -> Outcome:
        started = time.process_time()
        outcome = decide()
        self.took_s += time.process_time() - started
        self.calls += 1
        return outcome


def whole(load: Workload, gpus: int, mechanism: str) -> dict[str, float]:
    """A run of everything, audited."""
    world = World(load, mechanism, devices(gpus))
    timed = Timed(MECHANISMS[mechanism])
    world.market._mechanism = timed
    started = time.process_time()
    world.run()
    took = time.process_time() - started
    events = world.events + sum(service.queue.events for service in world.services)
    return {
        "events": events,
        "events_per_s": events / took,
        "beside_mechanism_events_per_s": events / (took - timed.took_s),
        "decision_ms": 1000 * timed.took_s / max(1, timed.calls),
        "mechanism_percent": 100 * timed.took_s / took,
    }


def queue_alone(load: Workload) -> float:
    """Events a second of the requests alone, with replicas enough."""
    queue = Queue(max(load.streams, key=lambda stream: len(stream.arrivals_ms)))
    for replica in range(64):
        queue.add(replica, 0)
    started = time.process_time()
    queue.play(load.span_ms * 2)
    return queue.events / (time.process_time() - started)


def heap_alone(size: int = 64, times: int = 1_000_000) -> float:
    """How many times a second Python replaces the head of a small heap: a request takes one at least."""
    heap = [(at, at) for at in range(size)]
    started = time.process_time()
    for at in range(times):
        heapreplace(heap, (at + 7919 * at % 1009, at))
    return times / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--request-ms", type=int, default=100)
    asked = parser.parse_args()
    load = load_of(asked.gpus, asked.minutes, asked.request_ms)
    figures: dict[str, float] = {
        "requests": sum(len(stream.arrivals_ms) for stream in load.streams),
        "jobs": len(load.jobs),
        "queue_events_per_s": queue_alone(load),
        "limit_heap_per_s": heap_alone(),
    }
    for mechanism in ("fifo", "karma", "auction"):
        figures |= {
            f"{mechanism}_{name}": value for name, value in whole(load, asked.gpus, mechanism).items()
        }
    figures["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
