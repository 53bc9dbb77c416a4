"""`walras sim compare`: published experiments played again, beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

_data = click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder with the published traces; the documentation says where they are to be had.",
)
_policy = click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="One alone; again for more. [default: all]"
)


@click.group()
def compare() -> None:
    """Play published experiments again, and put our policies beside them."""


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
