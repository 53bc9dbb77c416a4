"""What budgets buy, as a table: with a rebate alike for all, by income, without one, and under FIFO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from walras.sim.sharing.budgets import AGENTS, WEALTH_MS, Played, gini, load_of, pearson, play


@dataclass(frozen=True, slots=True)
class Variant:
    """How revenue comes back, and under which mechanism."""

    mechanism: str
    rebates: bool
    weighted: bool


VARIANTS: Final[Mapping[str, Variant]] = {
    "rebate alike": Variant("auction", rebates=True, weighted=False),
    "rebate by income": Variant("auction", rebates=True, weighted=True),
    "no rebate": Variant("auction", rebates=False, weighted=False),
    "fifo": Variant("fifo", rebates=True, weighted=False),
}
_COLUMNS: Final = (
    ("r_spent_service", "r spent/GPU time", 2),
    ("r_income_service", "r income/GPU time", 2),
    ("double_buys", "double buys", 2),
    ("most_over_least", "most/least", 1),
    ("price", "price", 2),
)
HEADER: Final = f"{'':<17} {'  '.join(title for _, title, _ in _COLUMNS)}"


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: means over seeds. `wealth` is Gini's coefficient of balances every WEALTH_MS.

    metrics: Pearson's r of what is spent with GPU time (0 under FIFO, where nothing is) and of income with
    it; how many times the GPU time an agent has once its income is doubled; the most that one has over the
    least; the mean price in credits a GPU-hour.
    """

    name: str
    metrics: Mapping[str, float]
    wealth: Sequence[float]

    def line(self) -> str:
        """The row as text, under `HEADER`."""
        shown = (f"{self.metrics[name]:>{len(title)}.{digits}f}" for name, title, digits in _COLUMNS)
        return f"{self.name:<17} {'  '.join(shown)}"

    def wealth_line(self) -> str:
        """Its wealth over time as text, under `wealth_header`."""
        return f"{self.name:<17} {'  '.join(f'{each:>7.3f}' for each in self.wealth)}"


def rows(seeds: int) -> Iterator[Row]:
    """One row at a time."""
    for name, variant in VARIANTS.items():
        found = [_measured(variant, seed) for seed in range(seeds)]
        metrics = {key: fmean(each[key] for each, _ in found) for key in found[0][0]}
        moments = zip(*(wealth for _, wealth in found), strict=True)
        yield Row(name, metrics, [fmean(moment) for moment in moments])


def wealth_header(row: Row) -> str:
    """The times of its samples."""
    times = (f"{number * WEALTH_MS // 60_000} min" for number in range(len(row.wealth)))
    return f"{'Gini of balances':<17} {'  '.join(f'{each:>7}' for each in times)}"


def _measured(variant: Variant, seed: int) -> tuple[dict[str, float], list[float]]:
    agent = seed % AGENTS
    was = _play(variant, seed, None)
    more = _play(variant, seed, agent)
    return {
        "r_spent_service": pearson(was.spent, was.service),
        "r_income_service": pearson(was.incomes, was.service),
        "double_buys": more.service[agent] / max(1, was.service[agent]),
        "most_over_least": max(was.service) / max(1, min(was.service)),
        "price": was.price,
    }, [gini(balances) for balances in was.wealth]


def _play(variant: Variant, seed: int, double: int | None) -> Played:
    load = load_of(seed, double, weighted=variant.weighted)
    return play(load, variant.mechanism, rebates=variant.rebates)
