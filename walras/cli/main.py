"""The root command: names its subcommands without importing them, and turns every failure into one line."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from walras import __version__
from walras.core.errors import WalrasError

# name -> (module, attribute, what `walras --help` says of it)
COMMANDS: Final = {
    "up": ("up", "up", "Start everything on this machine."),
    "agent": ("agent", "agent", "Make, list, fund, back up and delete agents."),
    "connect": ("connect", "connect", "Point kubectl at an agent's cluster, or run one command in it."),
    "disconnect": ("connect", "disconnect", "Take the contexts of `connect` away again."),
    "prices": ("prices", "prices", "Show what a GPU-hour costs now."),
    "bid": ("bid", "bid", "Bid for GPU time, or see what a bid would get."),
    "bids": ("market", "bids", "List what agents would pay for GPU time."),
    "leases": ("market", "leases", "List who holds which share of which device."),
    "explain": ("explain", "explain", "Say why a bid won or lost, and what would have won."),
    "cost": ("cost", "cost", "Show what was spent, by agent, pod or device."),
    "ledger": ("ledger", "ledger", "Show every account, its statement, and whether the books balance."),
    "device": ("device", "device", "See which devices are on the market, and return those that failed."),
    "sim": ("sim", "sim", "Try policies on traces in virtual time, against those that people use."),
    "doctor": ("doctor", "doctor", "Say what this machine can enforce and what is missing."),
    "completion": ("shell", "completion", "Print the completion script of a shell."),
    "version": ("shell", "version", "Print the version."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"walras.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, _, short) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        return [
            CompletionItem(name, help=short)
            for name, (_, _, short) in COMMANDS.items()
            if name.startswith(incomplete)
        ]

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command line and exits: 0, 1 for a failure, 2 for a mistake in the command line."""
        kwargs.update(standalone_mode=False, prog_name="walras")
        try:
            code = super().main(*args, **kwargs)
        except Exception as error:
            if os.environ.get("WALRAS_DEBUG"):
                raise
            code = _report(error)
        # A command returns nothing or its exit code.
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    """Says on one line of stderr what went wrong; returns the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return 2
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "walras"
            return _fail(f"{error.format_message().rstrip('.')} (see `{path} --help`)", 2)
        case click.ClickException():
            return _fail(error.format_message(), error.exit_code)
        case click.Abort():
            return _fail("interrupted", 130)
        case WalrasError():
            return _fail(error.message)
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return _fail(f"{place}{error.strerror or error}")
    return _fail(f"unexpected {type(error).__name__}: {error}; WALRAS_DEBUG=1 shows where")


def _fail(message: str, code: int = 1) -> int:
    click.echo(f"Error: {' '.join(message.split())}", err=True)
    return code


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="walras %(version)s")
def main() -> None:
    """A market-run Kubernetes for AI agents.

    Every agent gets a Kubernetes cluster of its own and a budget; GPU time goes to whoever values it most.
    Start with `walras up`.
    """
