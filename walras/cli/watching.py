"""`-w`: look again every second and print what is new."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import sleep as pause
from typing import Any, Final

from walras.cli.output import Column, Object, emit, rich_table, show

INTERVAL_S: Final = 1.0

Key = Callable[[Object], tuple[str, ...]]


def follow(
    fetch: Callable[[], Sequence[Object]],
    columns: Sequence[Column],
    output: str,
    *,
    key: Key,
    version: Callable[[Object], Any],
) -> None:
    """Prints every row, then each row again whose version has changed, until interrupted."""
    seen: dict[tuple[str, ...], Any] = {}
    first = True
    try:
        while True:
            rows = fetch()
            fresh = [row for row in rows if seen.get(key(row)) != version(row)]
            seen = {key(row): version(row) for row in rows}
            if output in ("json", "yaml"):
                for row in fresh:
                    emit(row, output, compact=True)
            elif fresh or first:
                show(columns, fresh, output, heading=first)
            first = False
            sys.stdout.flush()
            pause(INTERVAL_S)
    except KeyboardInterrupt:
        return


def live(fetch: Callable[[], Sequence[Object]], columns: Sequence[Column]) -> None:
    """Keeps one table on the terminal up to date, until interrupted."""
    from rich.live import Live  # noqa: PLC0415 - rich is loaded only for a terminal

    titles = [column.title for column in columns]
    try:
        with Live(auto_refresh=False) as screen:
            while True:
                cells = [[column.text(row) for column in columns] for row in fetch()]
                screen.update(rich_table(titles, cells), refresh=True)
                pause(INTERVAL_S)
    except KeyboardInterrupt:
        return
