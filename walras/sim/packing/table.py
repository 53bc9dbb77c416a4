"""Policies over workloads and seeds, beside what was published."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.core.errors import Invalid
from walras.sim.packing.study import POLICIES, openb_study

WORKLOADS: Final = (
    "default",
    "cpu050",
    "cpu100",
    "cpu200",
    "gpushare60",
    "gpushare100",
    "gpuspec20",
    "multigpu20",
    "multigpu30",
)
LOAD: Final = 1.3  # of the published experiment
FIRST_SEED: Final = 42
PUBLISHED: Final = {
    "fgd": "06-FGD",
    "best-fit": "05-BestFit",
    "packing": "04-GpuPacking",
    "clustering": "03-GpuClustering",
    "dot-product": "02-DotProd",
    "random": "01-Random",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one workload: means over seeds, and the published mean where there is one."""

    workload: str
    policy: str
    allocation_pct: float
    deviation: float  # standard, between seeds
    unserved: float
    evictions: float
    migrated_milli: float
    seconds: float  # a run
    published_pct: float | None

    def line(self) -> str:
        """The row as text, under `HEADER`."""
        published = "" if self.published_pct is None else f"{self.published_pct:.2f}"
        off = "" if self.published_pct is None else f"{self.allocation_pct - self.published_pct:+.2f}"
        return (
            f"{self.workload:<12} {self.policy:<22} {self.allocation_pct:>7.2f} {self.deviation:>5.2f} "
            f"{published:>9} {off:>6} {self.unserved:>8.0f} {self.evictions:>9.0f} "
            f"{self.migrated_milli:>14.0f} {self.seconds:>7.2f}"
        )


HEADER: Final = (
    f"{'workload':<12} {'policy':<22} {'alloc %':>7} {'sd':>5} {'published':>9} {'off':>6} {'unserved':>8} "
    f"{'evictions':>9} {'migrated milli':>14} {'seconds':>7}"
)


def rows(
    data: Path,
    *,
    workloads: Sequence[str] = WORKLOADS,
    policies: Sequence[str] = POLICIES,
    seeds: int = 10,
    load: float = LOAD,
) -> Iterator[Row]:
    """One row at a time. data: the folder with `openb/`, and `fgd/` for what was published.

    Raises NotFound and Invalid as the study does.
    """
    if seeds < 1:
        raise Invalid(f"{seeds} seeds are none; give 1 or more")
    published = read_published(data / "fgd" / "published_allocation_at_130pct.csv") if load == LOAD else {}
    for workload in workloads:
        study = openb_study(
            data / "openb" / "openb_node_list_gpu_node.csv", data / "openb" / f"openb_pod_list_{workload}.csv"
        )
        for policy in policies:
            results, started = [], time.perf_counter()
            for seed in range(FIRST_SEED, FIRST_SEED + seeds):
                results.append(study.run(policy, seed=seed, load=load, progress=lambda _: None).metrics)
            seconds = (time.perf_counter() - started) / seeds
            mean = {name: statistics.fmean(each[name] for each in results) for name in results[0]}
            yield Row(
                workload,
                policy,
                mean["allocation_pct"],
                statistics.stdev(each["allocation_pct"] for each in results) if seeds > 1 else 0.0,
                mean["unserved"],
                mean["evictions"],
                mean["migrated_milli"],
                seconds,
                published.get((workload, policy)),
            )


def read_published(path: Path) -> Mapping[tuple[str, str], float]:
    """The mean allocation by workload and policy that Weng et al. published; nothing where the file is not.

    Raises Invalid for a file that is there and does not say it.
    """
    if not path.exists():
        return {}
    found = {}
    with path.open(newline="") as file:
        try:
            for row in csv.DictReader(file):
                workload = row["workload"].removeprefix("openb_pod_list_")
                for policy, column in PUBLISHED.items():
                    found[workload, policy] = float(row[f"{column}_mean"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Invalid(
                f"{path}: no {error} in it; give the published means, or leave the file out"
            ) from error
    return found
