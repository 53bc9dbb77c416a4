"""How fast the simulation runs: `scripts/bench sim` prints one line of JSON.

First a mix on a small pool: events a second of processor time, each request two (its begin and its end),
under mechanisms of different cost: with them, and what the rest does in the time that it takes itself. Beside
them the queue alone. Then jobs alone on a large pool, which the compiled engine keeps, each mechanism in a
process of its own: `--jobs 1000000 --gpus 100000` for a million on 100,000 devices. An event is a job's
arrival, end or deadline, a tick, or a payment; renewals and entries of the ledger are counted beside them.
Peak memory is that of the process. The limit of the same run is what Python's heap does alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from heapq import heapreplace
from random import Random
from typing import Any

from walras.market.mechanism import Mechanism
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Outcome, Snapshot
from walras.sim.traces import synthetic
from walras.sim.traces.chances import log_uniform_mean
from walras.sim.world.keeping import MECHANISMS as KEPT
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


def jobs_alone(jobs: int, gpus: int, load_percent: int) -> Workload:
    """About so many jobs of half a minute to ten, in gangs, that make that load while they come."""
    spec = synthetic.Spec(serving=0, training=8, job_s_min=30, job_s_max=600, elastic=0)
    mean_ms = log_uniform_mean(1000 * spec.job_s_min, 1000 * spec.job_s_max)
    minutes = max(1, round(jobs * mean_ms / (gpus * load_percent * 600)))
    source = synthetic.source(replace(spec, minutes=minutes), gpus, load_percent / 100, Random(1))
    return workload(source, gpus, 1)


def large(jobs: int, gpus: int, load_percent: int, mechanism: str) -> dict[str, float]:
    """A run of jobs alone, audited, and how much of its time the mechanism and the auditor take."""
    made = time.process_time()
    load = jobs_alone(jobs, gpus, load_percent)
    world = World(load, mechanism, devices(gpus))
    kept = world.market._kept
    assert kept is not None, "the pool is too small to be kept by the engine"
    deciding, pricing = Spent(kept, "clear"), Spent(kept, "excess_milli")
    auditing = Spent(world.auditor, "check")
    started = time.process_time()
    world.run()
    took = time.process_time() - started
    assert world.market._kept is kept, "the pool was decided plainly in the end"
    return {
        "jobs": world.tally.come,
        "gpus": gpus,
        "minutes": load.span_ms / 60_000,
        "unserved": len(world.running),
        "make_s": started - made,
        "run_s": took,
        "events": world.events,
        "events_per_s": world.events / took,
        "renewals": world.market.leases.renewed,
        "ledger_entries": world.bank.ledger.seq,
        "clearings": world.market.clearings,
        "clearing_ms": 1000 * deciding.took_s / world.market.clearings,
        "engine_percent": 100 * (deciding.took_s + pricing.took_s) / took,
        "auditor_percent": 100 * auditing.took_s / took,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


class Spent:
    """A method of an object, from now on with how often it is called and how long it takes."""

    def __init__(self, of: object, name: str) -> None:
        self._function: Callable[..., Any] = getattr(of, name)
        self.took_s, self.calls = 0.0, 0
        setattr(of, name, self)

    def __call__(self, *args: Any) -> Any:
        started = time.process_time()
        found = self._function(*args)
        self.took_s += time.process_time() - started
        self.calls += 1
        return found


def apart(mechanism: str, asked: argparse.Namespace) -> dict[str, float]:
    """`large` in a process of its own."""
    given = ("jobs", "gpus", "load_percent")
    options = [f"--{name.replace('_', '-')}={getattr(asked, name)}" for name in given]
    command = [sys.executable, "-m", "bench.sim", f"--only={mechanism}", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def mix(gpus: int, minutes: int, request_ms: int) -> dict[str, float]:
    """Requests and jobs on a small pool."""
    load = load_of(gpus, minutes, request_ms)
    figures: dict[str, float] = {
        "mix_requests": sum(len(stream.arrivals_ms) for stream in load.streams),
        "mix_jobs": len(load.jobs),
        "mix_queue_events_per_s": queue_alone(load),
    }
    for mechanism in ("fifo", "karma", "auction"):
        figures |= {f"mix_{mechanism}_{name}": value for name, value in whole(load, gpus, mechanism).items()}
    figures["mix_peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="of the large run")
    parser.add_argument("--gpus", type=int, default=10_000)
    parser.add_argument("--load-percent", type=int, default=100)
    parser.add_argument("--only", choices=KEPT, help="the large run under this alone")
    parser.add_argument("--no-mix", action="store_true", help="the large run alone")
    parser.add_argument("--mix-gpus", type=int, default=64)
    parser.add_argument("--mix-minutes", type=int, default=30)
    parser.add_argument("--mix-request-ms", type=int, default=100)
    asked = parser.parse_args()
    figures: dict[str, float] = {}
    if asked.only:
        figures = large(asked.jobs, asked.gpus, asked.load_percent, asked.only)
    else:
        if not asked.no_mix:
            figures = mix(asked.mix_gpus, asked.mix_minutes, asked.mix_request_ms)
        for mechanism in KEPT:
            for name, value in apart(mechanism, asked).items():
                figures[f"{mechanism}_{name}"] = value
    figures["limit_heap_per_s"] = heap_alone()
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
