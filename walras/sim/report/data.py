"""The data behind a report as CSV: one file of the metrics, one for each series, a column block a policy."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import zip_longest

from walras.sim.study import Result, Series

Cell = str | float | None


def metrics_csv(results: Mapping[str, Result]) -> str:
    """A row a policy, a column a metric; empty where a policy has none."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.metrics))
    rows = [[policy, *(result.metrics.get(name) for name in names)] for policy, result in results.items()]
    return _csv(["policy", *names], rows)


def series_csv(name: str, results: Mapping[str, Result]) -> str:
    """The columns of that series of each policy beside each other, named by the policy."""
    found: list[tuple[str, Sequence[float]]] = []
    for policy, series in of_series(name, results).items():
        found += [(f"{policy} {column}", values) for column, values in series.columns.items()]
    return _csv([title for title, _ in found], list(zip_longest(*(values for _, values in found))))


def of_series(name: str, results: Mapping[str, Result]) -> dict[str, Series]:
    """That series of each policy that has it."""
    return {policy: result.series[name] for policy, result in results.items() if name in result.series}


def series_names(results: Mapping[str, Result]) -> list[str]:
    """All that any policy has, in the order in which they come."""
    return list(dict.fromkeys(name for result in results.values() for name in result.series))


def _csv(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return text.getvalue()
