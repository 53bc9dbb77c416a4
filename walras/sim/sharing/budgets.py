"""Does paying work? Agents alike in all but income, pacing their spending where thrice the pool is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Final

from walras.core.money import MICROS
from walras.sim.world.recorder import Recorder
from walras.sim.world.workload import Agent, Job, Workload
from walras.sim.world.world import World, devices

GPUS: Final = 8
AGENTS: Final = 12
SPAN_MS: Final = 1_800_000
OVER: Final = 3
WORTH: Final = 4 * MICROS
INCOME: Final = MICROS // 2
WEALTH_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Played:
    """By agent its income an hour, what it spent and its milli-GPU ms; the mean price in credits; and the
    balances of all every WEALTH_MS."""

    incomes: tuple[int, ...]
    spent: tuple[int, ...]
    service: tuple[int, ...]
    price: float
    wealth: tuple[tuple[int, ...], ...]


def load_of(seed: int, double: int | None = None, *, weighted: bool = False) -> Workload:
    """Agents with incomes of 1 to 4 in turn, `double` with twice its own; `weighted`: weights as incomes."""
    chance = Random(seed)  # noqa: S311 - to be the same again is what it is for
    agents, jobs = [], []
    for number in range(AGENTS):
        times = (1 + number % 4) * (2 if number == double else 1)
        income = INCOME * times
        agent = Agent(
            f"t{number}",
            value_micros=WORTH,
            weight=times if weighted else 1,
            income_micros_per_hour=income,
            balance_micros=income // 4,
            cap_micros=4 * income,
            strategy="pacing",
        )
        agents.append(agent)
        jobs += _jobs(agent.name, chance)
    jobs.sort(key=lambda job: (job.arrival_ms, job.name))
    return Workload(tuple(agents), tuple(jobs), (), SPAN_MS)


def _jobs(agent: str, chance: Random) -> list[Job]:
    """An agent's part of the work, in jobs of 1 to 10 minutes of a GPU."""
    made: list[Job] = []
    left_ms = OVER * GPUS * SPAN_MS // AGENTS
    while left_ms > 0:
        work_ms = min(left_ms, chance.randint(60_000, 600_000))
        left_ms -= work_ms
        # Some at once, so that the pool is asked for more than it has from the beginning.
        arrival_ms = 0 if len(made) < 2 else chance.randrange(SPAN_MS * 3 // 4)
        made.append(Job(f"{agent}-{len(made)}", agent, arrival_ms, work_ms, value_micros=WORTH))
    return made


def play(load: Workload, mechanism: str, *, rebates: bool = True) -> Played:
    """One run to the end of the arrivals."""
    world = World(load, mechanism, devices(GPUS), until_ms=load.span_ms, rebates=rebates)
    recorder = Recorder(world, 10_000)
    names = [agent.name for agent in load.agents]
    wealth: list[tuple[int, ...]] = []

    def note() -> None:
        recorder.note()
        while world.now_ms >= len(wealth) * WEALTH_MS:
            wealth.append(tuple(world.bank.balance(name) for name in names))

    world.noted = note
    world.run()
    return Played(
        tuple(agent.income_micros_per_hour for agent in load.agents),
        tuple(world.bank.spent(name) for name in names),
        tuple(recorder.leased_milli_ms.get(name, 0) for name in names),
        fmean(sample.price_micros for sample in recorder.samples) / MICROS,
        tuple(wealth),
    )


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The coefficient of correlation; 0 where one does not vary."""
    x_mean, y_mean = fmean(xs), fmean(ys)
    top = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    bottom = (sum((x - x_mean) ** 2 for x in xs) * sum((y - y_mean) ** 2 for y in ys)) ** 0.5
    return top / bottom if bottom else 0.0


def gini(amounts: Sequence[int]) -> float:
    """Gini's coefficient: 0 where all have the same, near 1 where one has all; 0 where there is nothing."""
    ranked, total = sorted(amounts), sum(amounts)
    if not total:
        return 0.0
    above = sum((2 * rank - len(ranked) - 1) * amount for rank, amount in enumerate(ranked, 1))
    return above / (len(ranked) * total)
