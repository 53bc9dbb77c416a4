"""Does paying work? `scripts/bench budgets` prints one line of JSON.

Twelve agents with the same work and worth, who pace their spending on 8 GPUs that are asked for three
times; incomes are 1 to 4. Over some seeds: how what they spent goes with the GPU time that they had
(Pearson's r), how many times as much an agent has when its income is doubled, and both with a rebate that
goes by income (weighted) and without one. As the peer FIFO, where nothing is paid: how income goes with GPU
time there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from random import Random
from statistics import fmean

from walras.core.money import MICROS
from walras.sim.world.recorder import Recorder
from walras.sim.world.workload import Agent, Job, Workload
from walras.sim.world.world import World, devices

GPUS, AGENTS, SPAN_MS = 8, 12, 1_800_000
WORTH = 4 * MICROS
INCOME = MICROS // 2
OVER = 3


def load_of(seed: int, double: int | None = None, *, weighted: bool = False) -> Workload:
    """Agents with incomes of 1 to 4 in turn, `double` with twice its own; `weighted`: weights as incomes."""
    chance = Random(seed)
    agents, jobs = [], []
    for number in range(AGENTS):
        times = (1 + number % 4) * (2 if number == double else 1)
        income = INCOME * times
        name = f"t{number}"
        agents.append(
            Agent(
                name,
                value_micros=WORTH,
                weight=times if weighted else 1,
                income_micros_per_hour=income,
                balance_micros=income // 4,
                cap_micros=4 * income,
                strategy="pacing",
            )
        )
        left_ms = OVER * GPUS * SPAN_MS // AGENTS
        made = 0
        while left_ms > 0:
            work_ms = min(left_ms, chance.randint(60_000, 600_000))
            left_ms -= work_ms
            # Some at once, so that the pool is asked for more than it has from the beginning.
            arrival_ms = 0 if made < 2 else chance.randrange(SPAN_MS * 3 // 4)
            jobs.append(Job(f"{name}-{made}", name, arrival_ms, work_ms, value_micros=WORTH))
            made += 1
    jobs.sort(key=lambda job: (job.arrival_ms, job.name))
    return Workload(tuple(agents), tuple(jobs), (), SPAN_MS)


def play(load: Workload, mechanism: str, *, rebates: bool = True) -> tuple[list[int], list[int], float]:
    """By agent what it spent and its milli-GPU ms, and the mean price in credits."""
    world = World(load, mechanism, devices(GPUS), until_ms=SPAN_MS, rebates=rebates)
    recorder = Recorder(world, 10_000)
    world.noted = recorder.note
    world.run()
    names = [agent.name for agent in load.agents]
    price = fmean(sample.price_micros for sample in recorder.samples) / MICROS
    return (
        [world.bank.spent(name) for name in names],
        [recorder.leased_milli_ms.get(name, 0) for name in names],
        price,
    )


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The coefficient of correlation; 0 where one does not vary."""
    x_mean, y_mean = fmean(xs), fmean(ys)
    top = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    bottom = (sum((x - x_mean) ** 2 for x in xs) * sum((y - y_mean) ** 2 for y in ys)) ** 0.5
    return top / bottom if bottom else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for seed in range(asked.seeds):
        for name, mechanism, rebates, weighted in (
            ("auction", "auction", True, False),
            ("weighted", "auction", True, True),
            ("no_rebate", "auction", False, False),
            ("fifo", "fifo", True, False),
        ):
            load = load_of(seed, weighted=weighted)
            doubled = load_of(seed, double=seed % AGENTS, weighted=weighted)
            incomes = [agent.income_micros_per_hour for agent in load.agents]
            spent, got, price = play(load, mechanism, rebates=rebates)
            note(f"{name}_r_income_service", pearson(incomes, got))
            if mechanism == "auction":
                note(f"{name}_r_spent_service", pearson(spent, got))
                note(f"{name}_price", price)
                _, more, _ = play(doubled, mechanism, rebates=rebates)
                note(f"{name}_double_buys", more[seed % AGENTS] / max(1, got[seed % AGENTS]))
                shares = sorted(got)
                note(f"{name}_most_over_least", shares[-1] / max(1, shares[0]))
    print(
        json.dumps(
            {"seeds": asked.seeds, **{name: round(fmean(values), 3) for name, values in found.items()}}
        )
    )


if __name__ == "__main__":
    main()
