"""An agent that answers requests: how many replicas it wants, and what becomes of each."""

# ruff: noqa: ARG002 (a claim need not look at all that it is told)
from __future__ import annotations

from typing import Final

from walras.market.strategies.slo import Curve
from walras.market.types import Package
from walras.sim.world.autoscaler import KEEP_MS, WINDOW_MS, WITHDRAW_MS, Autoscaler
from walras.sim.world.bidding import Ask, Floor
from walras.sim.world.leases import Holding
from walras.sim.world.queue import Queue
from walras.sim.world.workload import Agent, Stream

CONTROL_MS: Final = 1_000
# By the strategy "slo" a bid that waits is made anew so often.
REPRICE_MS: Final = 2_000


class Replica:
    """One of a service's leases, or its bid for one."""

    def __init__(self, service: Service, number: int, now_ms: int, wanted_ms: int) -> None:
        self.service, self.number = service, number
        self.asked_ms, self.wanted_ms = now_ms, wanted_ms
        self.holding: Holding | None = None

    def started(self, holding: Holding, now_ms: int) -> None:
        self.holding = holding
        self.service.queue.play(now_ms)
        self.service.queue.add(self.number, now_ms)
        self.service.waits_ms.append(now_ms - self.wanted_ms)

    def warned(self, holding: Holding, now_ms: int) -> None:
        self.service.queue.play(now_ms)
        self.service.queue.drain(self.number)
        self.service.evictions += 1
        self.service.leave(self)

    def ended(self, holding: Holding, now_ms: int) -> None:
        self.service.queue.play(now_ms)
        self.service.queue.remove(self.number, now_ms)
        self.service.leave(self)


class Service:
    """The queue and the replicas of one stream; `waits_ms` is from bid to lease, of each that began, or until
    the bid was taken back."""

    def __init__(self, stream: Stream, agent: Agent, floor: Floor, most: int) -> None:
        self.stream, self.agent, self.queue = stream, agent, Queue(stream)
        self.replicas: dict[int, Replica] = {}
        self.waits_ms: list[int] = []
        self.evictions = 0
        self._floor, self._made = floor, 0
        self._autoscaler = Autoscaler(stream.milli, most)

    def leave(self, replica: Replica) -> None:
        self.replicas.pop(replica.number, None)

    def waited_ms(self, now_ms: int) -> list[int]:
        """`waits_ms`, and how long each bid waits that is still to be decided."""
        waiting = [each for each in self.replicas.values() if each.holding is None]
        return [*self.waits_ms, *(now_ms - each.wanted_ms for each in waiting)]

    def control(self, now_ms: int) -> None:
        """Bid for what is missing, withdraw or give back what is too much."""
        self.queue.play(now_ms)
        load_milli, waiting_ms = self.queue.load(now_ms, WINDOW_MS)
        wanted = self._autoscaler.look(now_ms, load_milli, waiting_ms)
        missing = [now_ms] * (wanted - len(self.replicas))
        if self.agent.strategy == "slo":
            # What another is worth has changed.
            missing = [*self._take_back(now_ms), *missing]
        have = sum(each.holding is not None for each in self.replicas.values())
        latencies_ms = (
            self._latency_ms(have, load_milli, waiting_ms),
            self._latency_ms(max(wanted, have + 1), load_milli, 0),
        )
        for wanted_ms in missing:
            self._ask(now_ms, wanted_ms, latencies_ms)
        self._withdraw(now_ms, len(self.replicas) - self._autoscaler.needed_within(WITHDRAW_MS))
        self._give_back(now_ms, len(self.replicas) - self._autoscaler.needed_within(KEEP_MS))

    def _ask(self, now_ms: int, wanted_ms: int, latencies_ms: tuple[int, int]) -> None:
        self._made += 1
        replica = Replica(self, self._made, now_ms, wanted_ms)
        self.replicas[replica.number] = replica
        package = Package(1, self.stream.milli, 0, self.stream.term_ms, 0)
        ask = Ask(
            agent=self.agent.name,
            packages=(package,),
            value_micros=self.agent.value_micros,
            work_ms=self.stream.term_ms,
            submitted_ms=self._floor.start_ms + now_ms,
            job_class="latency",
            curve=Curve(self.stream.slo_ms // 2, 2 * self.stream.slo_ms),
            latencies_ms=latencies_ms,
        )
        self._floor.bid(ask, replica)

    def _latency_ms(self, replicas: int, load_milli: int, waiting_ms: int) -> int:
        """What a request takes about, with so many: its own time, what waits, and the queue of M/M/1 with all
        replicas as one; where they are too few, what misses the objective by far."""
        milli, service_ms = replicas * self.stream.milli, self.queue.service_mean_ms
        if milli <= load_milli:
            return 100 * self.stream.slo_ms
        queue_ms = service_ms * load_milli // ((milli - load_milli) * replicas)
        return service_ms + queue_ms + 1000 * waiting_ms // milli

    def _take_back(self, now_ms: int) -> list[int]:
        """Withdraw bids that have waited for a while; since when each replica is wanted."""
        old = [
            each
            for each in self.replicas.values()
            if each.holding is None and now_ms - each.asked_ms >= REPRICE_MS
        ]
        for replica in old:
            self.leave(replica)
            self._floor.withdraw(replica)
        return [replica.wanted_ms for replica in old]

    def _withdraw(self, now_ms: int, surplus: int) -> None:
        """Take back so many bids at most, the youngest first."""
        waiting = [each for each in self.replicas.values() if each.holding is None]
        for replica in waiting[: -surplus - 1 : -1] if surplus > 0 else ():
            self.leave(replica)
            self.waits_ms.append(now_ms - replica.wanted_ms)
            self._floor.withdraw(replica)

    def _give_back(self, now_ms: int, surplus: int) -> None:
        """Give back so many replicas at most, of those that have nothing to do."""
        for _ in range(surplus):
            idle = self.queue.idle(now_ms)
            if idle is None or (holding := self.replicas[idle].holding) is None:
                return
            self._floor.give_back(holding)
