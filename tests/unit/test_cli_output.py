from __future__ import annotations

import json
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from walras.cli import watching
from walras.cli.output import Column, Table, age, dig, emit, facts, output_option, show, span, until


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (600, "10m"), (7200, "120m"),
        (10_800, "3h"), (172_799, "47h"), (172_800, "2d"),
    ],
)  # fmt: skip
def test_spans_read_like_kubectls_ages(seconds: int, text: str) -> None:
    assert span(seconds * 1000) == text


def test_times_are_told_from_now_and_nonsense_is_nothing() -> None:
    now_ms = 1_700_000_000_000
    assert age("2023-11-14T22:13:10Z", now_ms) == "10s"
    assert until("2023-11-14T22:14:00Z", now_ms) == "40s"
    assert until("2023-11-14T22:13:10Z", now_ms) == "0s"
    assert age(None, now_ms) == "" and age("soon", now_ms) == ""


def test_dig_finds_nested_fields_and_misses_quietly() -> None:
    assert dig({"a": {"b": 0}}, "a.b") == 0
    assert dig({"a": {"b": 0}}, "a.c.d") is None
    assert dig({"a": "text"}, "a.b") is None


def test_a_table_aligns_its_columns_and_later_rows_keep_to_them(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table([Column("NAME", "name"), Column("X", "x")], "table")
    table.print([{"name": "a-long-name", "x": "1"}, {"name": "b"}])
    table.print([{"name": "c", "x": "2"}])
    assert capsys.readouterr().out.splitlines() == [
        "NAME          X",
        "a-long-name   1",
        "b             -",
        "c             2",
    ]


def test_wide_columns_show_only_when_wide_and_zero_is_not_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [
        Column("NAME", "name"),
        Column("N", "n"),
        Column("MORE", lambda row: row["name"] * 2, wide=True),
    ]
    rows: list[dict[str, Any]] = [{"name": "a", "n": 0}, {"name": "b"}]
    show(columns, rows, "table")
    assert capsys.readouterr().out.splitlines() == ["NAME   N", "a      0", "b      -"]
    show(columns, rows, "wide")
    assert capsys.readouterr().out.splitlines() == ["NAME   N   MORE", "a      0   aa", "b      -   bb"]


def test_a_terminal_gets_colours_that_do_not_shift_columns() -> None:
    @click.command()
    def command() -> None:
        show([Column("PHASE", "phase"), Column("N", "n")], [{"phase": "Refused", "n": 1}], "table")

    coloured = CliRunner().invoke(command, color=True).output
    assert "\x1b[31mRefused\x1b[0m" in coloured and "\x1b[1mPHASE" in coloured
    assert click.unstyle(coloured) == CliRunner().invoke(command).output == "PHASE     N\nRefused   1\n"


def test_json_and_yaml_are_what_the_server_said(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"b": [1, "2.50"], "a": {"x": None}}
    assert emit(value, "json")
    assert json.loads(capsys.readouterr().out) == value
    assert emit(value, "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == value
    assert emit(value, "json", compact=True)
    assert capsys.readouterr().out.count("\n") == 1
    assert not emit(value, "table") and capsys.readouterr().out == ""


def test_facts_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    facts([("Name", "x"), ("Price", None), ("Place", 0), ("Lease", "")])
    assert capsys.readouterr().out.splitlines() == ["Name:   x", "Place:  0"]


def test_an_unknown_output_is_refused_with_those_there_are() -> None:
    @click.command()
    @output_option
    def command(output: str) -> None:
        click.echo(output)

    assert CliRunner().invoke(command, []).output == "table\n"
    assert "'table', 'wide', 'json', 'yaml'" in CliRunner().invoke(command, ["-o", "xml"]).output


def test_a_live_table_shows_the_latest_until_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = iter(["1.00", "2.00"])
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(watching, "pause", pause)
    columns = [Column("POOL", "name"), Column("PRICE", "price")]
    watching.live(lambda: [{"name": "default", "price": next(prices)}], columns, "table")
    assert pauses == [1.0, 1.0]
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["POOL", "PRICE"],
        ["default", "2.00"],
    ]
