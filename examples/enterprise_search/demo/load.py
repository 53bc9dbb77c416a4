"""The queries that people send: Poisson arrivals whose rate bursts, the same for every side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

BURST_S = 9.0
# One burst an agent begins somewhere in each window of this length.
WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Queries a second of one agent, between bursts and in one."""

    calm: float
    burst: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """A query of an agent, at seconds after the beginning, and the number of its question."""

    at_s: float
    agent: str
    question: int


def bursts(chance: random.Random, seconds: float) -> list[tuple[float, float]]:
    """When one agent's bursts begin and end: one in each window, somewhere in it."""
    found, window = [], 0.0
    while window < seconds:
        length = min(WINDOW_S, seconds - window)
        burst = min(BURST_S, length * BURST_S / WINDOW_S)
        begin = window + chance.uniform(0, length - burst)
        found.append((begin, begin + burst))
        window += WINDOW_S
    return found


def arrivals(seed: int, agents: Sequence[str], seconds: float, rates: Rates, questions: int) -> list[Arrival]:
    """All queries in order of time. A seed, agents, a length and rates always give the same."""
    found = []
    for agent in agents:
        chance = random.Random(f"{seed}/{agent}")
        busy = bursts(chance, seconds)
        # Thinning (Lewis and Shedler, 1979): candidates at the highest rate, kept in proportion.
        at = chance.expovariate(rates.burst)
        while at < seconds:
            rate = rates.burst if any(begin <= at < end for begin, end in busy) else rates.calm
            if chance.random() < rate / rates.burst:
                found.append(Arrival(at, agent, chance.randrange(questions)))
            at += chance.expovariate(rates.burst)
    return sorted(found, key=lambda each: (each.at_s, each.agent))
