"""Karma (Vuppalapati et al., OSDI 2023): lend what you do not use, and borrow for the credits that earns."""

# ruff: noqa: ARG002 (not every policy looks at all that it is told)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from walras.core.money import HOUR_MS, split
from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import SCALE, Policy, Want
from walras.market.mechanisms.remembering import elapsed_ms, served_ms, used_milli_ms
from walras.market.types import Memory, Outcome, Reason, Share, Snapshot

NAME: Final = "karma"


@dataclass(frozen=True, slots=True)
class Karma:
    """The mechanism "karma": a guaranteed part first, then what is left to those with the most credits.

    An agent's guarantee is `guaranteed_percent` of its part by weight (alpha in the paper) unless its facts
    name another. A credit is one milli-GPU for one ms. For the time under lease what is beyond the guarantee
    costs one credit; an unused guarantee earns one as far as others borrowed, the poorest donor first; what
    nobody is guaranteed is given as free credits by weight. The first agents begin with `grant_ms` of their
    parts, later ones with the average. Memory: credits by agent. Work-conserving as far as credits go.
    """

    guaranteed_percent: int = 50
    grant_ms: int = HOUR_MS

    def clear(self, snapshot: Snapshot) -> Outcome:
        guaranteed = self._guaranteed(snapshot)
        memory = self._settle(snapshot, guaranteed)
        return fill(snapshot, _Credits(snapshot, guaranteed, memory.amounts), memory)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        guaranteed = self._guaranteed(snapshot)
        memory = self._settle(snapshot, guaranteed)
        return fill_one(snapshot, _Credits(snapshot, guaranteed, memory.amounts), bid_id)

    def _guaranteed(self, snapshot: Snapshot) -> dict[str, int]:
        """Milli-GPU by agent. If facts name more than there is, all shrink alike."""
        by_weight = _by_weight(snapshot, Policy(snapshot).milli)
        wanted = {}
        for agent, part in by_weight.items():
            facts = snapshot.agents.get(agent)
            said = facts.guaranteed_milli if facts else None
            wanted[agent] = part * self.guaranteed_percent // 100 if said is None else said
        total, milli = sum(wanted.values()), Policy(snapshot).milli
        if total <= milli:
            return wanted
        return {agent: amount * milli // total for agent, amount in wanted.items()}

    def _settle(self, snapshot: Snapshot, guaranteed: Mapping[str, int]) -> Memory:
        """The credits of every agent now, for what it used and lent since the last clearing."""
        credits = self._opened(snapshot)
        since = elapsed_ms(snapshot, NAME)
        served = served_ms(snapshot, since)
        used = used_milli_ms(snapshot, since)
        over = {agent: used.get(agent, 0) - amount * served for agent, amount in guaranteed.items()}
        paid = {agent: min(credits[agent], max(0, amount)) for agent, amount in over.items()}
        lent = {agent: max(0, -amount) for agent, amount in over.items()}
        earned = pour(min(sum(paid.values()), sum(lent.values())), credits, lent)
        shared = Policy(snapshot).milli - sum(guaranteed.values())
        free = _by_weight(snapshot, shared * served)
        amounts = {
            agent: credits[agent] - paid[agent] + earned[agent] + free[agent] for agent in sorted(guaranteed)
        }
        return Memory(NAME, snapshot.now_ms, amounts)

    def _opened(self, snapshot: Snapshot) -> dict[str, int]:
        """Credits as remembered, with those of agents that are new."""
        agents = Policy(snapshot).agents
        known = snapshot.memory.amounts if snapshot.memory.mechanism == NAME else {}
        if not known:
            return _by_weight(snapshot, Policy(snapshot).milli * self.grant_ms)
        average = sum(known.values()) // len(known)
        return {agent: known.get(agent, average) for agent in agents}


def pour(amount: int, levels: Mapping[str, int], rooms: Mapping[str, int]) -> dict[str, int]:
    """`amount` dealt so that the lowest levels rise first and alike, none by more than its room.

    `amount` must not be more than the rooms together.
    """
    assert 0 <= amount <= sum(rooms.values())

    def given(water: int) -> dict[str, int]:
        return {name: min(room, max(0, water - levels[name])) for name, room in rooms.items()}

    low, high = 0, 1 + max((levels[name] + room for name, room in rooms.items()), default=0)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(given(middle).values()) <= amount:
            low = middle
        else:
            high = middle
    parts, above = given(low), given(low + 1)
    left = amount - sum(parts.values())
    for name in sorted(name for name in parts if above[name] > parts[name])[:left]:
        parts[name] += 1
    return parts


def _by_weight(snapshot: Snapshot, total: int) -> dict[str, int]:
    policy = Policy(snapshot)
    if not policy.agents:
        return {}
    return dict(
        zip(policy.agents, split(total, [policy.weight(each) for each in policy.agents]), strict=True)
    )


class _Credits(Policy):
    takes_over = True

    def __init__(self, snapshot: Snapshot, guaranteed: Mapping[str, int], credits: Mapping[str, int]) -> None:
        super().__init__(snapshot)
        self._guaranteed = guaranteed
        self._credits = dict(credits)

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        agent, milli, spent = want.agent, self.use(want.agent).milli, 0
        for each in ahead:
            milli += each.milli
            spent += self._borrowed(each, milli) * each.term_ms
        if milli + want.milli <= self._guaranteed[agent]:
            return (0, milli * SCALE // self._guaranteed[agent])
        return (1, spent - self._credits[agent])

    def refuses(self, want: Want, shares: Sequence[Share] = ()) -> Reason | None:
        cost = self._borrowed(want, self.use(want.agent).milli + want.milli) * want.term_ms
        return Reason.OVER_SHARE if cost and cost > self._credits[want.agent] else None

    def took(self, want: Want, shares: Sequence[Share], *, fixed: bool = False) -> None:
        super().took(want, shares, fixed=fixed)
        # Put aside, not paid: what is really borrowed is settled as time goes by.
        self._credits[want.agent] -= self._borrowed(want, self.use(want.agent).milli) * want.term_ms

    def _borrowed(self, want: Want, milli: int) -> int:
        """The part of a share that is beyond the guarantee, when the agent has `milli` with it."""
        return min(want.milli, max(0, milli - self._guaranteed[want.agent]))
