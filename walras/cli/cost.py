"""`walras cost`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from walras.cli.client import Client
from walras.cli.options import EVERY, with_client, with_scope
from walras.cli.output import Column, Object, emit, output_option, show
from walras.cli.target import FLEET
from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms


def duration(_: click.Context, __: click.Parameter, value: str) -> str:
    """The value of an option that is a duration. Raises BadParameter."""
    try:
        if value:
            parse_duration_ms(value)
    except Invalid as error:
        raise click.BadParameter(error.message) from None
    return value


def columns_of(rows: Sequence[Object]) -> list[Column]:
    """A column for every plain field of the rows, in their order; gpuSeconds is headed GPU-SECONDS.

    Exact amounts in micros are for programs and stand beside the readable ones.
    """
    names = dict.fromkeys(
        name
        for row in rows
        for name, value in row.items()
        if not isinstance(value, (dict, list)) and not name.endswith("Micros")
    )
    return [Column(_heading(name), name) for name in names]


def _heading(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).upper()


def balance(found: Object) -> int | None:
    """Says whether the books balance; returns the exit code 1 when they do not."""
    if found.get("balanced") is False:
        click.echo("Error: ledger, meters and cost do not agree; stop the server and keep its data", err=True)
        return 1
    return None


@click.command()
@with_client
@with_scope
@click.option(
    "--by",
    type=click.Choice(["agent", "workload", "pod", "device", "lease"]),
    default="agent",
    show_default=True,
    help="What to sum up by; a workload is the Job or ReplicaSet of a pod.",
)
@click.option(
    "--since",
    default="",
    callback=duration,
    metavar="DURATION",
    help="How far to look back, such as 30m, 1h or 7d, in whole minutes. [default: everything]",
)
@output_option
def cost(client: Client, cluster: str, by: str, since: str, output: str) -> int | None:
    """Show what was spent on GPU time, in credits.

    Without --since it is compared with the ledger, to the last micro-credit.
    """
    query = {"by": by, "since": since} if since else {"by": by}
    found = client.get("walras/v1/cost", cluster=FLEET if cluster == EVERY else cluster, **query)
    if not emit(found, output):
        rows = found["rows"]
        if rows:
            show(columns_of(rows), rows, output)
            click.echo("")
        click.echo(f"Total{f' of the last {since}' if since else ''}: {found['total']}{_agreement(found)}")
    return balance(found)


def _agreement(found: Object) -> str:
    if found.get("balanced") is None:
        return ""
    return f"; ledger: {found.get('ledger', '-')}; {'they agree' if found['balanced'] else 'THEY DIFFER'}"
