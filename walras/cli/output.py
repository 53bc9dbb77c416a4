"""How results are shown: JSON, YAML, or tables that read like kubectl's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
import msgspec
import yaml

from walras.core.clock import parse_rfc3339

Object = dict[str, Any]
R = TypeVar("R")

_COLOURS: Final = {
    "Active": "green", "Leased": "green", "True": "green", "yes": "green",
    "Pending": "yellow", "Reserved": "yellow", "Draining": "yellow", "Displaced": "yellow",
    "Refused": "red", "False": "red", "no": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the dotted path or function that gives its text, and whether only `-o wide` shows it.

    A column that runs by itself, such as an age, is no reason to print a watched row again.
    """

    title: str
    value: str | Callable[[Object], str]
    wide: bool = False
    runs: bool = False

    def text(self, row: Object) -> str:
        found = dig(row, self.value) if isinstance(self.value, str) else self.value(row)
        return "-" if found is None or found == "" else str(found)


def output_option(command: Callable[..., R]) -> Callable[..., R]:
    """Adds `-o`, given to the command as `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "wide", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print it.",
    )(command)


def emit(value: Any, output: str, *, compact: bool = False) -> bool:
    """Prints `value` as JSON or YAML; False when `output` is a table, which is the caller's to print."""
    if output == "json":
        text = msgspec.json.encode(value)
        click.echo((text if compact else msgspec.json.format(text, indent=2)).decode())
    elif output == "yaml":
        click.echo(yaml.safe_dump(value, sort_keys=False, explicit_start=compact), nl=False)
    else:
        return False
    return True


class Table:
    """Prints rows below each other like kubectl: columns three spaces apart, the heading before the first.

    Rows that come later keep to the columns of those before. Colours are for a terminal only.
    """

    def __init__(self, columns: Sequence[Column], output: str) -> None:
        self._columns = [column for column in columns if output == "wide" or not column.wide]
        self._widths: list[int] = []
        self._has_heading = False

    def steady(self, row: Object) -> tuple[str, ...]:
        """What of a row is worth printing it again when it changes."""
        return tuple(column.text(row) for column in self._columns if not column.runs)

    def print(self, rows: Iterable[Object]) -> None:
        """Prints rows, with the heading before the first ones."""
        heading, *lines = self.lines(rows)
        for line in lines if self._has_heading else [heading, *lines]:
            click.echo(line)
        self._has_heading = True

    def lines(self, rows: Iterable[Object]) -> list[str]:
        """The heading and a line for each row, coloured."""
        titles = [column.title for column in self._columns]
        cells = [[column.text(row) for column in self._columns] for row in rows]
        self._widths = [
            max(width, *map(len, column))
            for width, *column in zip(self._widths or [0] * len(titles), titles, *cells, strict=True)
        ]
        return [
            self._line(titles, bold=True),
            *(self._line(row) for row in cells),
        ]

    def _line(self, cells: Sequence[str], **style: Any) -> str:
        *padded, last = zip(cells, self._widths, strict=True)
        parts = [_coloured(cell, **style) + " " * (width - len(cell)) for cell, width in padded]
        return "   ".join([*parts, _coloured(last[0], **style)])


def _coloured(cell: str, **style: Any) -> str:
    if cell in _COLOURS:
        style["fg"] = _COLOURS[cell]
    return click.style(cell, **style) if style else cell


def show(columns: Sequence[Column], rows: Iterable[Object], output: str) -> None:
    """Prints one table."""
    Table(columns, output).print(rows)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Prints one thing's properties, a line each; leaves out those that are empty."""
    kept = [(name, str(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in kept), default=0) + 1
    for name, value in kept:
        click.echo(f"{name + ':':<{width}}  {value}")


def dig(value: Any, path: str) -> Any:
    """What is at a dotted path such as "status.explanation.reason"; None when any part is missing."""
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def span(ms: int) -> str:
    """A duration as kubectl writes ages: "42s", "3m5s", "2h", "4d"."""
    seconds = max(0, ms // 1000)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"


def age(stamp: Any, now_ms: int) -> str:
    """How long ago an RFC 3339 time was; "" when there is none."""
    at = _parsed(stamp)
    return "" if at is None else span(now_ms - at)


def until(stamp: Any, now_ms: int) -> str:
    """How long it is to an RFC 3339 time, "0s" when it has passed; "" when there is none."""
    at = _parsed(stamp)
    return "" if at is None else span(at - now_ms)


def _parsed(stamp: Any) -> int | None:
    try:
        return parse_rfc3339(stamp) if isinstance(stamp, str) and stamp else None
    except ValueError:
        return None
