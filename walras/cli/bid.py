"""`walras bid`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import click

from walras.cli.client import WALRAS, Client
from walras.cli.options import complete_agents, with_client
from walras.cli.output import Object, dig, emit, facts, output_option
from walras.core.errors import BadRequest, MoneyError
from walras.core.money import parse_credits
from walras.devices.topology import Affinity
from walras.kube import bodies

CLASSES: Final = ("latency", "standard", "batch")
TOPOLOGIES: Final = tuple(str(each) for each in Affinity)
# What the flags say of a bid; with a file they are the file's to say.
_PACKAGE: Final = {
    "devices": "devices",
    "milligpu": "milliGPU",
    "memory": "memory",
    "term": "term",
    "max_price": "maxPrice",
    "selector": "selector",
    "devices_min": "devicesMin",
    "topology": "topology",
    "mig": "migProfile",
}
_SPEC: Final = {
    "class_": "class",
    "deadline": "deadline",
    "decay_from": "decayFrom",
    "restart_cost": "restartCost",
}


def _credits(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        if value is not None:
            parse_credits(value)
    except MoneyError as error:
        raise click.BadParameter(error.message) from None
    return value


@click.command()
@with_client
@click.option(
    "-f",
    "file",
    type=click.File("rb"),
    metavar="FILE",
    help='A Bid in YAML or JSON; "-" reads standard input.',
)
@click.option("--max-price", callback=_credits, metavar="CREDITS", help="The most it pays a GPU-hour.")
@click.option("--milligpu", type=click.IntRange(1, 1000), help="Thousandths of each device. [default: 1000]")
@click.option("--devices", type=click.IntRange(1, 1024), help="How many devices, at the most. [default: 1]")
@click.option("--devices-min", type=click.IntRange(1, 1024), help="With how many it is content.")
@click.option("--topology", type=click.Choice(TOPOLOGIES), help="Where they have to be. [default: any]")
@click.option("--mig", metavar="PROFILE", help="An instance of each instead, such as 1g.10gb.")
@click.option(
    "--memory", metavar="SIZE", help="Memory on each device, such as 10Gi. [default: the same share]"
)
@click.option("--class", "class_", type=click.Choice(CLASSES), help="How urgent it is. [default: standard]")
@click.option("--term", metavar="TIME", help="How long the lease lasts until it is renewed. [default: 1m]")
@click.option("--selector", metavar="CEL", help="Which devices it can use. [default: any]")
@click.option("--deadline", metavar="TIME", help="From when on it is worth nothing, as 2030-01-31T12:00:00Z.")
@click.option(
    "--decay-from", metavar="TIME", help="From when on its price falls, to nothing at the deadline."
)
@click.option("--restart-cost", callback=_credits, metavar="CREDITS", help="What being displaced costs it.")
@click.option("--name", help="What the Bid is called. [default: a new name]")
@click.option("-n", "--namespace", default="", help="Where the Bid is made. [default: default]")
@click.option(
    "--agent", default="", shell_complete=complete_agents, help="Whose bid it is, for the operator."
)
@click.option("--dry-run", is_flag=True, help="Make no Bid: say what it would get; exit with 1 if nothing.")
@output_option
def bid(
    client: Client,
    *,
    file: Any,
    name: str | None,
    namespace: str,
    agent: str,
    dry_run: bool,
    output: str,
    **terms: Any,
) -> int | None:
    """Bid for GPU time without a pod, or see what a bid would get.

    A lease that such a Bid wins is held, charged and renewed until the Bid is deleted; pods that ask for a
    GPU and fit are bound to its node.
    """
    cluster = agent or client.target.cluster
    if client.target.is_operator and not agent:
        raise click.UsageError("the operator has no budget to bid with; name an agent with --agent")
    given = {option: value for option, value in {"name": name, **terms}.items() if value is not None}
    if file is not None:
        if given:
            option = next(iter(given)).rstrip("_").replace("_", "-")
            raise click.UsageError(f"-f FILE says it all; leave out --{option} or write it into the file")
        wanted = read(file)
    elif "max_price" not in given:
        raise click.UsageError("say what it pays at most with --max-price, or name a file with -f")
    else:
        wanted = manifest(given)
    place(wanted, namespace)
    if dry_run:
        quote = client.post("walras/v1/quote", wanted, cluster=cluster)
        if not emit(quote, output):
            _print(quote)
        return 0 if quote["outcome"] == "Won" else 1
    made = client.post(f"{WALRAS}/namespaces/{wanted['metadata']['namespace']}/bids", wanted, cluster=cluster)
    if not emit(made, output):
        made_name, whose = dig(made, "metadata.name"), f" --agent {agent}" if agent else ""
        click.echo(
            f"bid/{made_name} is made; see what becomes of it with `walras explain bid/{made_name}{whose}`."
        )
    return None


def manifest(given: Object) -> Object:
    """The Bid of the command line's options."""
    package = {field: given[option] for option, field in _PACKAGE.items() if option in given}
    spec = {field: given[option] for option, field in _SPEC.items() if option in given}
    spec.setdefault("class", "standard")
    return {
        "apiVersion": "walras.dev/v1alpha1",
        "kind": "Bid",
        "metadata": {"name": given["name"]} if "name" in given else {"generateName": "bid-"},
        "spec": {**spec, "packages": [package]},
    }


def read(file: Any) -> Object:
    """The one Bid of a file. Raises BadRequest."""
    where = "standard input" if file.name in ("-", "<stdin>") else str(Path(file.name))
    try:
        wanted = asyncio.run(bodies.decode(file.read(), "application/yaml")).value
    except BadRequest as error:
        raise BadRequest(f"{where} has to hold one Bid in YAML or JSON: {error.message}") from None
    if wanted.get("kind") != "Bid":
        raise BadRequest(f"{where} has to hold an object of the kind Bid")
    if not isinstance(wanted.setdefault("metadata", {}), dict):
        raise BadRequest(f"the metadata in {where} has to be an object")
    return wanted


def place(wanted: Object, namespace: str) -> None:
    """Writes the namespace where it belongs. Raises BadRequest when the file says another."""
    said = wanted["metadata"].get("namespace")
    if said and namespace and said != namespace:
        raise BadRequest(f'the file is for the namespace "{said}", not "{namespace}"')
    wanted["metadata"]["namespace"] = namespace or said or "default"


def _print(quote: Object) -> None:
    if quote["outcome"] != "Won":
        said = quote["explanation"]
        click.echo(f"It would be refused: {said['message']}")
        facts(
            (
                ("Reason", said["reason"]),
                ("Bound by", said.get("constraint")),
                ("Clearing price", said.get("clearingPrice")),
                ("Would win at", said.get("winningPrice")),
                ("Place in the order", said.get("position") or None),
            )
        )
        return
    what = f"an instance {quote['mig']}" if "mig" in quote else f"{quote['milliGPU']} milli-GPU"
    share = f"{what} and {quote['memory']}"
    starts = "now" if quote["starts"] == "Now" else f"when others have left, within {quote['notice']}"
    gives_way = f"others, who get {quote['compensation']} credits" if quote["displaces"] else "nobody"
    click.echo("It would win.")
    facts(
        (
            ("Gets", share if quote["devices"] == 1 else f"{quote['devices']} devices with {share} each"),
            ("By package", quote["package"]),
            ("Price", f"{quote['price']} credits per GPU-hour"),
            ("Starts", starts),
            ("Term", quote["term"]),
            ("Cost of the term", quote["cost"]),
            ("Displaces", gives_way),
        )
    )
