"""`walras sim compare`: experiments of the documentation, most of them published ones, played again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from walras.core.quantity import parse_duration_ms

_data = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder with the published traces; the documentation says where they are to be had.",
)
_policy = click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="One alone; again for more. [default: all]"
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")


@click.group()
def compare() -> None:
    """Play experiments again that the documentation shows, and put our policies beside others."""


@compare.command()
@_data
@_policy
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="One alone; again for more.")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1), help="Runs of each.")
@click.option("--load", default=1.3, show_default=True, help="What arrives; 1.3 is 130 % of the GPUs.")
def openb(data: Path, policies: Sequence[str], workloads: Sequence[str], seeds: int, load: float) -> None:
    """Pack Alibaba's openb trace, as in "Beware of Fragmentation" (USENIX ATC 2023).

    Reads openb/ and, where it is, fgd/ for what was published.
    """
    from walras.sim.packing import table  # noqa: PLC0415 - it loads numba
    from walras.sim.packing.study import POLICIES  # noqa: PLC0415

    click.echo(table.HEADER)
    for row in table.rows(
        data,
        workloads=workloads or table.WORKLOADS,
        policies=policies or POLICIES,
        seeds=seeds,
        load=load,
    ):
        click.echo(row.line())


@compare.command()
@_data
@_policy
@click.option("--gpus", default=32, show_default=True, type=click.IntRange(1), help="Of the cluster.")
@click.option("--seed", default=0, show_default=True, help="0 for the trace as it is; others shift arrivals.")
def shockwave(data: Path, policies: Sequence[str], gpus: int, seed: int) -> None:
    """Train the jobs of the Shockwave paper (NSDI 2023) in rounds. Reads shockwave/."""
    from walras.sim.rounds.table import lines  # noqa: PLC0415 - it loads numpy

    for line in lines(data, policies=policies, gpus=gpus, seed=seed):
        click.echo(line)


@compare.command()
@_data
@_policy
@click.option("--gpus", default=64, show_default=True, type=click.IntRange(8, 4096), help="Of the pool.")
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 1440), help="Work arrives.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Runs of each.")
@click.option(
    "--checkpoint",
    default="0s",
    show_default=True,
    metavar="DURATION",
    help="Jobs save so often; 0s: on notice.",
)
@_json
def sharing(
    data: Path,
    policies: Sequence[str],
    gpus: int,
    minutes: int,
    seeds: int,
    checkpoint: str,
    as_json: bool,
) -> None:
    """Inference beside training: Azure's and Mooncake's requests, the jobs of Microsoft's Philly.

    Reads azure-llm-2023/, mooncake/ and gavel/.
    """
    from walras.sim.sharing import table  # noqa: PLC0415 - it loads numba

    found = []
    if not as_json:
        click.echo(table.HEADER)
    for row in table.rows(
        data,
        policies=policies,
        gpus=gpus,
        minutes=minutes,
        seeds=seeds,
        checkpoint_ms=parse_duration_ms(checkpoint),
    ):
        found.append(row)
        if not as_json:
            click.echo(row.line())
    if as_json:
        asked = {"gpus": gpus, "minutes": minutes, "seeds": seeds}
        told = {**asked, "policies": {row.policy: row.metrics for row in found}}
        click.echo(msgspec.json.encode(told).decode())
        return
    for line in table.summary(found):
        click.echo(line)


@compare.command()
@_data
@_policy
@click.option(
    "--gpus",
    default="36:V100,36:P100,36:K80",
    show_default=True,
    metavar="N:MODEL,...",
    help="Of the pool; of models that Gavel measured.",
)
@click.option("--hours", default=72, show_default=True, type=click.IntRange(1, 2400), help="Jobs come.")
@click.option("--load", default=1.0, show_default=True, help="How much; 1 is all that the pool can do.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Runs of each.")
@_json
def mixed(
    data: Path,
    policies: Sequence[str],
    gpus: str,
    hours: int,
    load: float,
    seeds: int,
    as_json: bool,
) -> None:
    """Train on unlike GPUs: jobs of Microsoft's Philly, as fast on each model as Gavel (OSDI 2020) measured.

    Reads gavel/.
    """
    from walras.cli.studies import models_of  # noqa: PLC0415 - it loads numba
    from walras.sim.mixed import table  # noqa: PLC0415

    models, found = models_of(gpus), []
    if not as_json:
        click.echo(table.header(models))
    for row in table.rows(data, policies=policies, models=models, hours=hours, load=load, seeds=seeds):
        found.append(row)
        if not as_json:
            click.echo(row.line(models))
    if as_json:
        asked = {"gpus": models, "hours": hours, "load": load, "seeds": seeds}
        told = {**asked, "policies": {row.policy: row.metrics for row in found}}
        click.echo(msgspec.json.encode(told).decode())


@compare.command()
@click.option("--seeds", default=8, show_default=True, type=click.IntRange(1), help="Runs of each.")
@_json
def budgets(seeds: int, as_json: bool) -> None:
    """What budgets buy: agents alike in all but income, with a rebate, without, and under FIFO."""
    from walras.sim.sharing import paying  # noqa: PLC0415 - it loads numba

    found = []
    if not as_json:
        click.echo(paying.HEADER)
    for row in paying.rows(seeds):
        found.append(row)
        if not as_json:
            click.echo(row.line())
    if as_json:
        told = {row.name: {**row.metrics, "wealth_gini": row.wealth} for row in found}
        click.echo(msgspec.json.encode({"seeds": seeds, "variants": told}).decode())
        return
    click.echo()
    click.echo(paying.wealth_header(found[0]))
    for row in found:
        click.echo(row.wealth_line())
