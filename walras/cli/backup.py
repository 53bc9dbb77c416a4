"""`walras agent backup` and `walras agent restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from walras.cli.client import Client
from walras.cli.kubeconfig import write_private
from walras.cli.options import complete_agents, with_client, with_operator
from walras.cli.output import emit, output_option
from walras.core.errors import BadRequest


@click.command()
@with_client
@click.argument("name", shell_complete=complete_agents)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def backup(client: Client, name: str, file: Path) -> None:
    """Write the objects of an agent's cluster to FILE, as they are at this moment, readable by you alone.

    Secrets are among them. Nodes, bids, leases and Events are not.
    """
    taken = client.get("walras/v1/backup", cluster=name)
    write_private(file, msgspec.json.encode(taken))
    revision = taken["metadata"]["resourceVersion"]
    click.echo(f'{len(taken["items"])} objects of "{name}" at revision {revision} are in {file}.')


@click.command()
@with_operator
@click.argument("name", shell_complete=complete_agents)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def restore(client: Client, name: str, file: Path, yes: bool, output: str) -> None:
    """Put an agent's cluster back to what FILE says: what was made since is deleted. For the operator.

    Pods that run and are in FILE go on; others that had not ended are placed anew. Money is not touched.
    """
    try:
        document: Any = msgspec.json.decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise BadRequest(f"{file} is no backup of a cluster: {error}") from None
    if not yes:
        click.confirm(f'Delete what "{name}" has made since, and put back what is in {file}?', abort=True)
    done = client.post("walras/v1/restore", document, cluster=name)
    if not emit(done, output):
        click.echo(f'"{name}" is restored: {done["written"]} objects written, {done["deleted"]} deleted.')
