"""Finish-time fairness (Themis, Mahajan et al., NSDI 2020): who is furthest behind its own part is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from walras.core.money import split
from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import SCALE, Policy, Use, Want
from walras.market.types import AgentFacts, Outcome, Snapshot


class FinishTime:
    """The mechanism "finishtime": worst rho first, for leases of a term; no price.

    rho is how long an agent's work takes as shared, from its start to its estimated end, over how long it
    would take on a part of the pool of its own, by weight. With nothing allocated rho is unbounded: of such
    agents the one goes first that has waited longest for its size. Work is assumed to go as fast as milli-GPU
    are many. What facts do not say is estimated: the work is the present bids and leases over their
    terms, begun when the oldest came. Work-conserving.
    """

    def clear(self, snapshot: Snapshot) -> Outcome:
        return fill(snapshot, _WorstRho(snapshot))

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _WorstRho(snapshot), bid_id)


@dataclass(frozen=True, slots=True)
class _Work:
    waited_ms: int
    left_milli_ms: int
    ideal_ms: int


class _WorstRho(Policy):
    takes_over = True

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        demand = {agent: Use() for agent in self.agents}
        began = dict.fromkeys(self.agents, snapshot.now_ms)
        for bid in snapshot.bids:
            for package in bid.packages[:1]:
                demand[bid.agent].milli += package.total_milli
                demand[bid.agent].milli_ms += package.total_milli * package.term_ms
            began[bid.agent] = min(began[bid.agent], bid.submitted_ms)
        for lease in snapshot.leases:
            demand[lease.agent].milli += lease.total_milli
            demand[lease.agent].milli_ms += lease.total_milli * lease.term_ms
            began[lease.agent] = min(began[lease.agent], lease.start_ms)
        weights = [self.weight(agent) for agent in self.agents]
        parts = dict(zip(self.agents, split(self.milli, weights), strict=True)) if weights else {}
        self._work = {
            agent: self._estimate(agent, demand[agent], began[agent], parts[agent]) for agent in self.agents
        }

    def _estimate(self, agent: str, demand: Use, began_ms: int, part: int) -> _Work:
        facts = self.snapshot.agents.get(agent, AgentFacts())
        left = demand.milli_ms if facts.work_milli_ms is None else facts.work_milli_ms
        started_ms = began_ms if facts.started_ms is None else facts.started_ms
        ideal_ms = facts.ideal_ms
        if ideal_ms is None:
            ideal_ms = left // max(1, min(part, demand.milli))
        return _Work(max(0, self.snapshot.now_ms - started_ms), left, max(1, ideal_ms))

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        work, milli = self._work[want.agent], self.use(want.agent, ahead).milli
        if milli == 0:
            return (0, -work.waited_ms * SCALE // work.ideal_ms)
        finish_ms = work.waited_ms + work.left_milli_ms // milli
        return (1, -finish_ms * SCALE // work.ideal_ms)
