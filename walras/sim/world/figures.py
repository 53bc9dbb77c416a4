"""What a run came to, as numbers: sums of integers, each divided once, so that they are the same anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from walras.core.money import MICROS
from walras.market.ground import SPEED_UNIT
from walras.sim.world.recorder import Recorder
from walras.sim.world.serving import Service
from walras.sim.world.tally import NEVER, Tally
from walras.sim.world.workload import Ints
from walras.sim.world.world import World


def percentile(values: Sequence[int] | Ints, percent: int) -> int:
    """The least value that so many percent of all are not above (nearest rank); 0 of none."""
    if not len(values):
        return 0
    ranked = np.sort(np.asarray(values))
    return int(ranked[max(0, -(-len(ranked) * percent // 100) - 1)])


@dataclass(frozen=True)
class Figures:
    """A world at its end. Times are up to then; what is said of the pool is of the time of the arrivals.

    Where devices are unlike, what a pool can do goes by its speeds.
    """

    world: World
    recorder: Recorder

    def metrics(self) -> dict[str, float]:
        """Those of `Result` that apply, and some of its own (docs/reference/traces.md)."""
        world, offered = self.world, max(1, self.recorder.offered_milli_ms)
        leased = sum(self.recorder.leased_milli_ms.values())
        alike = world.fleet.alike
        useful = sum((self.useful_milli_ms if alike else self.tally.kept_milli_ms).values())
        found: dict[str, float] = {
            "allocation_pct": 100 * leased / offered,
            "utilisation": useful / offered,
            "unserved": self.unserved,
            "evictions": self.tally.evictions + sum(service.evictions for service in world.services),
            "wait_p99_s": percentile(self.waits_ms, 99) / 1000,
            "jain": self.jain,
            "events": world.events + sum(service.queue.events for service in world.services),
        }
        if self.tally.come:
            found |= self._of_jobs()
        if world.services:
            found |= self._of_requests()
        if (prices := [sample.price_micros for sample in self.recorder.samples]) and any(prices):
            found["price_mean"] = sum(prices) / (len(prices) * MICROS)
        return found if alike else found | self._of_models()

    @cached_property
    def tally(self) -> Tally:
        """Of all jobs, with those that are not over as they are."""
        return self.world.tally.with_all(self.world.running)

    @property
    def unserved(self) -> int:
        """Jobs and requests that were not done by the end."""
        jobs = self.tally.come - len(self.jct_ms)
        return jobs + sum(each.queue.unanswered(self.world.now_ms) for each in self.world.services)

    @cached_property
    def jct_ms(self) -> Ints:
        """From arrival to end, of the jobs that were done."""
        done_ms = self.tally.done_ms
        found: Ints = (done_ms - self.tally.arrival_ms)[done_ms != NEVER]
        return found

    @cached_property
    def waits_ms(self) -> Ints:
        """From bid to first lease, of jobs and replicas; one that never had a lease waited to the end."""
        return np.concatenate((_NONE, *self.waits_by_agent.values()))

    @cached_property
    def waits_by_agent(self) -> dict[str, Ints]:
        now_ms, tally = self.world.now_ms, self.tally
        waits = np.where(tally.first_ms == NEVER, now_ms, tally.first_ms) - tally.arrival_ms
        numbers = tally.agent
        found = {
            agent.name: waits[numbers == number] for number, agent in enumerate(self.world.workload.agents)
        }
        for service in self.world.services:
            of_replicas = np.array(service.waited_ms(now_ms), np.int64)
            found[service.agent.name] = np.concatenate((found[service.agent.name], of_replicas))
        return found

    def latencies_ms(self, service: Service) -> Ints:
        """Of the requests that were answered by the end."""
        latency = np.array(service.queue.latency_ms, np.int64)
        answered = (latency >= 0) & (service.stream.arrivals_ms + latency <= self.world.now_ms)
        return latency[answered]

    @cached_property
    def useful_milli_ms(self) -> dict[str, int]:
        """By agent, milli-GPU ms of work that was kept, in the time of the arrivals."""
        span_ms = self.world.workload.span_ms
        found = {agent.name: self.tally.useful_milli_ms[agent.name] for agent in self.world.workload.agents}
        for service in self.world.services:
            found[service.agent.name] += service.queue.useful_ms(span_ms) * service.stream.milli
        return found

    @property
    def offered_work_milli_ms(self) -> int:
        """Work that the pool could have done in the time of the arrivals."""
        return self.recorder.offered_milli_ms * self.world.fleet.mean_speed_milli // SPEED_UNIT

    def _of_models(self) -> dict[str, float]:
        """Of each model's time, what was under lease and what did work that was kept."""
        found = {}
        for model, offered in sorted(self.recorder.offered_of_milli_ms.items()):
            found[f"allocation_pct_{model}"] = 100 * self.recorder.taken_milli_ms[model] / max(1, offered)
            found[f"utilisation_{model}"] = self.tally.kept_milli_ms[model] / max(1, offered)
        return found

    @cached_property
    def jain(self) -> float:
        """Jain's index over what each agent got of the lesser of its demand and its part by weight."""
        workload, offered = self.world.workload, self.offered_work_milli_ms
        demand = {agent.name: self.tally.come_milli_ms[agent.name] for agent in workload.agents}
        for stream in workload.streams:
            demand[stream.agent] += int(stream.works_ms.sum()) * 1000
        weights = sum(agent.weight for agent in workload.agents)
        parts = []
        for agent in workload.agents:
            due = min(demand[agent.name], offered * agent.weight // weights)
            if due:
                parts.append(min(1_000_000, 1_000_000 * self.useful_milli_ms[agent.name] // due))
        squares = len(parts) * sum(part * part for part in parts)
        return sum(parts) ** 2 / squares if squares else 1.0

    def _of_jobs(self) -> dict[str, float]:
        """rho: how long a job took over how long it takes on its agent's part of the pool alone."""
        tally, rhos, of_done = self.tally, self.rho_permille, {}
        useful = sum(tally.useful_milli_ms.values())
        if self.jct_ms.size:
            of_done = {
                "jct_mean_s": int(self.jct_ms.sum()) / (1000 * len(self.jct_ms)),
                "jct_p99_s": percentile(self.jct_ms, 99) / 1000,
                "makespan_s": int(tally.done_ms.max()) / 1000,
            }
        return of_done | {
            "rho_worst": int(rhos.max(initial=0)) / 1000,
            "unfair_pct": 100 * int((rhos > 1000).sum()) / max(1, len(rhos)),
            "goodput_pct": 100 * useful / max(1, self.offered_work_milli_ms),
            "lost_gpu_h": tally.lost_milli_ms / 3_600_000_000,
        }

    @cached_property
    def rho_permille(self) -> Ints:
        """How long each job took over how long it takes alone, in thousandths."""
        tally = self.tally
        end_ms = np.where(tally.done_ms == NEVER, self.world.now_ms, tally.done_ms)
        found: Ints = 1000 * (end_ms - tally.arrival_ms) // tally.alone_ms
        return found

    def _of_requests(self) -> dict[str, float]:
        latencies: list[int] = []
        met = come = 0
        waits = [wait for each in self.world.services for wait in each.waited_ms(self.world.now_ms)]
        for service in self.world.services:
            found = self.latencies_ms(service)
            latencies += found.tolist()
            met += int((found <= service.stream.slo_ms).sum())
            come += len(service.stream.arrivals_ms)
        return {
            "request_p50_s": percentile(latencies, 50) / 1000,
            "request_p99_s": percentile(latencies, 99) / 1000,
            "slo_pct": 100 * met / max(1, come),
            "gpu_wait_p99_s": percentile(waits, 99) / 1000,
        }


_NONE: Ints = np.empty(0, np.int64)
