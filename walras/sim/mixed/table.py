"""Training on unlike GPUs under every policy: a line for each, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

from walras.core.errors import NotFound
from walras.core.money import HOUR_MS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Device, Rules
from walras.sim.mixed import gavel
from walras.sim.mixed.load import drawn, read
from walras.sim.world.figures import Figures
from walras.sim.world.fleet import ASKING
from walras.sim.world.recorder import Recorder
from walras.sim.world.workload import Workload
from walras.sim.world.world import World

# As many of each as in the simulations of Gavel's paper.
MODELS: Final[Mapping[str, int]] = {"V100": 36, "P100": 36, "K80": 36}
# A mechanism, and behind a colon how jobs ask for devices if not as a server does for pods.
POLICIES: Final = (
    "auction",
    "auction:own",
    "fifo:any",
    "fifo",
    "fifo:own",
    "priority:own",
    "fairshare:own",
    "gavel",
)
TICK_MS: Final = 300_000
RULES: Final = Rules(notice_ms=2_000, quantum_ms=TICK_MS, tick_ms=TICK_MS)
# A job that moves to another model in its round is there within a minute.
GAVEL_RULES: Final = replace(RULES, tick_ms=60_000)


@dataclass(frozen=True, slots=True)
class Row:
    """One policy: means over seeds of the metrics of `walras sim run`."""

    policy: str
    metrics: dict[str, float]

    def line(self, models: Iterable[str]) -> str:
        """The row as text, under `header`."""
        found = self.metrics
        used = "  ".join(f"{100 * found[f'utilisation_{model}']:>6.1f}" for model in models)
        return (
            f"{self.policy:<14} {found['jct_mean_s'] / 3600:>10.2f} {found['jct_p99_s'] / 3600:>10.1f} "
            f"{found['rho_worst']:>10.2f} {found['unfair_pct']:>9.1f} {found['jain']:>6.3f} "
            f"{found['goodput_pct']:>7.1f}  {used} {found['unserved']:>9.0f} {found['evictions']:>10.0f}"
        )


def header(models: Iterable[str]) -> str:
    """The heading of the rows of a pool of these models."""
    names = "  ".join(f"{model:>6}" for model in models)
    return (
        f"{'policy':<14} {'JCT mean h':>10} {'JCT p99 h':>10} {'rho worst':>10} {'unfair %':>9} {'Jain':>6} "
        f"{'work %':>7}  {names} {'unserved':>9} {'evictions':>10}"
    )


def rows(
    data: Path,
    *,
    policies: Sequence[str] = (),
    models: Mapping[str, int] = MODELS,
    hours: int = 72,
    load: float = 1.0,
    seeds: int = 1,
) -> Iterator[Row]:
    """One row at a time; of all policies where none is named.

    data: the folder with `gavel/`. hours: for how long jobs come.

    Raises NotFound for a file or policy that is not there, Invalid for a file that cannot be read, a model
    that was not measured, or a load.
    """
    chosen = policies or POLICIES
    for policy in chosen:
        _check(policy)
    hall = read(data, models)
    loads = [drawn(hall, hours * HOUR_MS, load, seed) for seed in range(seeds)]
    for policy in chosen:
        found = [play(work, policy, hall.devices) for work in loads]
        yield Row(policy, {name: fmean(each[name] for each in found) for name in found[0]})


def play(work: Workload, policy: str, pool: tuple[Device, ...]) -> dict[str, float]:
    """The metrics of one run."""
    mechanism, _, asking = policy.partition(":")
    if mechanism == gavel.NAME:
        world = World(work, "fifo", pool, rules=GAVEL_RULES, asking="own")
        world.market.decide_by(gavel.NAME, gavel.Gavel(world.market))
    else:
        world = World(work, mechanism, pool, rules=RULES, asking=asking or ASKING[0])
    recorder = Recorder(world, HOUR_MS)
    world.noted = recorder.note
    world.run()
    return Figures(world, recorder).metrics()


def _check(policy: str) -> None:
    mechanism, colon, asking = policy.partition(":")
    if policy == gavel.NAME:
        return
    if mechanism not in MECHANISMS or (colon and asking not in ASKING):
        known = f"{', '.join((*POLICIES, *MECHANISMS))}, each also with :{', :'.join(ASKING)}"
        raise NotFound(f'there is no policy "{policy}"; there are {known}')
