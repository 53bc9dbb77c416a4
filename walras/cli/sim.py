"""`walras sim`: run and fuzz; compare is in a file of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import click
import msgspec
from click.shell_completion import CompletionItem

from walras.cli.compare import compare
from walras.cli.output import Column, show
from walras.cli.studies import complete_trace, study_of
from walras.core.quantity import parse_duration_ms
from walras.market.mechanisms.registry import MECHANISMS
from walras.sim.study import Progress, Result

# Of a study's policies so many are compared when none is named.
POLICIES_SHOWN: Final = 5
# These are counts; the others are shown with two decimals.
COUNTS: Final = ("unserved", "evictions", "events")


@click.group()
def sim() -> None:
    """Try policies on a trace, in virtual time, against those that people use."""


sim.add_command(compare)


def _complete_policy(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in MECHANISMS if name.startswith(incomplete)]


@sim.command()
@click.option(
    "--trace",
    required=True,
    metavar="SCHEME:...",
    shell_complete=complete_trace,
    help="What arrives: synthetic:SPEC, or csv:, azure:, mooncake:, openb:, gavel: or shockwave: and a file.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    shell_complete=_complete_policy,
    help="How devices are divided; again for more. [default: the trace's first five]",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same result.")
@click.option(
    "--load",
    default=1.0,
    show_default=True,
    help="How much arrives: of what the pool can do, or of what the trace holds.",
)
@click.option(
    "--gpus",
    metavar="N|N:MODEL,...",
    help="Devices of the pool, of several models as in 8:V100,16:P100. [default: 8, or the trace's own]",
)
@click.option(
    "--tick",
    metavar="DURATION",
    help="How often the pool clears. [default: 1s; 5m for gavel: and shockwave: on several models]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a key a policy.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write an HTML page with plots, and its data as CSV, into this directory.",
)
def run(
    trace: str,
    policies: Sequence[str],
    seed: int,
    load: float,
    gpus: str | None,
    tick: str | None,
    as_json: bool,
    report: Path | None,
) -> None:
    """Play a trace under each policy and compare what came of it."""
    study = study_of(trace, gpus, None if tick is None else parse_duration_ms(tick))
    for note in study.notes:
        click.echo(f"note: {note}", err=True)
    chosen = list(dict.fromkeys(policies)) or list(study.policies[:POLICIES_SHOWN])
    results: dict[str, Result] = {}
    with _progress(chosen) as bars:
        for name in chosen:
            results[name] = study.run(name, seed=seed, load=load, progress=bars[name])
    if as_json:
        metrics = {name: result.metrics for name, result in results.items()}
        click.echo(msgspec.json.encode(metrics).decode())
    else:
        _compare(results)
    if report is not None:
        from walras.sim.report.page import write  # noqa: PLC0415 - it takes longer than the rest of a command

        page = write(report, results, title=f"{trace}, load {load:g}, seed {seed}")
        click.echo(f"report in {page}", err=as_json)


@sim.command()
@click.option("--seeds", default=100, show_default=True, type=click.IntRange(1), help="How many to try.")
@click.option("--first", default=0, show_default=True, type=click.IntRange(0), help="The first of them.")
@click.option("--seed", type=click.IntRange(0), help="Play this one alone, with a line for each transition.")
def fuzz(seeds: int, first: int, seed: int | None) -> int:
    """Search for a seed that breaks a promise of the market, among mechanisms, loads and faults."""
    from walras.sim.world.fuzz import play  # noqa: PLC0415 - as of the report

    if seed is not None:
        return _replay(seed)
    with _progress(["seeds"]) as bars:
        for tried in range(first, first + seeds):
            bars["seeds"]((tried - first) / seeds)
            if play(tried) is not None:
                break
        else:
            click.echo(f"{seeds} seeds from {first} on broke no promise")
            return 0
    return _replay(tried)


def _replay(seed: int) -> int:
    """Options first, then a line a transition, then what broke; the exit code."""
    from walras.sim.world.fuzz import drawn, play  # noqa: PLC0415

    click.echo(str(drawn(seed)))
    broke = play(seed, click.echo)
    click.echo(broke or "no promise was broken")
    return 1 if broke else 0


@contextmanager
def _progress(policies: Sequence[str]) -> Iterator[Mapping[str, Progress]]:
    """A bar a policy on standard error where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield {name: lambda _: None for name in policies}
        return
    from rich.console import Console  # noqa: PLC0415 - for a terminal only
    from rich.progress import Progress as Bars  # noqa: PLC0415
    from rich.progress import TaskID  # noqa: PLC0415

    with Bars(console=Console(stderr=True), transient=True) as bars:

        def advance(task: TaskID, done: float) -> None:
            bars.update(task, completed=done)

        yield {name: partial(advance, bars.add_task(name, total=1.0)) for name in policies}


def _compare(results: Mapping[str, Result]) -> None:
    """A row a metric, a column a policy."""
    names = dict.fromkeys(name for result in results.values() for name in result.metrics)
    rows = [
        {
            "metric": name,
            **{policy: _text(name, result.metrics.get(name)) for policy, result in results.items()},
        }
        for name in names
    ]
    show([Column("METRIC", "metric"), *(Column(name.upper(), name) for name in results)], rows, "table")


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if name in COUNTS else f"{value:.2f}"
