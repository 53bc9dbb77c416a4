"""The report: what is in its plots, its table and its files, and that it needs nothing from elsewhere."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from walras.sim.report.axes import linear, number, spanning
from walras.sim.report.data import metrics_csv, series_csv
from walras.sim.report.page import render, write
from walras.sim.report.plot import Axes, plot
from walras.sim.study import Result, Series


def result(metric: float, values: list[float]) -> Result:
    line = Series("Price <now>", {"time": [0.0, 1.0, 2.0], "price": values}, "min", "credits")
    several = Series("Share", {"time": [0.0, 1.0], "a&b": [1.0, 2.0], "c": [3.0, 4.0]}, "min", "%")
    return Result({"jct_mean_s": metric, "slo_pct": 50.0}, {"price": line, "shares": several})


RESULTS = {"auction": result(10.0, [1, 2, 3]), "fifo": result(20.5, [3, 2, 1])}


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(RESULTS, title="a trace")
    assert not re.search(r"https?://", page)
    assert "<script" not in page
    assert set(re.findall(r'(?:href|src)="(\w+:)', page)) == {"data:"}


def test_names_are_escaped() -> None:
    page = render(RESULTS, title="<b>x</b>")
    assert "Price &lt;now&gt;" in page and "a&amp;b" in page and "<b>x" not in page


def test_a_series_of_one_line_is_drawn_for_all_policies_and_one_of_several_for_each() -> None:
    page = render(RESULTS, title="t")
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    plots = [re.findall(r"<svg viewBox=\"0 0 560.*?</svg>", figure, re.S) for figure in figures]
    assert [len(each) for each in plots] == [1, 2]
    assert [each.count('class="line') for each in plots[0]] == [2]
    assert [each.count('class="line') for each in plots[1]] == [2, 2]


def test_the_best_of_a_row_is_marked_where_it_is_better_than_another() -> None:
    page = render(RESULTS, title="t")
    assert re.search(r"jct_mean_s</th><td class=best>10</td><td>20.50</td>", page)
    assert "<td class=best>50</td>" not in page


def test_the_files_hold_what_was_drawn(tmp_path: Path) -> None:
    page = write(tmp_path / "out", RESULTS, title="t")
    assert page.read_text() == render(RESULTS, title="t")
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html",
        "metrics.csv",
        "price.csv",
        "shares.csv",
    }
    rows = list(csv.DictReader((page.parent / "price.csv").read_text().splitlines()))
    assert [float(row["fifo price"]) for row in rows] == [3, 2, 1]
    assert metrics_csv(RESULTS).splitlines()[1] == "auction,10.0,50.0"
    assert series_csv("shares", RESULTS).splitlines()[0].startswith("auction time,auction a&b,auction c,fifo")


def test_a_line_goes_through_its_points() -> None:
    """Axes are from 0 to 2 and 0 to 4, in a box from 60, 12 to 548, 256."""
    drawn = plot({"a": ([0, 1, 2], [0, 2, 4])}, Axes("x", "y"), label="l")
    assert 'd="M60.0 256.0L304.0 134.0L548.0 12.0"' in drawn


@given(st.lists(st.floats(-1e6, 1e9), min_size=1, max_size=20))
def test_scales_hold_all_values_and_their_ticks_are_within(values: list[float]) -> None:
    for scale in (linear(values, 0, 100), spanning(values, 0, 100)):
        assert scale.low < scale.high
        assert all(0 <= scale.at(value) <= 100 for value in values)
        assert all(scale.low - 1e-9 <= tick <= scale.high * (1 + 1e-6) + 1e-9 for tick in scale.ticks())
    assert linear(values, 0, 100).high >= max(values)


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.05, 1.5, 200.0, 12_000.0, 0.30000000000000004)] == [
        "0.05",
        "1.5",
        "200",
        "12k",
        "0.3",
    ]
