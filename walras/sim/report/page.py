"""The report: one HTML file that needs no other, and the CSV files that it was drawn from."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Final

from walras.sim.report.data import metrics_csv, of_series, series_csv, series_names
from walras.sim.report.plot import Axes, legend, plot
from walras.sim.study import Result, Series

PAGE: Final = "report.html"
# What is better, where that is beyond doubt.
HIGHER: Final = ("allocation_pct", "utilisation", "slo_pct", "goodput_pct", "jain")
LOWER: Final = (
    "unserved", "evictions", "jct_mean_s", "jct_p99_s", "rho_worst", "unfair_pct", "makespan_s", "wait_p99_s",
    "request_p50_s", "request_p99_s", "gpu_wait_p99_s", "lost_gpu_h",
)  # fmt: skip
_STYLE: Final = (Path(__file__).parent / "report.css").read_text()


def write(folder: Path, results: Mapping[str, Result], *, title: str) -> Path:
    """Writes report.html, metrics.csv and a CSV a series into the folder; the page's path. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(metrics_csv(results))
    for name in series_names(results):
        (folder / f"{name}.csv").write_text(series_csv(name, results))
    page = folder / PAGE
    page.write_text(render(results, title=title))
    return page


def render(results: Mapping[str, Result], *, title: str) -> str:
    """The page. What it holds of data can be saved from it as CSV."""
    figures = "".join(_figure(name, results) for name in series_names(results))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<main><h1>Policies compared</h1><p class=what>{escape(title)}</p>"
        f"{_table(results)}{legend(list(results))}<div class=figures>{figures}</div></main></html>\n"
    )


def _table(results: Mapping[str, Result]) -> str:
    """A row a metric, a column a policy, the best of each row marked."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.metrics))
    head = "".join(f"<th scope=col>{escape(policy)}</th>" for policy in results)
    rows = []
    for name in names:
        values = [result.metrics.get(name) for result in results.values()]
        known = [value for value in values if value is not None]
        best = max(known) if name in HIGHER else min(known) if name in LOWER else None
        marked = best is not None and any(value != best for value in known)
        cells = "".join(
            f"<td{' class=best' if marked and value == best else ''}>{_number(value)}</td>"
            for value in values
        )
        rows.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    body = "".join(rows)
    return (
        f"<div class=wide><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<p class=note>Bold is the best of its row. {_link('metrics', metrics_csv(results))}</p>"
    )


def _figure(name: str, results: Mapping[str, Result]) -> str:
    """One plot with all policies, or one a policy where a policy has several lines."""
    found = of_series(name, results)
    series = next(iter(found.values()))
    several = len(series.columns) > 2
    drawn = _each(found) if several else _together(list(results), found)
    return (
        f"<figure{' class=broad' if several else ''}><figcaption><h2>{escape(series.title)}</h2>"
        f"{_link(name, series_csv(name, results))}</figcaption>{drawn}</figure>"
    )


def _together(policies: list[str], found: Mapping[str, Series]) -> str:
    series = next(iter(found.values()))
    lines = {policy: _points(found[policy]) if policy in found else ((), ()) for policy in policies}
    return plot(lines, _axes(series), label=series.title)


def _each(found: Mapping[str, Series]) -> str:
    first = next(iter(found.values()))
    names = list(first.columns)[1:]
    tallest = [value for each in found.values() for ys in list(each.columns.values())[1:] for value in ys]
    plots = []
    for policy, series in found.items():
        x, *ys = series.columns.values()
        lines = {name: (x, y) for name, y in zip(list(series.columns)[1:], ys, strict=True)}
        label = f"{series.title}, {policy}"
        plots.append(
            f"<div><h3>{escape(policy)}</h3>{plot(lines, _axes(series), label=label, beside=tallest)}</div>"
        )
    return f"{legend(names)}<div class=small>{''.join(plots)}</div>"


def _points(series: Series) -> tuple[list[float], list[float]]:
    x, y = list(series.columns.values())[:2]
    return list(x), list(y)


def _axes(series: Series) -> Axes:
    x, y = list(series.columns)[:2]
    several = len(series.columns) > 2
    return Axes(
        f"{x} ({series.x_unit})" if series.x_unit else x,
        series.y_unit if several else f"{y} ({series.y_unit})" if series.y_unit else y,
    )


def _link(name: str, text: str) -> str:
    data = b64encode(text.encode()).decode()
    return f'<a download="{name}.csv" href="data:text/csv;base64,{data}">{name}.csv</a>'


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
