"""`walras agent`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from walras.cli.backup import backup, restore
from walras.cli.client import WALRAS, Client
from walras.cli.connect import agent_kubeconfig
from walras.cli.grant import grant
from walras.cli.kubeconfig import write_private
from walras.cli.options import complete_agents, watch_option, with_client, with_operator
from walras.cli.output import Column, Object, age, dig, emit, facts, output_option, show
from walras.cli.target import FLEET
from walras.cli.watching import follow_objects
from walras.core.errors import AlreadyExists, MoneyError, NotFound, Timeout
from walras.core.money import parse_credits, parse_rate

PATH: Final = f"{WALRAS}/agents"
DEADLINE_S: Final = 30.0
# A DNS label (RFC 1123).
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@click.group()
def agent() -> None:
    """Make, list, fund, back up and delete agents: each has a budget and a Kubernetes cluster of its own."""


agent.add_command(grant)
agent.add_command(backup)
agent.add_command(restore)


def _checked_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter(
            f'"{value}" is not a name; use lower-case letters, digits and "-", at most 63, '
            "with a letter or digit at both ends"
        )
    if value == FLEET:
        raise click.BadParameter(f'"{FLEET}" is the operator\'s own cluster; choose another name')
    return value


def _money(read: Callable[[str], int]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        try:
            if value is not None:
                read(value)
        except MoneyError as error:
            raise click.BadParameter(error.message) from None
        return value.strip().removeprefix("+") if value else value

    return check


def manifest(name: str, budget: Object, max_price: str | None) -> Object:
    """The Agent object; what is None in the budget is left to the server's defaults."""
    spec: Object = {"budget": {field: value for field, value in budget.items() if value is not None}}
    if max_price is not None:
        spec["market"] = {"maxPrice": max_price}
    return {"apiVersion": "walras.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}


@agent.command()
@with_operator
@click.argument("name", callback=_checked_name)
@click.option(
    "--income",
    required=True,
    callback=_money(parse_rate),
    metavar="RATE",
    help='Credits that accrue per s, m, h or d, such as "12/h".',
)
@click.option(
    "--weight",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    help="Its share of the market's revenue that flows back to the agents.",
)
@click.option(
    "--guaranteed",
    type=click.IntRange(0, 1_000_000_000),
    metavar="MILLIGPU",
    help="Its guaranteed part of the pool: what others pay for it comes back to this agent.",
)
@click.option("--balance", callback=_money(parse_credits), metavar="CREDITS", help="Credits to begin with.")
@click.option(
    "--wallet-cap",
    callback=_money(parse_credits),
    metavar="CREDITS",
    help="No income above this balance. [default: 24 hours of income]",
)
@click.option(
    "--max-price",
    callback=_money(parse_credits),
    metavar="CREDITS",
    help="What a pod that names no price bids at most, a GPU-hour.",
)
@click.option(
    "--kubeconfig",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the agent's kubeconfig here, readable by you alone.",
)
@output_option
def create(
    client: Client,
    *,
    name: str,
    income: str,
    weight: int,
    guaranteed: int | None,
    balance: str | None,
    wallet_cap: str | None,
    max_price: str | None,
    file: Path | None,
    output: str,
) -> None:
    """Create an agent with a budget and a cluster of its own, and wait until it is ready.

    The server is found by --data or WALRAS_KUBECONFIG; --kubeconfig is the file to write.
    """
    budget = {
        "income": income,
        "weight": weight,
        "guaranteed": guaranteed,
        "balance": balance,
        "walletCap": wallet_cap,
    }
    try:
        client.post(PATH, manifest(name, budget, max_price), cluster=FLEET)
    except AlreadyExists:
        raise AlreadyExists(
            f'agent "{name}" exists already; see it with `walras agent show {name}`'
        ) from None
    made = wait_until_ready(client, name)
    content = agent_kubeconfig(client, name)
    if file:
        write_private(file, content)
    if emit(made, output):
        return
    click.echo(f'Agent "{name}" is ready at {dig(made, "status.endpoint")}')
    if file:
        click.echo(f"Its kubeconfig is {file}: KUBECONFIG={file} kubectl get nodes")
    else:
        click.echo(f"Go on with `walras connect {name}`, then kubectl as ever.")


def wait_until_ready(
    client: Client,
    name: str,
    *,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Object:
    """The agent once its Ready condition is True. Raises Timeout with what the condition says."""
    deadline, wait_s = now() + DEADLINE_S, 0.005
    while True:
        found = client.get(f"{PATH}/{name}", cluster=FLEET)
        ready = _ready(found)
        if ready.get("status") == "True":
            return found
        if now() >= deadline:
            why = ready.get("message") or ready.get("reason") or "nothing is known of it"
            raise Timeout(
                f'agent "{name}" was created but is not ready after {DEADLINE_S:.0f} s: {why}; '
                f"look again with `walras agent show {name}`"
            )
        pause(wait_s)
        wait_s = min(wait_s * 1.5, 0.25)


def _ready(found: Object) -> Object:
    conditions: list[Object] = dig(found, "status.conditions") or []
    return next((condition for condition in conditions if condition.get("type") == "Ready"), {})


def _age(found: Object) -> str:
    return age(dig(found, "metadata.creationTimestamp"), time.time_ns() // 1_000_000)


COLUMNS: Final = (
    Column("NAME", "metadata.name"),
    Column("INCOME", "spec.budget.income"),
    Column("WEIGHT", "spec.budget.weight"),
    Column("GUARANTEED", "spec.budget.guaranteed", wide=True),
    Column("BALANCE", "status.balance"),
    Column("HELD", "status.held", wide=True),
    Column("SPEND/H", "status.spendPerHour"),
    Column("SPENT", "status.spent", wide=True),
    Column("RUNWAY", "status.runway"),
    Column("LEASES", "status.leases"),
    Column("READY", lambda found: str(_ready(found).get("status", "Unknown"))),
    Column("ENDPOINT", "status.endpoint", wide=True),
    Column("AGE", _age, runs=True),
)


@agent.command("list")
@with_client
@watch_option
@output_option
def list_(client: Client, watch: bool, output: str) -> None:
    """List the agents with their budgets."""
    if watch:
        follow_objects(client, PATH, COLUMNS, output, cluster=FLEET)
        return
    found = client.get(PATH, cluster=FLEET)
    if emit(found, output):
        return
    if found["items"]:
        show(COLUMNS, found["items"], output)
    else:
        click.echo("No agents yet; make one with `walras agent create NAME --income 12/h`.", err=True)


def _milli(amount: Any) -> str:
    return "" if amount is None else f"{amount} milli-GPU"


def _existing(client: Client, name: str) -> Object:
    try:
        return client.get(f"{PATH}/{name}", cluster=FLEET)
    except NotFound:
        raise NotFound(f'there is no agent "{name}"; `walras agent list` shows those there are') from None


@agent.command("show")
@with_client
@click.argument("name", shell_complete=complete_agents)
@output_option
def show_(client: Client, name: str, output: str) -> None:
    """Show one agent: budget, balance, spending and state."""
    found = _existing(client, name)
    if emit(found, output):
        return
    ready = _ready(found)
    why = ready.get("message") if ready.get("status") != "True" else ""
    facts(
        (
            ("Name", name),
            ("Endpoint", dig(found, "status.endpoint")),
            ("Ready", ": ".join(filter(None, (ready.get("status", "Unknown"), why)))),
            ("Income", dig(found, "spec.budget.income")),
            ("Weight", dig(found, "spec.budget.weight")),
            ("Guaranteed", _milli(dig(found, "spec.budget.guaranteed"))),
            ("Wallet cap", dig(found, "spec.budget.walletCap")),
            ("Max price", dig(found, "spec.market.maxPrice")),
            ("Balance", dig(found, "status.balance")),
            ("Held for leases", dig(found, "status.held")),
            ("Spent", dig(found, "status.spent")),
            ("Spends an hour", dig(found, "status.spendPerHour")),
            ("Lasts for", dig(found, "status.runway")),
            ("Leases", dig(found, "status.leases")),
            ("Age", _age(found)),
        )
    )


@agent.command()
@with_client
@click.argument("name", shell_complete=complete_agents)
@click.option("-y", "--yes", is_flag=True, help="Do not ask on a terminal.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until everything of it is gone."
)
def delete(client: Client, name: str, yes: bool, wait: bool) -> None:
    """Delete an agent with its cluster and everything that runs in it."""
    uid = dig(_existing(client, name), "metadata.uid")
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        click.confirm(f'Delete agent "{name}", its cluster and all that runs in it?', abort=True)
    client.delete(f"{PATH}/{name}", cluster=FLEET)
    if wait:
        _wait_until_gone(client, name, uid)
    click.echo(f'Agent "{name}" is {"deleted" if wait else "being deleted"}.')


def _wait_until_gone(client: Client, name: str, uid: Any) -> None:
    deadline, wait_s = time.monotonic() + DEADLINE_S, 0.01
    while True:
        try:
            found = client.get(f"{PATH}/{name}", cluster=FLEET)
        except NotFound:
            return
        if dig(found, "metadata.uid") != uid:
            return
        if time.monotonic() >= deadline:
            held = ", ".join(dig(found, "metadata.finalizers") or []) or "the server"
            raise Timeout(f'agent "{name}" is still being deleted after {DEADLINE_S:.0f} s; {held} holds it')
        time.sleep(wait_s)
        wait_s = min(wait_s * 1.5, 0.25)
