"""`-w`: print what there is, then what changes, until interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from time import sleep as pause
from typing import Any, Final

from walras.cli.client import Client
from walras.cli.output import Column, Object, Table, dig, emit

INTERVAL_S: Final = 1.0


class Printer:
    """Prints rows as they come, as lines of one table or as one JSON or YAML document each."""

    def __init__(self, columns: Sequence[Column], output: str) -> None:
        self._output = output
        self._table = None if output in ("json", "yaml") else Table(columns, output)

    def print(self, rows: Sequence[Object]) -> None:
        if self._table and rows:
            self._table.print(rows)
        for row in rows if self._table is None else ():
            emit(row, self._output, compact=True)
        sys.stdout.flush()


def follow_objects(
    client: Client,
    path: str,
    columns: Sequence[Column],
    output: str,
    *,
    cluster: str,
    wanted: Callable[[Object], bool] = lambda _: True,
) -> None:
    """Prints a resource's objects, then each again when it changes, by a Kubernetes watch."""
    printer = Printer(columns, output)
    seen: dict[Any, Any] = {}

    def is_news(item: Object) -> bool:
        uid, version = dig(item, "metadata.uid"), dig(item, "metadata.resourceVersion")
        known, seen[uid] = seen.get(uid), version
        return wanted(item) and known != version

    try:
        printer.print([item for item in client.get(path, cluster=cluster)["items"] if is_news(item)])
        while True:
            # Without a revision to start from it begins with all that there is, so nothing is missed.
            for kind, item in client.watch(path, cluster=cluster):
                if kind in ("ADDED", "MODIFIED") and is_news(item):
                    printer.print([item])
            pause(INTERVAL_S)
    except KeyboardInterrupt:
        return


def poll(
    fetch: Callable[[], Sequence[Object]],
    columns: Sequence[Column],
    output: str,
    *,
    version: Callable[[Object], Any],
) -> None:
    """Prints rows that have a name, then looks every second and prints again those of another version."""
    printer = Printer(columns, output)
    seen: dict[str, Any] = {}
    try:
        while True:
            rows = fetch()
            fresh = [row for row in rows if seen.get(row["name"]) != version(row)]
            seen = {row["name"]: version(row) for row in rows}
            if fresh:
                printer.print(fresh)
            pause(INTERVAL_S)
    except KeyboardInterrupt:
        return


def live(fetch: Callable[[], Sequence[Object]], columns: Sequence[Column]) -> None:
    """Keeps one table on the terminal up to date, looking every second."""
    from rich.live import Live  # noqa: PLC0415 - rich is loaded only for a terminal
    from rich.table import Table as RichTable  # noqa: PLC0415

    try:
        with Live(auto_refresh=False) as screen:
            while True:
                table = RichTable(box=None, pad_edge=False, padding=(0, 3, 0, 0))
                for column in columns:
                    table.add_column(column.title, no_wrap=True)
                for row in fetch():
                    table.add_row(*(column.text(row) for column in columns))
                screen.update(table, refresh=True)
                pause(INTERVAL_S)
    except KeyboardInterrupt:
        return
