"""The queries that people send: Poisson arrivals whose rate bursts, the same for every side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# In each window every agent has one burst. They begin in turns, in an order and with delays drawn anew for
# each window, as working hours differ: two often overlap, three seldom. A burst is long against the two
# seconds in which a pod starts on a fraction of these devices, as bursts of minutes are against seconds.
WINDOW_S = 45.0
BURST_S = 14.0

Interval = tuple[float, float]


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


def bursts(seed: int, agents: Sequence[str], seconds: float) -> dict[str, list[Interval]]:
    """When each agent's bursts begin and end. A last window that is cut short has shorter ones."""
    chance = random.Random(f"{seed}/bursts")
    found: dict[str, list[Interval]] = {agent: [] for agent in agents}
    window = 0.0
    while window < seconds:
        length = min(WINDOW_S, seconds - window)
        burst, turn = length * BURST_S / WINDOW_S, length / len(agents)
        for place, agent in enumerate(chance.sample(agents, len(agents))):
            begin = min(window + (place + chance.random()) * turn, window + length - burst)
            found[agent].append((begin, begin + burst))
        window += WINDOW_S
    return found


def arrivals(seed: int, agents: Sequence[str], seconds: float, rates: Rates, questions: int) -> list[Arrival]:
    """All queries in order of time. A seed, agents, a length and rates always give the same."""
    found = []
    for agent, busy in bursts(seed, agents, seconds).items():
        chance = random.Random(f"{seed}/{agent}")
        # Thinning (Lewis and Shedler, 1979): candidates at the highest rate, kept in proportion.
        at = chance.expovariate(rates.burst)
        while at < seconds:
            rate = rates.burst if any(begin <= at < end for begin, end in busy) else rates.calm
            if chance.random() < rate / rates.burst:
                found.append(Arrival(at, agent, chance.randrange(questions)))
            at += chance.expovariate(rates.burst)
    return sorted(found, key=lambda each: (each.at_s, each.agent))
