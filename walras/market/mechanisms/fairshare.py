"""Decayed fair share, as in Slurm and KAI: who used least of its share lately is next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Final

from walras.core.money import HOUR_MS
from walras.market.mechanisms.filling import fill, fill_one
from walras.market.mechanisms.policy import SCALE, Policy, Want
from walras.market.mechanisms.remembering import elapsed_ms, used_milli_ms
from walras.market.types import Memory, Outcome, Snapshot

NAME: Final = "fairshare"
# ROOTS[k] is 2^(-1/2^(k+1)) in units of 2^-64, so that decay is the same on every machine.
_ONE: Final = 1 << 64
_BITS: Final = 40


def _roots() -> tuple[int, ...]:
    found, root = [], _ONE >> 1
    for _ in range(_BITS):
        root = isqrt(root * _ONE)
        found.append(root)
    return tuple(found)


_ROOTS: Final = _roots()


def decayed(amount: int, elapsed_ms: int, half_life_ms: int) -> int:
    """`amount` x 2^(-elapsed/half-life), rounded down."""
    halvings, part = divmod(elapsed_ms, half_life_ms)
    amount >>= min(halvings, 1024)
    exponent = (part << _BITS) // half_life_ms
    for k, root in enumerate(_ROOTS):
        if exponent >> (_BITS - 1 - k) & 1:
            amount = amount * root >> 64
    return amount


@dataclass(frozen=True, slots=True)
class FairShare:
    """The mechanism "fairshare": order by decayed usage over weight, least first; no price.

    Usage is milli-GPU x ms under lease, halved every `half_life_ms`. What a clearing hands out counts at once
    as if it were used to the end of its term, so one agent with a small past does not take everything.
    Memory: usage by agent. Work-conserving.
    """

    half_life_ms: int = HOUR_MS

    def clear(self, snapshot: Snapshot) -> Outcome:
        memory = self._remember(snapshot)
        return fill(snapshot, _LeastUsed(snapshot, memory), memory)

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:
        return fill_one(snapshot, _LeastUsed(snapshot, self._remember(snapshot)), bid_id)

    def _remember(self, snapshot: Snapshot) -> Memory:
        since = elapsed_ms(snapshot, NAME)
        usage = used_milli_ms(snapshot, since)
        if snapshot.memory.mechanism == NAME:
            for agent, amount in snapshot.memory.amounts.items():
                usage[agent] = usage.get(agent, 0) + decayed(amount, since, self.half_life_ms)
        return Memory(NAME, snapshot.now_ms, {agent: usage[agent] for agent in sorted(usage) if usage[agent]})


class _LeastUsed(Policy):
    takes_over = True

    def __init__(self, snapshot: Snapshot, memory: Memory) -> None:
        super().__init__(snapshot)
        self._usage = memory.amounts

    def rank(self, want: Want, ahead: Sequence[Want] = ()) -> tuple[int, ...]:
        usage = self._usage.get(want.agent, 0) + self.use(want.agent, ahead).milli_ms
        return (usage * SCALE // self.weight(want.agent),)
