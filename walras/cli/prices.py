"""`walras prices`."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, Final

import click

from walras.cli.client import Client
from walras.cli.options import complete_agents, watch_option, with_client
from walras.cli.output import Column, Object, emit, output_option, show
from walras.cli.watching import live, poll

_BARS: Final = "▁▂▃▄▅▆▇█"


def trend(pool: Object, width: int = 14) -> str:
    """The last prices of a pool as a line of bars, the highest one full; "" without a history."""
    prices = [float(price) for _, price in pool.get("history") or []][-width:]
    top = max(prices, default=0.0)
    if top <= 0:
        return _BARS[0] * len(prices)
    return "".join(_BARS[round(price / top * (len(_BARS) - 1))] for price in prices)


def _percent(pool: Object) -> str:
    share = pool.get("allocatedPercent")
    return "" if share is None else f"{share}%"


COLUMNS: Final = (
    Column("POOL", "name"),
    Column("MECHANISM", "mechanism", wide=True),
    Column("PRICE", "price"),
    Column("POSTED", "postedPrice"),
    Column("RESERVE", "reserve"),
    Column("DEVICES", "devices"),
    Column("ALLOCATED", _percent),
    Column("BIDS", "bids"),
    Column("LEASES", "leases"),
    Column("TREND", trend, runs=True),
)


def _version(pool: Object) -> Any:
    return {name: value for name, value in pool.items() if name != "history"}


@click.command()
@with_client
@click.option(
    "--agent", default="", shell_complete=complete_agents, help="The pools as this agent sees them."
)
@watch_option
@output_option
def prices(client: Client, agent: str, watch: bool, output: str) -> None:
    """Show what a GPU-hour of a whole device costs now in each pool, in credits."""
    fetch = partial(client.get, "walras/v1/prices", cluster=agent)
    if not watch:
        found = fetch()
        if not emit(found, output):
            show(COLUMNS, found["pools"], output)
        return

    def pools() -> list[Object]:
        return list(fetch()["pools"])

    if sys.stdout.isatty() and output in ("table", "wide"):
        live(pools, COLUMNS, output)
    else:
        poll(pools, COLUMNS, output, version=_version)
