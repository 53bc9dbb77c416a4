"""What lying gains: `scripts/bench manipulation` prints one line of JSON.

One agent of a simulated economy behaves otherwise than honestly, the others do not; the same seeds give the
same jobs with and without. A gain is the strategic agent's utility (what its jobs were worth while they ran,
less payments and restarts) over what it has when honest, less one; the mean over seeds is the ratio of the
sums, with the half-width of its 95% interval (delta method). The best of many means is above its own
expectation: `..._sure` is the best lower end of an interval, a gain that is there beyond the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Final, get_args

from bench.economy import HONEST, Conduct, Economy, MakeWorld, once, paced, patient, timed
from walras.market.types import Payments

# Agents as the platform bids for them, and patient ones that bid their value from the first moment on.
PROXIED: Final[Mapping[str, MakeWorld]] = {"once": once, "timed": timed, "paced": paced}
WORLDS: Final[Mapping[str, MakeWorld]] = {**PROXIED, "patient": patient}
SUITE: Final = {
    "price_x0.5": Conduct(price_percent=50),
    "price_x0.8": Conduct(price_percent=80),
    "price_x1.25": Conduct(price_percent=125),
    "price_x2": Conduct(price_percent=200),
    "price_x4": Conduct(price_percent=400),
    "split_2": Conduct(accounts=2),
    "split_5": Conduct(accounts=5),
    "snipe_last": Conduct(waits_for_last=True),
    "snipe_cheap": Conduct(watches_percent=70),
    "sandwich": Conduct(price_percent=400, quits=True),
    "hoard": Conduct(hoards=True),
    "singles": Conduct(singles=True),
    "term_x0.25": Conduct(term_percent=25),
    "term_x4": Conduct(term_percent=400),
}
# What an agent says of its work beside its price: no lie about worth, and nobody checks it.
CLAIMS: Final = {
    "restart_x4": Conduct(restart_percent=400),
    "latency": Conduct(claims_latency=True),
}
SPLITS: Final = {"split_2", "split_5"}
# Nobody has time to wait, or a wallet to split, there.
IDLE: Final = {"once": {*SPLITS, "snipe_last"}, "timed": SPLITS, "patient": SPLITS, "paced": set[str]()}
SEEDS: Final = 16


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean relative gain and the half-width of its 95% interval."""

    mean: float
    half_width: float

    @property
    def sure(self) -> float:
        return self.mean - self.half_width


Gains = dict[tuple[str, str], dict[str, Gain]]  # by world and payments, then by strategy


def utilities(world: str, payments: Payments, seed: int) -> dict[str, int]:
    """What the strategic agent has under every strategy, in micros, on one seed."""
    make = WORLDS[world]
    chosen = {name: each for name, each in {**SUITE, **CLAIMS}.items() if name not in IDLE[world]}
    return {
        name: Economy(make(seed), payments, conduct).run()
        for name, conduct in {"honest": HONEST, **chosen}.items()
    }


def gain(honest: Sequence[int], strategic: Sequence[int]) -> Gain:
    """By how much the sum is above that of the honest, and how sure that is."""
    count, base = len(honest), sum(honest)
    ratio = sum(strategic) / base
    residuals = [other - ratio * own for own, other in zip(honest, strategic, strict=True)]
    error = sqrt(sum(each * each for each in residuals) * count / (count - 1)) / abs(base)
    return Gain(ratio - 1, 1.96 * error)


def measure(seeds: Sequence[int]) -> Gains:
    """The gains of every strategy in every world under every rule of payment."""
    cells = [(world, rule, seed) for world in WORLDS for rule in get_args(Payments) for seed in seeds]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as workers:
        found = list(workers.map(utilities, *zip(*cells, strict=True)))
    gains: Gains = {}
    for world, rule, _ in cells[:: len(seeds)]:
        runs = [each for cell, each in zip(cells, found, strict=True) if cell[:2] == (world, rule)]
        honest = [run["honest"] for run in runs]
        gains[world, rule] = {
            name: gain(honest, [run[name] for run in runs]) for name in runs[0] if name != "honest"
        }
    return gains


def figures(gains: Gains) -> dict[str, float]:
    """The best gains: of misreports, by payment and world too; of claims; of patient agents without proxy."""

    def among(worlds: Iterable[str], rules: Iterable[str], names: Iterable[str]) -> list[Gain]:
        return [
            each
            for (world, rule), of in gains.items()
            for name, each in of.items()
            if world in worlds and rule in rules and name in names
        ]

    rules: tuple[str, ...] = get_args(Payments)
    chosen = {
        "misreport": among(PROXIED, rules, SUITE),
        **{f"misreport_{rule}": among(PROXIED, [rule], SUITE) for rule in rules},
        **{f"misreport_{world}": among([world], rules, SUITE) for world in PROXIED},
        "claim": among(PROXIED, rules, CLAIMS),
        **{f"unproxied_{rule}": among(["patient"], [rule], SUITE) for rule in rules},
    }
    found: dict[str, float] = {}
    for name, each in chosen.items():
        found[f"{name}_gain_max"] = round(max(gain.mean for gain in each), 4)
        found[f"{name}_gain_sure"] = round(max(gain.sure for gain in each), 4)
    return found


def misreport_gain_max(seeds: Sequence[int] = range(SEEDS)) -> dict[str, float]:
    """`misreport_gain_max`, the best mean gain of the suite where the platform bids for agents; and more."""
    return figures(measure(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many; more are surer")
    seeds = parser.parse_args().seeds
    started = time.perf_counter()
    gains = measure(range(seeds))
    best = max(
        (each.mean, f"{world}/{rule}/{name}")
        for (world, rule), of in gains.items()
        for name, each in of.items()
        if world in PROXIED and name in SUITE
    )
    line = {
        "bench": "manipulation",
        **figures(gains),
        "misreport_gain_max_by": best[1],
        "seeds": seeds,
        "seconds": round(time.perf_counter() - started, 1),
        "gains": {
            "/".join(cell): {
                name: {key: round(amount, 4) for key, amount in asdict(each).items()}
                for name, each in of.items()
            }
            for cell, of in gains.items()
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
