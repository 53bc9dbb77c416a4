"""How results are shown: JSON, YAML, or tables that read like kubectl's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
import msgspec
import yaml

from walras.core.clock import parse_rfc3339

Object = dict[str, Any]
R = TypeVar("R")

_STYLES: Final = {
    "Active": "green", "Leased": "green", "True": "green", "yes": "green",
    "Pending": "yellow", "Reserved": "yellow", "Draining": "yellow", "Displaced": "yellow",
    "Refused": "red", "False": "red", "no": "red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the dotted path or function that gives its text, and whether only `-o wide` shows it."""

    title: str
    value: str | Callable[[Object], str]
    wide: bool = False

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


def show(columns: Sequence[Column], rows: Iterable[Object], output: str, *, heading: bool = True) -> None:
    """Prints a table, coloured when standard output is a terminal."""
    chosen = [column for column in columns if output == "wide" or not column.wide]
    titles = [column.title for column in chosen]
    cells = [[column.text(row) for column in chosen] for row in rows]
    if sys.stdout.isatty():
        _show_rich(titles, cells, heading)
    else:
        for line in plain(titles, cells)[0 if heading else 1 :]:
            click.echo(line)


def plain(titles: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table as kubectl prints it: columns three spaces apart, no line ends in a space."""
    every = [titles, *cells]
    widths = [max(len(row[i]) for row in every) for i in range(len(titles))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]


def rich_table(titles: Sequence[str], cells: Iterable[Sequence[str]], heading: bool = True) -> Any:
    """The same as a rich renderable."""
    from rich.table import Table  # noqa: PLC0415 - rich is loaded only for a terminal
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, show_header=heading, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def _show_rich(titles: Sequence[str], cells: Sequence[Sequence[str]], heading: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    # A line wider than the window is the terminal's to wrap: a name that is cut off cannot be copied.
    width = max(len(line) for line in plain(titles, cells)) + 3
    console = Console(highlight=False)
    console.width = max(width, console.width)
    console.print(rich_table(titles, cells, heading))


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
