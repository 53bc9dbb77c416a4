"""The Shockwave trace under every policy, beside what was published: a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from walras.sim.rounds.published import COLUMNS, PUBLISHED
from walras.sim.rounds.study import gavel_study

TRACE: Final = "shockwave/120_0.2_5_100_40_25_0,0.5,0.5_0.6,0.3,0.09,0.01_multigpu_dynamic.trace"
THROUGHPUTS: Final = "shockwave/tacc_throughputs.json"
GPUS: Final = 32
_ROW: Final = "{:24} {:>10} {:>11} {:>9} {:>11} {:>12}"


def lines(data: Path, *, policies: Sequence[str] = (), gpus: int = GPUS, seed: int = 0) -> Iterator[str]:
    """A heading, then one line at a time; all policies where none is named.

    data: the folder with `shockwave/`. seed 0 is the trace as it is, others shift arrivals. What was
    published stands beside the trace as it is, on as many GPUs. Raises as `gavel_study`, and NotFound.
    """
    study = gavel_study(data / TRACE, data / THROUGHPUTS, gpus)
    published = PUBLISHED if (gpus, seed) == (GPUS, 0) else {}
    yield _ROW.format("policy", *COLUMNS)
    if published:
        yield _line("shockwave, published", published["shockwave"])
    for policy in policies or study.policies:
        if policy in published:
            yield _line(f"{policy}, published", published[policy])
        yield _line(policy, study.run(policy, seed=seed).metrics)


def _line(name: str, metrics: Mapping[str, float]) -> str:
    makespan, jct, rho, unfair, used = (metrics[column] for column in COLUMNS)
    return _ROW.format(name, f"{makespan:.0f}", f"{jct:.0f}", f"{rho:.3f}", f"{unfair:.2f}", f"{used:.3f}")
