"""`walras completion` and `walras version`."""

from __future__ import annotations

import platform

import click
from click.shell_completion import get_completion_class

from walras import __version__
from walras.cli.output import emit, output_option
from walras.kube.schema import DEFINITIONS_VERSION


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell, for instance for `eval "$(walras completion bash)"`."""
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows {shell}"
    script = kind(ctx.find_root().command, {}, "walras", "_WALRAS_COMPLETE")
    click.echo(script.source_template % script.source_vars())


@click.command()
@output_option
def version(output: str) -> None:
    """Print the version of this command and of the Kubernetes types it knows."""
    facts = {"walras": __version__, "kubernetes": DEFINITIONS_VERSION, "python": platform.python_version()}
    if not emit(facts, output):
        click.echo(f"walras {__version__} (Kubernetes {DEFINITIONS_VERSION}, Python {facts['python']})")
