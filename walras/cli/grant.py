"""`walras agent grant`."""

from __future__ import annotations

import secrets
from typing import Any

import click

from walras.cli.client import Client
from walras.cli.options import complete_agents, with_client
from walras.cli.output import emit, output_option
from walras.cli.target import FLEET
from walras.core.errors import MoneyError, ServiceUnavailable, Timeout
from walras.core.money import parse_credits


def _credits(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        if not parse_credits(value):
            raise click.BadParameter("a grant is of more than 0 credits")
    except MoneyError as error:
        raise click.BadParameter(error.message) from None
    return value.strip()


@click.command()
@with_client
@click.argument("name", shell_complete=complete_agents)
@click.argument("credits", callback=_credits)
@click.option(
    "--id",
    "id_",
    metavar="ID",
    help="What this grant is called: the same id again grants nothing more. [default: a new one]",
)
@click.option("--force", is_flag=True, help="Go above the wallet cap of the agent.")
@output_option
def grant(client: Client, name: str, credits: str, id_: str | None, force: bool, output: str) -> None:
    """Add credits to an agent's balance, once for each id. For the operator."""
    id_ = id_ or secrets.token_hex(8)
    body: dict[str, Any] = {"agent": name, "credits": credits, "id": id_, "force": force}
    try:
        made = client.post("walras/v1/grants", body, cluster=FLEET)
    except (Timeout, ServiceUnavailable) as error:
        # It may have been made all the same.
        raise type(error)(f"{error.message} (repeat it with --id {id_}: it is made once)") from None
    if emit(made, output):
        return
    done = "got" if made["made"] else "had got already"
    click.echo(f'Agent "{name}" {done} {made["credits"]} credits by the grant {made["id"]}.')
    click.echo(f"It can promise {made['balance']} now; `walras ledger statement {name}` shows them.")
