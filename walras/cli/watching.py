"""`-w`: print what there is, then what changes, until interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from time import sleep as pause
from typing import Any, Final

from walras.cli.client import Client
from walras.cli.output import Column, Object, Table, dig, emit

INTERVAL_S: Final = 1.0


class Printer:
    """Prints what is new as it comes: lines of one table, or one JSON or YAML document each."""

    def __init__(self, columns: Sequence[Column], output: str) -> None:
        self._output = output
        self._table = None if output in ("json", "yaml") else Table(columns, output)

        self._seen: dict[Any, Any] = {}

    def print(self, rows: Iterable[Object], key: str, version: Callable[[Object], Any]) -> None:
        """Prints those rows whose version differs from that of the last row with the same `key`.

        In a table the version is what the table shows.
        """
        fresh = []
        for row in rows:
            now = self._table.steady(row) if self._table else version(row)
            if self._seen.get(dig(row, key)) != now:
                self._seen[dig(row, key)] = now
                fresh.append(row)
        if self._table and fresh:
            self._table.print(fresh)
        for row in () if self._table else fresh:
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

    def tell(items: list[Object]) -> None:
        shown = [item for item in items if wanted(item)]
        printer.print(shown, "metadata.uid", lambda item: dig(item, "metadata.resourceVersion"))

    try:
        tell(client.get(path, cluster=cluster)["items"])
        while True:
            # Without a revision to start from it begins with all that there is, so nothing is missed.
            for kind, item in client.watch(path, cluster=cluster):
                if kind in ("ADDED", "MODIFIED"):
                    tell([item])
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
    try:
        while True:
            printer.print(fetch(), "name", version)
            pause(INTERVAL_S)
    except KeyboardInterrupt:
        return


def live(fetch: Callable[[], Sequence[Object]], columns: Sequence[Column], output: str) -> None:
    """Keeps one table on the terminal up to date, looking every second."""
    from rich.live import Live  # noqa: PLC0415 - rich is loaded only for a terminal
    from rich.text import Text  # noqa: PLC0415

    table = Table(columns, output)
    try:
        with Live(auto_refresh=False) as screen:
            while True:
                text = Text.from_ansi("\n".join(table.lines(fetch())), no_wrap=True, overflow="crop")
                screen.update(text, refresh=True)
                pause(INTERVAL_S)
    except KeyboardInterrupt:
        return
