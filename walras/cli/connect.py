"""`walras connect` and `walras disconnect`."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import click

from walras.cli import kubeconfig as kubeconfigs
from walras.cli.client import Client
from walras.cli.options import complete_agents, with_client
from walras.cli.output import Object
from walras.cli.target import FLEET
from walras.core.errors import Forbidden, NotFound

_AGENT = click.argument("name", shell_complete=complete_agents)


def agent_kubeconfig(client: Client, name: str) -> bytes:
    """The kubeconfig of an agent: from its Secret in the fleet, or the one in hand when it is that agent's.

    Raises NotFound, Forbidden.
    """
    if not client.target.is_operator:
        if client.target.cluster == name:
            return client.target.source.read_bytes()
        raise Forbidden(
            f'{client.target.source} is of agent "{client.target.cluster}"; only the operator opens "{name}"'
        )
    try:
        secret = client.get(f"api/v1/namespaces/walras-system/secrets/agent-{name}", cluster=FLEET)
    except NotFound:
        raise NotFound(f'there is no agent "{name}"; `walras agent list` shows those there are') from None
    return base64.b64decode(secret["data"]["kubeconfig"])


@click.command(context_settings={"ignore_unknown_options": False})
@with_client
@_AGENT
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def connect(client: Client, name: str, command: tuple[str, ...]) -> int | None:
    """Point kubectl at an agent's cluster, or run one command in it.

    Without a COMMAND your kubeconfig gets the context walras-NAME, which becomes the current one until
    `walras disconnect`. With one, the command runs with a kubeconfig of its own, yours stays as it is,
    and its exit code is the one of `walras connect`.
    """
    content = agent_kubeconfig(client, name)
    if command:
        return run_in(content, command)
    path = kubeconfigs.user_path()
    config = kubeconfigs.load(path)
    credentials = kubeconfigs.parse(content, f"the kubeconfig of {name}")
    kubeconfigs.save(path, kubeconfigs.connected(config, name, credentials))
    click.echo(f'kubectl now works in the cluster of agent "{name}" (context walras-{name} in {path}).')
    click.echo(f"`walras disconnect {name}` brings back the one before.")
    return None


def run_in(content: bytes, command: tuple[str, ...]) -> int:
    """Runs a command with a private kubeconfig; returns its exit code as a shell would give it."""
    with tempfile.TemporaryDirectory(prefix="walras-") as folder:
        path = Path(folder) / "kubeconfig"
        kubeconfigs.write_private(path, content)
        environment = {**os.environ, "KUBECONFIG": str(path), "WALRAS_KUBECONFIG": str(path)}
        try:
            child = subprocess.Popen(command, env=environment)
        except FileNotFoundError:
            click.echo(f"Error: {command[0]}: command not found", err=True)
            return 127
        except PermissionError:
            click.echo(f"Error: {command[0]}: may not be executed", err=True)
            return 126
        # Ctrl-C is for the command, which shares the terminal; this one waits for its exit code.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = child.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


@click.command()
@click.argument("name", required=False, shell_complete=complete_agents)
def disconnect(name: str | None) -> None:
    """Take the contexts of `walras connect` away again, all or one agent's, and go back to the one before."""
    path = kubeconfigs.user_path()
    config, removed = kubeconfigs.disconnected(kubeconfigs.load(path), name)
    if not removed:
        click.echo("Not connected to any agent.")
        return
    kubeconfigs.save(path, config)
    click.echo(f"Removed {', '.join(removed)} from {path}; {_current(config)}.")


def _current(config: Object) -> str:
    name = config.get("current-context")
    return f'the current context is "{name}"' if name else "there is no current context"
