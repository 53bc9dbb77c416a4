"""`walras ledger`, `walras ledger verify` and `walras ledger statement`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from walras.cli.client import Client
from walras.cli.cost import balance, columns_of, duration
from walras.cli.options import chosen, data_option, kubeconfig_option, nearest_kubeconfig, with_client
from walras.cli.output import Column, Object, Table, emit, facts, output_option, show
from walras.cli.target import FLEET, default_data

DATABASE: Final = "walras.db"
VERIFY_S: Final = 600.0

_LINES: Final = [
    Column("ENTRY", "entry"),
    Column("TIME", "time"),
    Column("KIND", "kind"),
    Column("WITH", "with"),
    Column("AMOUNT", "amount"),
    Column("HOLD", "hold"),
    Column("BALANCE", "balance"),
    Column("HELD", "held"),
    Column("FOR", "for"),
    Column("ID", "id", wide=True),
]


@click.group(invoke_without_command=True)
@kubeconfig_option
@data_option
@output_option
@click.pass_context
def ledger(ctx: click.Context, kubeconfig: Path | None, data: Path | None, output: str) -> int | None:
    """Show every account of the double-entry ledger and whether the books balance (operator only)."""
    if ctx.invoked_subcommand:
        for name in ctx.params:
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} goes after {ctx.invoked_subcommand}")
        return None
    with Client(chosen(kubeconfig, data)) as client:
        found = client.get("walras/v1/ledger", cluster=FLEET)
    if not emit(found, output):
        accounts: list[dict[str, Any]] = found["accounts"]
        show(columns_of(accounts), accounts, output)
        click.echo("\nThe books balance." if found["balanced"] else "\nThe books do not balance.")
    return balance(found)


@ledger.command()
@kubeconfig_option
@data_option
@click.option(
    "--head", default="", metavar="HEAD", help="A head that was printed before: the journal must hold it."
)
@output_option
def verify(kubeconfig: Path | None, data: Path | None, head: str, output: str) -> int | None:
    """Check the whole journal from its first entry: seals, sequence, balances, holds and cost.

    It reads the data directory itself, whether or not a server runs on it; with a kubeconfig, or where it
    may not read that, it asks the server. Exits 1 and names the first fault if there is one.
    """
    path = (data or default_data()) / DATABASE
    if nearest_kubeconfig(kubeconfig) is None and os.access(path, os.R_OK):
        found = _read(path, head)
    else:
        query = {"head": head} if head else {}
        with Client(chosen(kubeconfig, data), timeout_s=VERIFY_S) as client:
            found = client.get("walras/v1/ledger", cluster=FLEET, verify="1", **query)
    if not emit(found, output):
        facts((name.capitalize(), found[name]) for name in ("entries", "head", "captured", "metered"))
    if fault := found["fault"]:
        click.echo(f"Error: {fault['message']}", err=True)
        return 1
    if output in ("table", "wide"):
        click.echo("\nThe journal is whole and unaltered, and leads to the books as they are.")
    return None


def _read(path: Path, head: str) -> Object:
    # Only here: a command that asks a server needs no database.
    from walras.exchange.audit import audit, read_head  # noqa: PLC0415
    from walras.kube.store.reader import SqliteReader  # noqa: PLC0415

    with SqliteReader(path) as database:
        return audit(database, read_head(head)).as_object()


@ledger.command()
@with_client
@click.argument("account", required=False, default="")
@click.option(
    "--since", default="", callback=duration, metavar="DURATION",
    help="How far to look back, such as 30m, 1h or 7d. [default: everything]",
)  # fmt: skip
@output_option
def statement(client: Client, account: str, since: str, output: str) -> None:
    """Show an account's entries, with its balance and what is on hold before, between and after.

    ACCOUNT is one of `walras ledger`, or the name of an agent. An agent reads its own and names none.
    """
    query = {"since": since} if since else {}
    if account:
        query["account"] = account if ":" in account or account == "mint" else f"agent:{account}"
    found = _page(client, query)
    if output in ("json", "yaml"):
        more = found
        while "continue" in more:
            more = _page(client, {**query, "continue": more["continue"]})
            found["entries"] += more["entries"]
            found["closing"] = more["closing"]
        found.pop("continue", None)
        emit(found, output)
        return
    table = Table(_LINES, output)
    facts([("Account", found["account"]), ("Opening", _position(found["opening"]))])
    click.echo("")
    table.print(found["entries"])
    while "continue" in found:
        found = _page(client, {**query, "continue": found["continue"]})
        table.print(found["entries"])
    click.echo("")
    facts([("Closing", _position(found["closing"]))])


def _page(client: Client, query: dict[str, str]) -> Object:
    return client.get("walras/v1/statement", **query)


def _position(position: Object) -> str:
    return f"{position['balance']}, of which on hold {position['held']}"
