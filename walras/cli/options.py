"""Options that many commands share, and the client that they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from walras.cli.client import WALRAS, Client
from walras.cli.target import FLEET, Target, find
from walras.core.errors import Forbidden, WalrasError

R = TypeVar("R")
EVERY = "*"

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="WALRAS_DATA",
    show_envvar=True,
    help="The server's data directory. [default: ~/.local/share/walras]",
)
kubeconfig_option = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="WALRAS_KUBECONFIG",
    show_envvar=True,
    help="The operator's or an agent's kubeconfig. [default: operator.kubeconfig in the data directory]",
)
watch_option = click.option("-w", "--watch", is_flag=True, help="Go on and print what changes.")
namespace_option = click.option("-n", "--namespace", default="", help="Only this namespace.")


def with_client(command: Callable[..., R]) -> Callable[..., R]:
    """Adds --kubeconfig and --data; the command gets the client that they lead to as its first argument."""

    @kubeconfig_option
    @data_option
    @wraps(command)
    def run(*args: Any, kubeconfig: Path | None, data: Path | None, **kwargs: Any) -> R:
        with Client(chosen(kubeconfig, data)) as client:
            return command(client, *args, **kwargs)

    return run


def with_operator(command: Callable[..., R]) -> Callable[..., R]:
    """Adds --data alone, for a command that has a --kubeconfig of its own; first argument as above."""

    @data_option
    @wraps(command)
    def run(*args: Any, data: Path | None, **kwargs: Any) -> R:
        named = os.environ.get("WALRAS_KUBECONFIG")
        with Client(chosen(Path(named) if named else None, data)) as client:
            return command(client, *args, **kwargs)

    return run


def chosen(kubeconfig: Path | None, data: Path | None) -> Target:
    """The target of the options."""
    return find(nearest_kubeconfig(kubeconfig), data)


def nearest_kubeconfig(kubeconfig: Path | None) -> Path | None:
    """The kubeconfig to use, if any: --data on the command line is nearer than WALRAS_KUBECONFIG."""
    source = click.get_current_context().get_parameter_source
    by_hand = source("data") is ParameterSource.COMMANDLINE
    return None if by_hand and source("kubeconfig") is not ParameterSource.COMMANDLINE else kubeconfig


def complete_agents(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of the agents there are; none when the server does not say."""
    try:
        with Client(find(ctx.params.get("kubeconfig"), ctx.params.get("data")), timeout_s=1) as client:
            agents = client.get(f"{WALRAS}/agents", cluster=FLEET)["items"]
    except (WalrasError, OSError):
        return []
    names = [agent["metadata"]["name"] for agent in agents]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def with_scope(command: Callable[..., R]) -> Callable[..., R]:
    """Adds --agent and -A; the command gets the logical cluster they name as `cluster`, "*" for all.

    The operator sees all agents unless one is named, an agent sees itself.
    """

    @click.option("--agent", default="", shell_complete=complete_agents, help="Only this agent.")
    @click.option("-A", "--all-agents", is_flag=True, help="Every agent (the operator's default).")
    @wraps(command)
    def run(client: Client, *args: Any, agent: str, all_agents: bool, **kwargs: Any) -> R:
        return command(client, *args, cluster=scope(client.target, agent, all_agents), **kwargs)

    return run


def scope(target: Target, agent: str, all_agents: bool) -> str:
    """The cluster to read: `agent`'s, all ("*"), or the target's own. Raises UsageError, Forbidden."""
    if agent and all_agents:
        raise click.UsageError("--agent and --all-agents exclude each other")
    if agent:
        return agent
    if target.is_operator:
        return EVERY
    if all_agents:
        raise Forbidden(f'{target.source} is of agent "{target.cluster}", which sees only itself')
    return target.cluster
